"""Header fields: what is ours, what is passed on, what ends at each hop.

Owns: the rules of RFC 9110 section 7.6.1 and the raw form of a head. Must
never: change the order, the case or the bytes of a field that is passed on.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Fields as they came: (name, value), in order, with their case.
RawHeaders = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_NEVER_BY_CONNECTION = frozenset((b"content-length", b"host", b"content-type", b"authorization"))
_NAMES: dict[bytes, str] = {}


def lower_map(raw: RawHeaders) -> dict[str, str]:
    """Names in lower case to their last value, as Latin-1 text."""
    found = {}
    names = _NAMES
    for name, value in raw:
        known = names.get(name)
        if known is None:
            known = name.decode("latin-1").lower()
            if len(names) < 4096:
                names[name] = known
        found[known] = value.decode("latin-1")
    return found


def listed_by_connection(raw: RawHeaders) -> frozenset[bytes]:
    """Names that the Connection field lists, in lower case."""
    found = set()
    for name, value in raw:
        if name.lower() == b"connection":
            for token in value.split(b","):
                found.add(token.strip().lower())
    return frozenset(found) - _NEVER_BY_CONNECTION


def end_to_end(raw: RawHeaders, *, drop: Iterable[bytes] = ()) -> RawHeaders:
    """The fields that go on to the next hop."""
    listed = listed_by_connection(raw)
    dropped = HOP_BY_HOP.union(listed, drop) if listed or drop else HOP_BY_HOP
    return [(name, value) for name, value in raw if name.lower() not in dropped]


def encode_head(first_line: bytes, raw: RawHeaders) -> bytes:
    """A head ready to be written."""
    lines = [first_line]
    for name, value in raw:
        lines.append(name + b": " + value)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def tokens(value: str) -> list[str]:
    """The lower-case elements of a comma-separated field."""
    return [token.strip().lower() for token in value.split(",") if token.strip()]
