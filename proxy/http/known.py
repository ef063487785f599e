"""Heads that were met before: read again without a parser.

Owns: when bytes are the head of a call that was parsed before, or that head with other
values in fields that frame and route nothing. Must never: take for known what a parser
could read otherwise: in doubt it is not known.

Clients send the same head again and again, but for the body's length; behind a balancer
the credential, the trace and the client's address change from call to call as well.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.http.headers import HOP_BY_HOP
from proxy.http.request import Head

_LENGTH = "content-length"
#: Fields whose values decide about framing, the connection or the route.
_FIXED = HOP_BY_HOP | {"expect", "host", "user-agent"}
#: What a value may hold (RFC 9110 section 5.5), without space at its ends.
_VALUE = re.compile(rb"[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?")
_MOST_DIGITS = 10


class _Line(NamedTuple):
    """A field of a known head, as bytes up to its value, and where :class:`Head` has it."""

    start: bytes
    name: str
    raw: int
    passed: int


class KnownHead:
    """A head that was parsed, with its bytes."""

    __slots__ = ("_after", "_before", "_fields", "_length_at", "_lines", "head")

    def __init__(self, text: bytes, head: Head, length_at: int, length: slice) -> None:
        self.head = head
        self._before, self._after = text[: length.start], text[length.stop :] + b"\r\n\r\n"
        self._lines = text.split(b"\r\n")
        self._length_at = length_at
        self._fields: list[_Line | None] | None = None

    def body_of(self, data: bytes) -> bytes | None:
        """The body, where ``data`` is this very head again and one whole body."""
        before, after = self._before, self._after
        start = len(before)
        if data[:start] != before:
            return None
        end = data.find(b"\r\n", start, start + _MOST_DIGITS)
        digits, begin = data[start:end], end + len(after)
        if data[end:begin] != after or not digits.isdigit():
            return None
        body = data[begin:]
        return body if len(body) == int(digits) else None

    def varied(self, data: bytes, most_bytes: int) -> tuple[KnownHead, bytes] | None:
        """This head with other values and its body, where ``data`` is that and no more."""
        end = data.find(b"\r\n\r\n")
        if not 0 < end <= most_bytes:
            return None
        lines, old = data[:end].split(b"\r\n"), self._lines
        if len(lines) != len(old):
            return None
        at = self._length_at
        start, digits = _split(lines[at])
        body = data[end + 4 :]
        if start != _split(old[at])[0] or digits != b"%d" % len(body):
            return None
        if self._fields is None:
            self._fields = self._read_fields()
        fields = self._fields
        values: list[tuple[_Line, bytes]] = []
        for i, line in enumerate(lines):
            if line == old[i] or i == at:
                continue
            field = fields[i]
            if field is None or not line.startswith(field.start):
                return None
            if _VALUE.fullmatch(line, len(field.start)) is None:
                return None
            values.append((field, line))
        head = Head.varied(self.head, [(f.raw, f.passed, f.name, line) for f, line in values])
        before = len(b"\r\n".join(lines[:at])) + 2 + len(start)
        known = KnownHead(data[:end], head, at, slice(before, before + len(digits)))
        known._fields = fields
        return known, body

    def _read_fields(self) -> list[_Line | None]:
        """The fields whose values may vary, by line; ``None`` for all else."""
        found: list[_Line | None] = [None]
        names = [line.partition(b":")[0].decode("latin-1").lower() for line in self._lines]
        passed = {line: n for n, (_, line) in enumerate(self.head.passed)}
        for i, line in enumerate(self._lines[1:], 1):
            start, name = _split(line)[0], names[i]
            usable = start.endswith(b": ") and name not in _FIXED and names.count(name) == 1
            if not usable or name == _LENGTH or line not in passed:
                found.append(None)
                continue
            raw = i - 1 - (i > self._length_at)
            found.append(_Line(start, name, raw, passed[line]))
        return found


def _split(line: bytes) -> tuple[bytes, bytes]:
    """A field's bytes up to its value, and its value."""
    name, colon, value = line.partition(b": ")
    return name + colon, value


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
