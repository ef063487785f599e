"""WebSocket frames, looked at as they pass (RFC 6455, RFC 7692).

Owns: cutting one direction of a connection into messages, unmasked, inflated where
permessage-deflate was agreed on. Must never: change a byte, answer a frame, hold
more than one message, or raise.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

#: Larger messages pass unread.
MAX_MESSAGE_BYTES = 4_194_304
_TEXT, _BINARY, _CONTINUATION = 1, 2, 0


class FrameReader:
    """One direction. ``broken`` once the framing is lost."""

    __slots__ = (
        "_buffer",
        "_compressed",
        "_inflater",
        "_keep_context",
        "_message",
        "_on_message",
        "_overflow",
        "_skip",
        "broken",
    )

    def __init__(
        self,
        on_message: Callable[[bytes], None],
        *,
        deflate: bool = False,
        keep_context: bool = True,
    ) -> None:
        self._on_message = on_message
        self._buffer = bytearray()
        self._message = bytearray()
        self._overflow = False
        self._compressed = False
        self._skip = 0
        self._inflater = zlib.decompressobj(-15) if deflate else None
        self._keep_context = keep_context
        self.broken = False

    def feed(self, data: bytes) -> None:
        """Take the next piece of the connection."""
        if self.broken:
            return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        try:
            while self._frame():
                pass
        except (zlib.error, ValueError):
            self.broken = True
        if self.broken:
            self._buffer.clear()
            self._message.clear()

    def _frame(self) -> bool:
        """Take one frame off the buffer; was there one?"""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        first, second = buffer[0], buffer[1]
        opcode, length, at = first & 15, second & 127, 2
        if length > 125:
            size = 2 if length == 126 else 8
            if len(buffer) < 2 + size:
                return False
            length = int.from_bytes(buffer[2 : 2 + size])
            at += size
        masked = second & 128
        if masked:
            at += 4
        if length > MAX_MESSAGE_BYTES:
            if opcode >= 8 or length >= 1 << 62:
                self.broken = True
                return False
            if len(buffer) < at:
                return False
            self._begin(first, opcode)
            self._overflow = True
            self._skip = max(0, at + length - len(buffer))
            del buffer[: at + length]
            self._finish(first)
            return True
        if len(buffer) < at + length:
            return False
        payload = bytes(buffer[at : at + length])
        if masked:
            payload = _unmask(payload, bytes(buffer[at - 4 : at]))
        del buffer[: at + length]
        if opcode >= 8:
            return True
        self._begin(first, opcode)
        if len(self._message) + len(payload) > MAX_MESSAGE_BYTES:
            self._overflow = True
        if not self._overflow:
            self._message += payload
        self._finish(first)
        return True

    def _begin(self, first: int, opcode: int) -> None:
        if opcode != _CONTINUATION:
            self._message.clear()
            self._overflow = False
            self._compressed = bool(first & 64)

    def _finish(self, first: int) -> None:
        if not first & 128:
            return
        data = bytes(self._message)
        self._message.clear()
        if self._overflow:
            self._overflow = False
            if self._compressed and self._keep_context:
                # The sliding window of what follows refers to what was skipped.
                self.broken = True
            return
        if self._compressed:
            if self._inflater is None:
                return
            data = self._inflate(data)
        self._on_message(data)

    def _inflate(self, data: bytes) -> bytes:
        inflater = self._inflater
        if inflater is None:
            return b""
        found = inflater.decompress(data + b"\x00\x00\xff\xff", MAX_MESSAGE_BYTES)
        if inflater.unconsumed_tail:
            self.broken = True
            return b""
        if not self._keep_context:
            self._inflater = zlib.decompressobj(-15)
        return found


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return (int.from_bytes(payload) ^ key).to_bytes(size)


def agreed_deflate(extensions: str) -> tuple[bool, bool, bool]:
    """What ``sec-websocket-extensions`` agreed on.

    Whether messages are deflated, and whether the client's and the server's
    contexts are kept from message to message.
    """
    found = re.search(r"permessage-deflate([^,]*)", extensions)
    if found is None:
        return False, True, True
    parameters = found[1]
    return (
        True,
        "client_no_context_takeover" not in parameters,
        "server_no_context_takeover" not in parameters,
    )


def encode_frame(payload: bytes, *, mask: bytes = b"", text: bool = True) -> bytes:
    """One whole message in one frame; masked, as clients must, where a mask is given."""
    head = bytes((0x80 | (_TEXT if text else _BINARY),))
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126:
        head += bytes((bit | size,))
    elif size < 65_536:
        head += bytes((bit | 126,)) + size.to_bytes(2)
    else:
        head += bytes((bit | 127,)) + size.to_bytes(8)
    return head + mask + (_unmask(payload, mask) if mask else payload)
