"""Answers whose head was met before: read again without a parser.

Owns: when bytes are one whole answer whose head was parsed before, or that head with
other values in fields that frame nothing. Must never: take for known what a parser could
read otherwise: in doubt it is not known.

A provider's answers to calls of one kind have the same fields in the same order; what
changes is the date, the request's id, what is left of a limit and the body's length.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.http.framing import BODILESS
from proxy.http.headers import HOP_BY_HOP, RawHeaders, Scanned, changed

_LENGTH = "content-length"
#: Fields whose values decide about framing, the connection or how the body is read.
_FIXED = HOP_BY_HOP | {"content-encoding", "content-type"}
_MOST_HEAD_BYTES = 65_536
#: After so many answers in a row that were not known, an origin's are not looked at any more.
_MOST_MISSES = 64


class _Place(NamedTuple):
    """A field whose value may vary: its name, and its place among the lines that go on."""

    name: str
    passed: int


class KnownAnswer:
    """A parsed answer's head, with its bytes."""

    __slots__ = (
        "_length_at",
        "_length_start",
        "_lines",
        "_places",
        "_starts",
        "head_bytes",
        "headers",
        "reason",
        "status",
        "text",
        "whole_bytes",
    )

    def __init__(
        self, status: int, reason: bytes, raw: RawHeaders, headers: Scanned, length_at: int
    ) -> None:
        self.status, self.reason, self.headers = status, reason, headers
        names = [name.decode("latin-1").lower() for name, _ in raw]
        passed = {line: at for at, line in enumerate(headers[2])}
        self._lines = [b"HTTP/1.1 %d %b" % (status, reason), *(n + b": " + v for n, v in raw)]
        self._length_at = length_at + 1
        self._length_start = raw[length_at][0] + b": "
        self._starts: list[bytes | None] = [None]
        self._places: list[_Place | None] = [None]
        for (name, _), lower, line in zip(raw, names, self._lines[1:], strict=True):
            varies = lower not in _FIXED and names.count(lower) == 1 and line in passed
            self._starts.append(name + b": " if varies else None)
            self._places.append(_Place(lower, passed[line]) if varies else None)
        self._measure()

    def _measure(self) -> None:
        self.text = b"\r\n".join(self._lines) + b"\r\n\r\n"
        self.head_bytes = len(self.text)
        self.whole_bytes = self.head_bytes + int(self.headers[0][_LENGTH])

    def again(self, data: bytes) -> tuple[KnownAnswer, bytes] | None:
        """This head, perhaps with other values, and the body, where ``data`` is just that."""
        end = data.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES)
        if end < 0:
            return None
        lines = data[:end].split(b"\r\n")
        varied = changed(lines, self._lines, self._starts)
        if varied is None:
            return None
        body = data[end + 4 :]
        if lines[self._length_at] != self._length_start + b"%d" % len(body):
            return None
        return self._with(lines, varied), body

    def _with(self, lines: list[bytes], varied: list[int]) -> KnownAnswer:
        new = object.__new__(KnownAnswer)
        new.status, new.reason = self.status, self.reason
        new._length_at, new._length_start = self._length_at, self._length_start
        new._starts, new._places = self._starts, self._places
        new._lines = lines
        found, names, passed = self.headers
        found, passed = found.copy(), passed.copy()
        for at in varied:
            place = self._places[at]
            if place is not None:
                line = lines[at]
                found[place.name] = line[len(place.name) + 2 :].decode("latin-1")
                passed[place.passed] = line
        new.headers = found, names, passed
        new._measure()
        return new


class KnownAnswers:
    """What is known of one origin's answers: the last one that came whole."""

    __slots__ = ("_known", "_misses")

    def __init__(self) -> None:
        self._known: KnownAnswer | None = None
        self._misses = 0

    def read(self, data: bytes) -> tuple[KnownAnswer, bytes] | None:
        """A whole answer to anything but HEAD, and its body, where its head is known."""
        known = self._known
        if known is None:
            return None
        if len(data) == known.whole_bytes and data.startswith(known.text):
            self._misses = 0
            return known, data[known.head_bytes :]
        found = known.again(data)
        if found is not None:
            self._known = found[0]
            self._misses = 0
        return found

    def learn(
        self, data: bytes, status: int, reason: bytes, raw: RawHeaders, headers: Scanned
    ) -> None:
        """``data`` was parsed as one whole answer that leaves its connection open."""
        if self._misses > _MOST_MISSES:
            self._known = None
            return
        self._misses += 1
        lengths = [at for at, (name, _) in enumerate(raw) if name.lower() == _LENGTH.encode()]
        if len(lengths) != 1 or "transfer-encoding" in headers[0] or status in BODILESS:
            return
        known = KnownAnswer(status, reason, raw, headers, lengths[0])
        # Only if it reads as it was parsed: no folded lines, odd spaces or bare line ends.
        if known.again(data) is not None:
            self._known = known
