"""Header fields: what is ours, what is passed on, what ends at each hop.

Owns: the rules of RFC 9110 section 7.6.1 and the raw form of a head. Must
never: change the order, the case or the bytes of a field that is passed on.
"""

from __future__ import annotations

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
_NEVER_BY_CONNECTION = frozenset(("content-length", "host", "content-type", "authorization"))
_PLAIN_CONNECTION = frozenset(("", "keep-alive", "close"))
_MOST_NAMES = 4096
_NAMES: dict[bytes, tuple[str, bool]] = {}


Scanned = tuple[dict[str, str], list[tuple[str, bytes]]]
"""A head's fields, read once.

Lower-case names and last values as Latin-1 text, and the lines (without line ends) that
go on to the next hop, by lower-case name.
"""


def scan(raw: RawHeaders) -> Scanned:
    """Read a head's fields in one pass."""
    found: dict[str, str] = {}
    passed = []
    names = _NAMES
    for name, value in raw:
        known = names.get(name)
        if known is None:
            lower = name.decode("latin-1").lower()
            known = (lower, lower in HOP_BY_HOP)
            if len(names) < _MOST_NAMES:
                names[name] = known
        lower, hop = known
        if not hop:
            found[lower] = value.decode("latin-1")
            passed.append((lower, name + b": " + value))
        elif lower in found:
            # These are lists: two fields are one (RFC 9110 section 5.3).
            found[lower] += ", " + value.decode("latin-1")
        else:
            found[lower] = value.decode("latin-1")
    if found.get("connection", "") not in _PLAIN_CONNECTION:
        listed = listed_by_connection(raw)
        if listed:
            passed = [line for line in passed if line[0] not in listed]
    return found, passed


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
