"""Heads that were met before: read again without a parser.

Owns: when bytes are the head of a call that was parsed before, or that head with other
values in fields that frame and route nothing. Must never: take for known what a parser
could read otherwise: in doubt it is not known.

Clients send the same head again and again, but for the body's length; behind a balancer
the credential, the trace and the client's address change from call to call as well.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.http.headers import HOP_BY_HOP, changed
from proxy.http.identity import names_nobody
from proxy.http.request import Head

_LENGTH = "content-length"
#: Fields whose values decide about framing, the connection or the route.
_FIXED = HOP_BY_HOP | {"expect", "host", "user-agent"}
_MOST_DIGITS = 10
_new = object.__new__


class _Place(NamedTuple):
    """A field of a known head, where :class:`Head` has it, and whether it says who calls."""

    name: str
    passed: int
    names_caller: bool


class KnownHead:
    """A head that was parsed, with its bytes."""

    __slots__ = (
        "_after",
        "_before",
        "_length_at",
        "_length_start",
        "_lines",
        "_places",
        "_starts",
        "head",
    )

    def __init__(self, text: bytes, head: Head, length_at: int, length: slice) -> None:
        self.head = head
        self._before, self._after = text[: length.start], text[length.stop :] + b"\r\n\r\n"
        self._lines = text.split(b"\r\n")
        self._length_at = length_at
        self._length_start = _start(self._lines[length_at])
        self._starts: list[bytes | None] | None = None
        self._places: list[_Place | None] = []

    def body_of(self, data: bytes) -> bytes | None:
        """The body, where ``data`` is this very head again and one whole body."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r\n", start, start + _MOST_DIGITS)
        digits = data[start:end]
        if end < 0 or not data.startswith(after, end) or not digits.isdigit():
            return None
        body = data[end + len(after) :]
        return body if len(body) == int(digits) else None

    def varied(self, data: bytes, most_bytes: int) -> tuple[KnownHead, bytes] | None:
        """This head with other values and its body, where ``data`` is that and no more."""
        end = data.find(b"\r\n\r\n")
        if not 0 < end <= most_bytes:
            return None
        starts = self._starts
        if starts is None:
            starts = self._read_fields()
        lines = data[:end].split(b"\r\n")
        fields = changed(lines, self._lines, starts)
        if fields is None:
            return None
        at, start = self._length_at, self._length_start
        body = data[end + 4 :]
        digits = b"%d" % len(body)
        if lines[at] != start + digits:
            return None
        values: list[tuple[int, str, bytes]] = []
        same_caller = True
        for i in fields:
            place = self._places[i]
            if place is not None:
                name, passed, names_caller = place
                values.append((passed, name, lines[i]))
                same_caller = same_caller and not names_caller
        known = _new(KnownHead)
        known.head = Head.varied(self.head, values, same_caller=same_caller)
        # The name of the length stands at the beginning of one line alone: it was parsed.
        begin = data.index(b"\r\n" + start) + 2 + len(start)
        known._before, known._after = data[:begin], data[begin + len(digits) : end + 4]
        known._lines, known._length_at, known._length_start = lines, at, start
        known._starts, known._places = starts, self._places
        return known, body

    def _read_fields(self) -> list[bytes | None]:
        """What the lines that may vary begin with; ``None`` for all else but the length."""
        starts: list[bytes | None] = [None]
        self._places = [None]
        names = [line.partition(b":")[0].decode("latin-1").lower() for line in self._lines]
        passed = {line: n for n, (_, line) in enumerate(self.head.passed)}
        for i, line in enumerate(self._lines[1:], 1):
            start, name = _start(line), names[i]
            usable = start.endswith(b": ") and name not in _FIXED and names.count(name) == 1
            place = None
            if usable and name != _LENGTH and line in passed:
                names_caller = name == "content-type" or not names_nobody(name)
                place = _Place(name, passed[line], names_caller)
            self._places.append(place)
            starts.append(start if place is not None or i == self._length_at else None)
        self._starts = starts
        return starts


def _start(line: bytes) -> bytes:
    """A field's bytes up to its value."""
    name, colon, _ = line.partition(b": ")
    return name + colon


def known_head(data: bytes, head: Head) -> KnownHead | None:
    """A parsed head with its bytes, which ``data`` begins with, where it may be met again.

    Not one that ends the connection, switches it or has no counted body.
    """
    headers = head.headers
    if not head.minor_version or "upgrade" in headers or "expect" in headers:
        return None
    if headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    text = data[: data.find(b"\r\n\r\n")]
    position = 0
    for at, line in enumerate(text.split(b"\r\n")):
        name, _, value = line.partition(b":")
        if at and name.lower() == _LENGTH.encode():
            begin = position + len(name) + 1 + len(value) - len(value.lstrip(b" "))
            return KnownHead(text, head, at, slice(begin, position + len(line)))
        position += len(line) + 2
    return None
