"""Header fields: what is ours, what is passed on, what ends at each hop.

Owns: the rules of RFC 9110 section 7.6.1 and the raw form of a head. Must
never: change the order, the case or the bytes of a field that is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

#: Fields as they came: (name, value), in order, with their case.
RawHeaders = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
#: What a value may hold (RFC 9110 section 5.5), without space at its ends.
_VALUE = re.compile(rb"[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?")
_NEVER_BY_CONNECTION = frozenset(("content-length", "host", "content-type", "authorization"))
_PLAIN_CONNECTION = frozenset(("", "keep-alive", "close"))
_MOST_NAMES = 4096
_NAMES: dict[bytes, tuple[str, bool]] = {}


Scanned = tuple[dict[str, str], list[str], list[bytes]]
"""A head's fields, read once. Not to be changed: the next call may have the same.

Lower-case names and last values as Latin-1 text, and of the fields that go on to the next
hop the lower-case names and the lines (without line ends), in order.
"""


def scan(raw: RawHeaders) -> Scanned:
    """Read a head's fields in one pass."""
    found: dict[str, str] = {}
    names: list[str] = []
    lines: list[bytes] = []
    known_names = _NAMES
    for name, value in raw:
        known = known_names.get(name)
        if known is None:
            lower = name.decode("latin-1").lower()
            known = (lower, lower in HOP_BY_HOP)
            if len(known_names) < _MOST_NAMES:
                known_names[name] = known
        lower, hop = known
        if not hop:
            found[lower] = value.decode("latin-1")
            names.append(lower)
            lines.append(name + b": " + value)
        elif lower in found:
            # These are lists: two fields are one (RFC 9110 section 5.3).
            found[lower] += ", " + value.decode("latin-1")
        else:
            found[lower] = value.decode("latin-1")
    if found.get("connection", "") not in _PLAIN_CONNECTION:
        listed = listed_by_connection(raw)
        if listed:
            return found, *without(names, lines, listed)
    return found, names, lines


def without(
    names: list[str], lines: list[bytes], dropped: Container[str]
) -> tuple[list[str], list[bytes]]:
    """The names and lines of a head's fields without some."""
    kept = [at for at, name in enumerate(names) if name not in dropped]
    return [names[at] for at in kept], [lines[at] for at in kept]


def changed(
    lines: Sequence[bytes], old: Sequence[bytes], starts: Sequence[bytes | None]
) -> list[int] | None:
    """Which lines of a head differ from those of another; ``None`` where one must not.

    ``starts``: what the lines that may vary begin with, up to their values.
    """
    if len(lines) != len(old):
        return None
    found = []
    for i, line in enumerate(lines):
        if line != old[i]:
            start = starts[i]
            if start is None or not line.startswith(start):
                return None
            if _VALUE.fullmatch(line, len(start)) is None:
                return None
            found.append(i)
    return found


def listed_by_connection(raw: RawHeaders) -> frozenset[str]:
    """Names that the Connection fields list, in lower case."""
    found: set[str] = set()
    for name, value in raw:
        if name.lower() == b"connection":
            found.update(tokens(value.decode("latin-1")))
    return frozenset(found) - _NEVER_BY_CONNECTION


def tokens(value: str) -> list[str]:
    """The lower-case elements of a comma-separated field."""
    return [token.strip().lower() for token in value.split(",") if token.strip()]
