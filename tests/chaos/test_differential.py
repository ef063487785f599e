"""What we forward, nginx, haproxy and a strict reader all read alike: nothing can be smuggled."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chaos.parties import SENTINEL, Parties, Read, Recorder
from tests.chaos.test_http_in import REFUSED

HEAD = b"POST /v1/files HTTP/1.1\r\nHost: p\r\n"
GET = b"GET /v1/smuggled HTTP/1.1\r\nHost: p\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

CORPUS: dict[str, bytes] = {
    "plain": b"GET /v1/models HTTP/1.1\r\nHost: p\r\n\r\n",
    "length": HEAD + b"Content-Length: 5\r\n\r\nhello",
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunks in pieces": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
    "chunk extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
    "trailers": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    "trailing length": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 44\r\n\r\n",
    "pipelined": GET * 3,
    "same length twice": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "lengths in a list": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "lengths that differ": HEAD + b"Content-Length: 5, 6\r\n\r\nhello",
    "length in hex": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "length with a space": HEAD + b"Content-Length: 5 \r\n\r\nhello",
    "length with an underscore": HEAD + b"Content-Length: 4_4\r\n\r\n" + GET,
    "length too long for 64 bits": HEAD + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n" + GET,
    "Content_Length": HEAD + b"Content_Length: 42\r\n\r\n" + GET,
    "TE upper case": HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNKS,
    "TE with a tab": HEAD + b"Transfer-Encoding:\tchunked\r\n\r\n" + CHUNKS,
    "TE with VT": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "TE quoted": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS,
    "TE identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "TE twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + CHUNKS,
    "TE chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    "TE then identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "TE empty": HEAD + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
    "Transfer_Encoding": HEAD + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    "TE after a bare CR": HEAD
    + b"X: a\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    "TE after a bare LF": HEAD
    + b"X: a\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    "chunk size with 0x": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size with +": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk size with a space": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    "chunk ends with LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "chunk data ends with LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    "chunk data too long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    "last chunk 00": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00\r\n\r\n",
    "GET with a body": b"GET /v1/models HTTP/1.1\r\nHost: p\r\nContent-Length: 42\r\n\r\n" + GET,
    "hop by hop": HEAD + b"Connection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\n"
    b"Proxy-Connection: x\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "Connection lists the length": HEAD
    + b"Connection: content-length\r\nContent-Length: 5\r\n\r\nhello",
    "Connection lists the host": HEAD + b"Connection: host\r\nContent-Length: 5\r\n\r\nhello",
    "Connection lists TE": HEAD
    + b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKS,
    "absolute form": b"GET http://evil.test/v1/models HTTP/1.1\r\nHost: p\r\n\r\n",
    "space in the target": b"GET /v1/a b HTTP/1.1\r\nHost: p\r\n\r\n",
    "tab in the line": b"GET\t/v1/models\tHTTP/1.1\r\nHost: p\r\n\r\n",
    "two spaces": b"GET  /v1/models HTTP/1.1\r\nHost: p\r\n\r\n",
    "HTTP/1.2": b"GET /v1/models HTTP/1.2\r\nHost: p\r\n\r\n",
    "lower-case version": b"GET /v1/models http/1.1\r\nHost: p\r\n\r\n",
    "HTTP/0.9": b"GET /v1/models\r\n",
    "blank line first": b"\r\nGET /v1/models HTTP/1.1\r\nHost: p\r\n\r\n",
    "high bytes in a field": b"GET /v1/models HTTP/1.1\r\nHost: p\r\nX-A: \xff\xfe\r\n\r\n",
    "high bytes in a name": b"GET /v1/models HTTP/1.1\r\nHost: p\r\nX-\xe9: a\r\n\r\n",
    "NUL in the target": b"GET /v1/\x00 HTTP/1.1\r\nHost: p\r\n\r\n",
    "fragment": b"GET /v1/models#x HTTP/1.1\r\nHost: p\r\n\r\n",
    "upgrade with a body": HEAD
    + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 42\r\n\r\n"
    + GET,
    "expect": HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "odd expect": HEAD + b"Expect: 200-maybe\r\nContent-Length: 5\r\n\r\nhello",
}
CORPUS |= {name: raw for name, (raw, _) in REFUSED.items()}

HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"proxy-connection", b"upgrade", b"x-hop"}
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

pytestmark = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("haproxy")),
    reason="nginx and haproxy are not installed (tests/setup.sh chaos)",
)


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with Parties(tmp_path_factory.mktemp("parties")) as parties:
        yield parties


def alike(ours: list[Read], theirs: list[Read]) -> bool:
    """Is one's list what is left of the other's, where one refused more?"""
    return within(ours, theirs) or within(theirs, ours)


def within(few: list[Read], many: list[Read]) -> bool:
    rest = iter(many)
    return all(one in rest for one in few)


def check(parties: Parties, raw: bytes) -> None:
    ours = parties.put("tokenweir", raw)
    # A request refused half-way is broken off; nothing else may look wrong.
    faults = [fault for fault in ours.faults if "closed connection" not in fault]
    assert faults == [], f"what we forward is not HTTP: {faults}"
    sound(ours)
    for party in ("nginx", "haproxy"):
        theirs = parties.put(party, raw)
        assert alike(ours.requests, theirs.requests), (party, ours.requests, theirs.requests)
    for sent in map(bytes, ours.raw):
        read = [r for r in ours.requests if r.path in sent] if sent else []
        if not read:
            continue
        for party in ("nginx", "haproxy"):
            theirs = parties.put(party, sent.replace(SENTINEL, b""))
            again = [r for r in theirs.requests if r.path != b"/v1/sentinel"]
            wanted = [r for r in ours.requests if r.path != b"/v1/sentinel"]
            assert again in (wanted, wanted[: len(again)]), (party, wanted, again)


def sound(ours: Recorder) -> None:
    """Nothing hop-by-hop, and no field that could be read as two."""
    for name, value in ours.fields:
        assert TOKEN.fullmatch(name), name
        assert not set(value) & {0, 10, 13}, (name, value)
        listed = name.lower() in HOP_BY_HOP
        assert not listed or (name.lower(), value) == (b"connection", b"keep-alive"), (name, value)


@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus_is_read_alike(parties: Parties, name: str) -> None:
    check(parties, CORPUS[name])


LINES = st.sampled_from(
    [
        b"POST /v1/files HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.1\r\n",
        b"PUT //x HTTP/1.1\r\n",
        b"POST /v1/files HTTP/1.0\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
    ]
)
FIELDS = st.lists(
    st.sampled_from(
        [
            b"Content-Length: 5",
            b"Content-Length: 42",
            b"Content-Length: 05",
            b"Content-Length: 5,5",
            b"content-length : 5",
            b"Content-Length:5\t",
            b"Transfer-Encoding: chunked",
            b"transfer-encoding:chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked\x00",
            b"Transfer-Encoding: x\r\n chunked",
            b"Connection: close",
            b"Connection: content-length",
            b"Expect: 100-continue",
            b"Host: q",
            b"X-A: 1",
            b"X-A: 1\n",
            b": 1",
            b"X-A",
            b"X-A:\r1",
        ]
    ),
    max_size=3,
)
BODIES = st.sampled_from([b"", b"hello", CHUNKS, GET, b"0\r\n\r\n" + GET, b"5\r\nhello\r\n"])
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request made of parts that parsers have disagreed about."""
    end = draw(ENDS)
    fields = b"".join(field + end for field in draw(FIELDS))
    raw = draw(LINES) + b"Host: p" + end + fields + b"\r\n" + draw(BODIES)
    where = draw(st.none() | st.integers(0, len(raw) - 1))
    if where is not None and draw(st.booleans()):
        raw = raw[:where] + draw(st.binary(min_size=1, max_size=1)) + raw[where + 1 :]
    return raw


EXPLORE = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=25, **EXPLORE)
@given(raw=requests())
def test_generated_requests_are_read_alike(parties: Parties, raw: bytes) -> None:
    check(parties, raw)


@pytest.mark.slow
@settings(max_examples=600, **EXPLORE)
@given(raw=requests())
def test_many_generated_requests_are_read_alike(parties: Parties, raw: bytes) -> None:
    check(parties, raw)
