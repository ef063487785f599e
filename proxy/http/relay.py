"""Chunked answers that pass as they came, and are read a little later.

Owns: which bytes of a chunked stream may go out before they are parsed. Must never:
let the end of an answer pass unread: a call is counted before its client sees the end.

A stream of small events costs most where each one is taken out of its chunk, put into
another and sent. Between two chunks nothing is lost by sending the upstream's own
framing, and what was sent is parsed in larger pieces: at the latest after a quarter of
a second, so that limits on running streams hold, or when the end may be near.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

#: The size line of a last chunk (RFC 9112 section 7.1), whole or begun.
_LAST_CHUNK = re.compile(rb"\n0+[ \t]*(?:[;\r]|$)")
_MOST_BYTES = 65_536
_MOST_SECONDS = 0.25
_TAIL_BYTES = 32


class RawTaker(Protocol):
    """Who receives an answer in the upstream's own framing, and its content later."""

    def raw_out(self) -> Callable[[bytes], None]: ...
    def on_answer_read(self, body: bytes, raw: bytes, done: bool) -> None: ...


class Relay:
    """What has passed of one answer and was not parsed yet.

    It begins between two chunks. ``near_end``: the size line of a last chunk may have
    begun, so that nothing passes unread until text shows that it had not.
    """

    __slots__ = ("_bytes", "_held", "_matched", "_tail", "_until", "near_end", "send", "taker")

    def __init__(self, taker: RawTaker, now: float) -> None:
        self.taker = taker
        self.send = taker.raw_out()
        self.near_end = False
        self._matched = False
        self._held: list[bytes] = []
        self._bytes = 0
        self._tail = b"\n"
        self._until = now + _MOST_SECONDS

    def may_pass(self, data: bytes, now: float) -> bool:
        """Keep a piece; false where all that is kept must be parsed before it goes out."""
        window = self._tail + data
        self._tail = window[-_TAIL_BYTES:]
        self._held.append(data)
        self._bytes += len(data)
        self._matched = _LAST_CHUNK.search(window) is not None
        if self._matched:
            self.near_end = True
        return not self.near_end and now <= self._until and self._bytes <= _MOST_BYTES

    def parsed(self, body: bytes) -> None:
        """What was taken held this text: then a size line before it was no last one."""
        if body and not self._matched:
            self.near_end = False

    def take(self, now: float) -> bytes:
        """All that was kept, to be parsed now."""
        data = b"".join(self._held)
        self._held.clear()
        self._bytes = 0
        self._until = now + _MOST_SECONDS
        return data
