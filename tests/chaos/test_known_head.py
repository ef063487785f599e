"""A connection that has seen a head before must read the next bytes as a fresh one does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chaos.lab import PROTECT
from tests.conftest import Recorder
from tests.rig import Proxy, Raw, Received, Upstream, running_proxy

BODY = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}'
LONGER = BODY.replace(b"hi", b"hello there, this one is much longer")
FIELDS = (
    b"Host: p\r\nAuthorization: Bearer sk-a\r\nX-Request-Id: first\r\n"
    b"Content-Type: application/json\r\nX-Tokenweir-Agent: one\r\nX-Twice: a\r\nX-Twice: b\r\n"
)
START = b"POST /v1/chat/completions HTTP/1.1\r\n" + FIELDS
LAST = b"GET /v1/models HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"


def call(body: bytes, length: bytes | None = None, *, fields: bytes = b"") -> bytes:
    length = b"%d" % len(body) if length is None else length
    return START + b"Content-Length: " + length + b"\r\n" + fields + b"\r\n" + body


KNOWN = call(BODY)
VARIANTS = {
    "the same": KNOWN,
    "another length": call(LONGER),
    "no body": call(b""),
    "two in one piece": call(LONGER) + call(BODY),
    "body too short": call(BODY, b"%d" % (len(BODY) + len(LAST) + 5)),
    "body too long": call(BODY + b"GET /v1/evil HTTP/1.1\r\nHost: p\r\n\r\n", b"%d" % len(BODY)),
    "leading zeros": call(BODY, b"000%d" % len(BODY)),
    "plus": call(BODY, b"+%d" % len(BODY)),
    "minus": call(BODY, b"-%d" % len(BODY)),
    "list of lengths": call(BODY, b"%d, %d" % (len(BODY), len(BODY))),
    "space after": call(BODY, b"%d " % len(BODY)),
    "hexadecimal": call(BODY, b"0x%x" % len(BODY)),
    "underscore": call(BODY, b"7_3"),
    "no digits": call(BODY, b""),
    "huge": call(BODY, b"9" * 30),
    "a second length": call(BODY, fields=b"Content-Length: 1\r\n"),
    "chunked too": call(BODY, fields=b"Transfer-Encoding: chunked\r\n"),
    "another key": KNOWN.replace(b"sk-a", b"sk-b"),
    "another trace": KNOWN.replace(b"first", b"second-and-longer"),
    "another agent": KNOWN.replace(b"Agent: one", b"Agent: two"),
    "an agent of control characters": KNOWN.replace(b"Agent: one", b"Agent: t\x01o"),
    "an agent that is too long": KNOWN.replace(b"Agent: one", b"Agent: " + b"o" * 200),
    "several values": KNOWN.replace(b"first", b"x").replace(b"sk-a", b"sk-c"),
    "an empty value": KNOWN.replace(b"first", b""),
    "a space at the end": KNOWN.replace(b"first", b"first "),
    "two spaces before": KNOWN.replace(b"first", b" first"),
    "a tab in it": KNOWN.replace(b"first", b"fi\trst"),
    "a delete in it": KNOWN.replace(b"first", b"fi\x7frst"),
    "a return in it": KNOWN.replace(b"first", b"fi\rrst"),
    "a line feed in it": KNOWN.replace(b"first", b"fi\nrst: x"),
    "a null in it": KNOWN.replace(b"first", b"fi\0rst"),
    "latin-1 in it": KNOWN.replace(b"first", b"f\xefrst"),
    "a second agent without a space": call(
        BODY, fields=b"X-Tokenweir-Agent:" + b"o" * 200 + b": x\r\n"
    ),
    "the first of two": KNOWN.replace(b"X-Twice: a", b"X-Twice: c"),
    "another name": KNOWN.replace(b"X-Request-Id", b"X-Request-Ie"),
    "a length by name": KNOWN.replace(b"X-Request-Id: first", b"Content-Length: 3"),
    "chunks by name": KNOWN.replace(b"X-Request-Id: first", b"Transfer-Encoding: chunked"),
    "another host": KNOWN.replace(b"Host: p", b"Host: q/x"),
    "another type": KNOWN.replace(b"application/json", b"text/plain"),
    "a head that is too large": KNOWN.replace(b"first", b"f" * 70_000),
    "another path": KNOWN.replace(b"/v1/chat", b"/@other/v1/chat"),
    "an agent more": call(BODY, fields=b"x-tokenweir-agent: other\r\n"),
    "older": KNOWN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "line feed in the length": call(BODY, b"%d\nX: y" % len(BODY)),
    "folded": call(BODY, b"%d\r\n 1" % len(BODY)),
    "an empty line first": b"\r\n" + KNOWN,
}


@pytest.fixture(scope="module")
def proxy(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """One that takes no call twice for a loop."""
    settings = {
        "upstreams": {"openai": {"base_url": upstream.url}},
        "server": {"header_timeout_seconds": 1.0, "body_timeout_seconds": 1.0},
        "protect": PROTECT,
    }
    with running_proxy(tmp_path_factory.mktemp("proxy"), settings) as proxy:
        yield proxy


Seen = tuple[str, list[tuple[str, str]], bytes]


def seen(received: list[Received]) -> list[Seen]:
    """All that the upstream got."""
    return [(r.line, r.headers, r.body) for r in received]


def outcome(
    proxy: Proxy, recorder: Recorder, before: bytes, pieces: list[bytes]
) -> tuple[list[bytes], list[Seen]]:
    """The statuses of all that follows ``before`` on a connection, and what went upstream."""
    with Raw(proxy.port) as other:
        other.send(KNOWN).until(b"Hello.")  # so that an upstream connection lies ready
    with Raw(proxy.port) as raw:
        if before:
            raw.send(before).until(b"Hello.")
        count = len(recorder.requests)
        for piece in pieces:
            raw.send(piece)
        statuses = re.findall(rb"HTTP/1\.1 (\d{3})", raw.all())
    return statuses, seen(recorder.requests[count:])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_known_head_is_read_as_a_new_one(proxy: Proxy, recorder: Recorder, name: str) -> None:
    pieces = [VARIANTS[name], LAST]
    assert outcome(proxy, recorder, KNOWN, pieces) == outcome(proxy, recorder, b"", pieces)


def test_the_rest_of_a_head_is_not_a_new_request(proxy: Proxy, recorder: Recorder) -> None:
    """A known head that arrives in the middle of another one belongs to that one."""
    pieces = [b"GET /v1/models HTTP/1.1\r\nHost: p\r\nX-Note: ", KNOWN, LAST]
    statuses, received = outcome(proxy, recorder, KNOWN, pieces)
    assert received == [] or received[0][0].startswith("GET /v1/models ")
    assert (statuses, received) == outcome(proxy, recorder, b"", pieces)


@given(st.integers(0, len(KNOWN) - 1), st.binary(min_size=0, max_size=3), st.integers(0, 2))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_change_of_some_bytes(
    proxy: Proxy, recorder: Recorder, at: int, put: bytes, taken: int
) -> None:
    pieces = [KNOWN[:at] + put + KNOWN[at + taken :], LAST]
    assert outcome(proxy, recorder, KNOWN, pieces) == outcome(proxy, recorder, b"", pieces)
