"""Bad requests: what must never reach an upstream, and what must reach it as it is."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.conftest import Recorder
from tests.rig import Proxy, Raw

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\n"
BODY = json.dumps(
    {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
).encode()
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "row1-length-and-chunks": (POST + b"Content-Length: 4\r\n" + CHUNKED + b"0\r\n\r\n", 400),
    "row2-two-lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "row3-plus-length": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "row4-odd-encoding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "row4-gzip-chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "row5-chunks-in-1.0": (
        b"POST /v1/chat/completions HTTP/1.0\r\nHost: p\r\n" + CHUNKED + b"0\r\n\r\n",
        400,
    ),
    "row6-two-hosts": (POST + b"Host: other\r\n" + LENGTH + BODY, 400),
    "row6-no-host": (b"POST /v1/chat/completions HTTP/1.1\r\n" + LENGTH + BODY, 400),
    "row7-host-with-path": (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a/admin?x=\r\n" + LENGTH + BODY,
        400,
    ),
    "row8-folded": (POST + b"X-A: 1\r\n folded\r\n" + LENGTH + BODY, 400),
    "row8-nul": (POST + b"X-A: a\0b\r\n" + LENGTH + BODY, 400),
    "row8-space-before-colon": (POST + b"X-A : 1\r\n" + LENGTH + BODY, 400),
    "row8-bare-lf": (b"POST /v1/chat/completions HTTP/1.1\nHost: p\n\n", 400),
    "row9-lf-in-chunk-extension": (POST + CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
    "row9-chunk-overflow": (POST + CHUNKED + b"fffffffffffffffff\r\n", 400),
    "row10-many-headers": (POST + b"".join(b"X-%d: 1\r\n" % i for i in range(140)) + LENGTH, 431),
    "row10-large-header": (POST + b"X-A: " + b"a" * 70_000 + b"\r\n" + LENGTH, 431),
    "row13-dots": (b"GET /v1/../admin HTTP/1.1\r\nHost: p\r\n\r\n", 400),
    "row13-encoded-dots": (b"GET /v1/%2e%2E/admin HTTP/1.1\r\nHost: p\r\n\r\n", 400),
    "row15-http2-line": (b"GET /v1/models HTTP/2.0\r\nHost: p\r\n\r\n", 505),
    "row16-connect": (b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n", 405),
    "row23-newline-in-agent": (
        b"GET /@a%0d%0aX-Evil:1/v1/models HTTP/1.1\r\nHost: p\r\n\r\n",
        400,
    ),
    "row78-admin-path": (b"GET /api/v1/usage HTTP/1.1\r\nHost: p\r\n\r\n", 404),
    "row78-metrics": (b"GET /metrics HTTP/1.1\r\nHost: p\r\n\r\n", 404),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_be_read_in_two_ways_goes_nowhere(
    proxy: Proxy, recorder: Recorder, name: str
) -> None:
    request, status = REFUSED[name]
    before = len(recorder.requests)
    with Raw(proxy.port) as raw:
        try:
            raw.send(request)
        except ConnectionError:
            pass  # refused before the last byte was sent
        answer = raw.all()
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert len(recorder.requests) == before


def call(proxy: Proxy, request: bytes) -> bytes:
    with Raw(proxy.port) as raw:
        raw.send(request)
        return raw.until(b"Hello.")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("http://evil.test/v1/models", "/v1/models"),
        ("//evil.test/x", "//evil.test/x"),
        ("/v1/files/a%2Fb%3Ac", "/v1/files/a%2Fb%3Ac"),
        ("/v1/models?x=%20&key=", "/v1/models?x=%20&key="),
        ("/openai/v1/models", "/v1/models"),
        ("/@billing/v1/models", "/v1/models"),
    ],
)
def test_targets_reach_the_configured_upstream_raw(
    proxy: Proxy, recorder: Recorder, target: str, seen: str
) -> None:
    call(proxy, f"GET {target} HTTP/1.1\r\nHost: evil.test\r\n\r\n".encode())
    request = recorder.requests[-1]
    assert request.line == f"GET {seen} HTTP/1.1"
    assert request.header("host") == proxy_host(request.header("host"))


def proxy_host(host: str | None) -> str | None:
    assert host is not None and host.startswith("127.0.0.1:")
    return host


def test_listed_fields_are_dropped_but_name_the_agent(proxy: Proxy, recorder: Recorder) -> None:
    call(
        proxy,
        POST
        + b"Connection: x-agent-id, keep-alive\r\nX-Agent-Id: listed-agent\r\n"
        + b"X_Agent_Id: underscored\r\nKeep-Alive: timeout=5\r\n"
        + LENGTH
        + BODY,
    )
    request = recorder.requests[-1]
    assert request.header("x-agent-id") is None
    assert request.header("keep-alive") is None
    assert request.header("x_agent_id") == "underscored"
    assert proxy.journal()[-1]["agent"] == "listed-agent"


def test_fields_keep_order_case_and_bytes(proxy: Proxy, recorder: Recorder) -> None:
    fields = b"X-Zed: 1\r\naCCept: */*\r\nX-Zed: 2\r\nX-Bytes: caf\xe9\r\n"
    call(proxy, POST + fields + LENGTH + BODY)
    request = recorder.requests[-1]
    wanted = [("X-Zed", "1"), ("aCCept", "*/*"), ("X-Zed", "2"), ("X-Bytes", "caf\xe9")]
    assert [f for f in request.headers if f in wanted] == wanted
    assert request.body == BODY


def test_a_body_over_the_limit_is_refused_before_the_upstream(
    proxy: Proxy, recorder: Recorder
) -> None:
    before = len(recorder.requests)
    with Raw(proxy.port) as raw:
        raw.send(POST + b"Content-Length: 99999999999\r\n\r\n")
        assert raw.all().startswith(b"HTTP/1.1 413 ")
    assert len(recorder.requests) == before


def test_compressed_bodies_pass_untouched(proxy: Proxy, recorder: Recorder) -> None:
    bomb = b"\x1f\x8b" + bytes(range(256)) * 40
    call(
        proxy,
        POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb,
    )
    assert recorder.requests[-1].body == bomb


@pytest.mark.parametrize("body", [b"{not json", b"[" * 100_000, b"\xff\xfe", b'{"model":7}'])
def test_bodies_that_can_not_be_read_are_forwarded(
    proxy: Proxy, recorder: Recorder, body: bytes
) -> None:
    call(proxy, POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert recorder.requests[-1].body == body


def test_chunked_bodies_arrive_whole(proxy: Proxy, recorder: Recorder) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, bytes([c])) for c in BODY) + b"0\r\n\r\n"
    call(proxy, POST + CHUNKED + chunks)
    assert recorder.requests[-1].body == BODY


@pytest.mark.parametrize("piece", [b"POST /v1/chat", POST, POST + LENGTH + BODY[:5], b""])
def test_slow_clients_are_closed_at_the_deadline(
    proxy: Proxy, recorder: Recorder, piece: bytes
) -> None:
    before = len(recorder.requests)
    began = time.monotonic()
    with Raw(proxy.port) as raw:
        raw.send(piece)
        raw.all()
    assert time.monotonic() - began < 5
    assert len(recorder.requests) == before


def test_a_thousand_pipelined_requests_are_all_answered_in_order(proxy: Proxy) -> None:
    with Raw(proxy.port, timeout=30) as raw:
        one = b"GET /v1/models HTTP/1.1\r\nHost: p\r\n\r\n"
        raw.send(one * 999 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert raw.all().count(b"HTTP/1.1 200 OK") == 1000


def test_expect_then_refusal_leaves_no_stray_bytes(proxy: Proxy, recorder: Recorder) -> None:
    with Raw(proxy.port) as raw:
        raw.send(POST + b"Expect: 100-continue\r\n" + LENGTH)
        assert raw.until(b"100 Continue\r\n\r\n").startswith(b"HTTP/1.1 100")
        raw.send(BODY)
        assert b"200 OK" in raw.until(b"Hello.")
        raw.send(POST + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n")
        assert raw.all().startswith(b"HTTP/1.1 413 ")
    assert recorder.requests[-1].header("expect") is None


def test_an_upgrade_that_is_not_a_websocket_is_ignored(proxy: Proxy, recorder: Recorder) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with Raw(proxy.port) as raw:
        raw.send(POST + upgrade + LENGTH + BODY)
        assert b"200 OK" in raw.until(b"Hello.")
        raw.send(POST + LENGTH + BODY)
        assert b"200 OK" in raw.until(b"Hello.")
    assert recorder.requests[-2].body == BODY
    assert recorder.requests[-2].header("upgrade") is None
    assert recorder.requests[-1].body == BODY


def test_http_1_0_gets_a_body_that_the_close_ends(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as raw:
        raw.settimeout(10)
        raw.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        answer = b""
        while data := raw.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"hunked" not in answer
    assert answer.endswith(b"}")
