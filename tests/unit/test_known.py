"""A head that is known but for some values says what a parser would have made of it."""

from __future__ import annotations

from typing import Any

import httptools
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.known import known_head
from proxy.http.request import Head

NAMES = st.sampled_from(["Host", "X-A", "x-a", "X-B", "Authorization", "Connection", "TE"])
COLONS = st.sampled_from([": ", ":", ":  "])
VALUES = st.sampled_from(["a", "b c", "x: y", "keep-alive", "", " z ", "\xe9", "a,b"])
FIELDS = st.lists(st.tuples(NAMES, COLONS, VALUES), max_size=6)


class Fields:
    def __init__(self) -> None:
        self.raw: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() != b"content-length":
            self.raw.append((name, value))


def spelled(fields: list[tuple[str, str, str]], body: bytes, at: int) -> bytes:
    lines = ["".join(field) for field in fields]
    lines.insert(min(at, len(lines)), f"Content-Length: {len(body)}")
    return "\r\n".join(["POST /v1/x HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


def parsed(data: bytes) -> Head | None:
    fields = Fields()
    parser: Any = httptools.HttpRequestParser(fields)
    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        return None
    return Head("POST", "/v1/x", 1, fields.raw)


@given(FIELDS, st.lists(VALUES, min_size=6, max_size=6), st.integers(0, 6), st.binary(max_size=20))
def test_any_other_values(
    fields: list[tuple[str, str, str]], values: list[str], at: int, body: bytes
) -> None:
    data = spelled(fields, b"12345", at)
    head = parsed(data)
    known = known_head(data, head) if head is not None else None
    if known is None:
        return
    others = [(name, colon, value) for (name, colon, _), value in zip(fields, values, strict=False)]
    again = spelled(others, body, at)
    varied = known.varied(again, 65_536)
    if varied is None:
        return
    fresh = parsed(again)
    assert fresh is not None and varied[1] == body
    assert varied[0].head.headers == fresh.headers
    assert varied[0].head.passed == fresh.passed
    assert varied[0].body_of(again) == body


def test_the_usual_ones_are_known() -> None:
    fields = [("Host", ": ", "p"), ("Authorization", ": ", "Bearer a")]
    data = spelled(fields, b"{}", 1)
    head = parsed(data)
    assert head is not None
    known = known_head(data, head)
    assert known is not None
    other = spelled([fields[0], ("Authorization", ": ", "Bearer bb")], b"{...}", 1)
    varied = known.varied(other, 65_536)
    assert varied is not None and varied[0].head.headers["authorization"] == "Bearer bb"
    assert known.varied(spelled([("Host", ": ", "q"), fields[1]], b"{}", 1), 65_536) is None
