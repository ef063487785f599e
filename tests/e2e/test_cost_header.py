"""What a call cost stands in its answer's head, also where head and body came apart."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator

import pytest

from tests.rig import Proxy, Raw, Upstream, chat_answer, json_answer, read_request, running_proxy

LARGE = "x" * 100_000


async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Head and body apart, the body in two parts, by length or in chunks, as it is asked to."""
    while (request := await read_request(reader)) is not None:
        text = LARGE if "large" in request.line else "Hello."
        whole = json_answer(chat_answer(text=text))
        head, _, body = whole.partition(b"\r\n\r\n")
        middle = len(body) // 2
        parts = [body[:middle], body[middle:]]
        if "chunks" in request.line:
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
            )
            parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
            parts.append(b"0\r\n\r\n")
        if "broken" in request.line:
            parts = parts[:1]
        pause = 0.05
        if "unasked" in request.line:
            head = head.replace(b"application/json", b"application/x-ndjson")
            pause = 1.0
        if "blank" in request.line:
            parts, pause = [b"8\r\n        \r\n", *parts], 1.0
        for part in [head + b"\r\n\r\n", *parts]:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if "broken" in request.line:
            return


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Upstream(in_pieces) as upstream:
        settings = {
            "upstreams": {"openai": {"base_url": upstream.url}},
            "server": {"response_headers": True},
        }
        with running_proxy(tmp_path_factory.mktemp("cost"), settings) as proxy:
            yield proxy


def ask(proxy: Proxy, query: str) -> tuple[http.client.HTTPResponse, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": query}]}
    headers = {"Authorization": "Bearer sk-a", "Content-Type": "application/json"}
    link.request("POST", f"/v1/chat/completions?{query}", json.dumps(body), headers)
    answer = link.getresponse()
    found = answer.read()
    link.close()
    return answer, found


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_short_answer_tells_its_cost(telling: Proxy, framing: str) -> None:
    answer, body = ask(telling, framing)
    assert json.loads(body)["choices"][0]["message"]["content"] == "Hello."
    assert float(answer.headers["x-tokenweir-cost-usd"]) > 0


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_long_one_comes_as_it_is(telling: Proxy, framing: str) -> None:
    answer, body = ask(telling, f"{framing}&large")
    assert json.loads(body)["choices"][0]["message"]["content"] == LARGE
    assert answer.headers["x-tokenweir-request-id"]


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_one_that_breaks_off_is_refused_in_words(telling: Proxy, framing: str) -> None:
    answer, body = ask(telling, f"{framing}&broken")
    assert answer.status == 502
    assert "truncated" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("what", ["unasked", "blank"])
def test_what_a_client_waits_for_is_not_kept_back(telling: Proxy, what: str) -> None:
    """A stream that nobody asked for, and blank lines against impatience."""
    body = b'{"model": "gpt-4o-mini", "messages": []}'
    head = (
        f"POST /v1/chat/completions?chunks&{what} HTTP/1.1\r\nHost: p\r\n"
        f"Authorization: Bearer sk-a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with Raw(telling.port) as raw:
        begun = raw.send(head + body).until(b"{" if what == "unasked" else b"        ")
        assert b"Hello." not in begun and b"200 OK" in begun
        assert b"Hello." in raw.until(b"\r\n0\r\n\r\n")
