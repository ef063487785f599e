"""AWS event streams: binary frames with two checksums.

Owns: cutting ``application/vnd.amazon.eventstream`` into messages
(https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html).
Must never: hold more than one frame, trust a length without its checksum, or raise.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Any, Protocol
from zlib import crc32

import orjson

from proxy.providers.skim import loads

#: Larger frames pass unread. AWS allows 16 MiB; model events stay in the kilobytes.
MAX_FRAME_BYTES = 4_194_304
_LIMIT_BYTES = 16_777_216 + 131_072
_PRELUDE = struct.Struct(">III")
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class MessageReader(Protocol):
    """What the framer tells of."""

    text_bytes: int

    def event(self, name: bytes, doc: Any) -> bytes | None:
        """One message: the event's (or exception's) type and its payload."""


class EventStreamFramer:
    """Feeds a reader with messages. ``broken`` once the framing is lost."""

    __slots__ = ("_buffer", "_reader", "_skip", "broken", "events", "faults")

    def __init__(self, reader: MessageReader) -> None:
        self._reader = reader
        self._buffer = bytearray()
        self._skip = 0
        self.broken = False
        self.events = 0
        #: Messages that a reader stumbled over; the others are still read.
        self.faults = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        if self.broken:
            return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 12:
            total, headers, check = _PRELUDE.unpack_from(buffer, start)
            if (
                crc32(buffer[start : start + 8]) != check
                or not 16 <= total <= _LIMIT_BYTES
                or headers > total - 16
            ):
                self.broken = True
                buffer.clear()
                return
            if total > MAX_FRAME_BYTES:
                self._skip = max(0, total - (len(buffer) - start))
                start = min(len(buffer), start + total)
                continue
            if len(buffer) - start < total:
                break
            frame = bytes(buffer[start : start + total])
            start += total
            if crc32(frame[:-4]) != int.from_bytes(frame[-4:]):
                self.broken = True
                buffer.clear()
                return
            self.events += 1
            self._message(frame[12 : 12 + headers], frame[12 + headers : -4])
        if start:
            del buffer[:start]

    def close(self) -> None:
        """The stream is over; an unfinished frame counts for nothing."""
        self._buffer.clear()

    def _message(self, raw_headers: bytes, payload: bytes) -> None:
        headers = read_headers(raw_headers)
        kind = headers.get(":message-type", "event")
        if kind == "event":
            name = headers.get(":event-type", "")
        elif kind == "exception":
            name = "exception:" + headers.get(":exception-type", "")
        else:
            name = "error:" + headers.get(":error-code", "")
        doc = loads(payload)
        if isinstance(doc, dict) and isinstance(doc.get("bytes"), str):
            try:
                inner = loads(base64.b64decode(doc["bytes"], validate=True))
            except binascii.Error:
                inner = None
            if inner is not None:
                doc = inner
        if kind == "error" and doc is None:
            doc = {"message": headers.get(":error-message", "")}
        try:
            self._reader.event(name.encode(), doc if doc is not None else {})
        except Exception:
            self.faults += 1


def is_event_stream(data: bytes) -> bool:
    """Does a body begin with a message, whatever its label says?"""
    if len(data) < 12:
        return False
    _, _, check = _PRELUDE.unpack_from(data)
    return bool(crc32(data[:8]) == check)


def read_headers(data: bytes) -> dict[str, str]:
    """The headers of a message that are strings; others are passed over."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        length = data[at]
        name = data[at + 1 : at + 1 + length].decode("utf-8", "replace")
        at += 1 + length
        if at >= len(data):
            break
        kind = data[at]
        at += 1
        if kind in (6, 7):
            size = int.from_bytes(data[at : at + 2])
            at += 2
            if kind == 7:
                found[name] = data[at : at + size].decode("utf-8", "replace")
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            break
        at += size
    return found


def encode_message(headers: Sequence[tuple[str, str]], payload: Any) -> bytes:
    """One message with string headers and a JSON payload."""
    head = b"".join(
        bytes((len(name),))
        + name.encode()
        + b"\x07"
        + len(value.encode()).to_bytes(2)
        + value.encode()
        for name, value in headers
    )
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    prelude = struct.pack(">II", 16 + len(head) + len(body), len(head))
    frame = prelude + crc32(prelude).to_bytes(4) + head + body
    return frame + crc32(frame).to_bytes(4)
