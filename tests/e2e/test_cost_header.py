"""What a call cost stands in its answer's head, also where head and body came apart."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator

import pytest

from tests.rig import Proxy, Upstream, chat_answer, json_answer, read_request, running_proxy

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
        for part in [head + b"\r\n\r\n", *parts]:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
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
