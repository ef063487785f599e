"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import (
    ROOT,
    Proxy,
    Received,
    Upstream,
    chat_answer,
    json_answer,
    read_request,
    running_proxy,
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and traces, or a skip that says so."""
    folder = Path(os.environ.get("TOKENWEIR_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("the shared recordings are not here (set TOKENWEIR_SHARED)")
    return folder


class Recorder:
    """An upstream that answers every call with a chat completion and keeps what came."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answer = json_answer(chat_answer())

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            self.requests.append(request)
            if b'"stream":true' in request.body.replace(b" ", b""):
                writer.write(stream_of(request))
            else:
                writer.write(self.answer)
            await writer.drain()


def stream_of(request: Received) -> bytes:
    """A chat stream of three words, with usage where it was asked for."""
    body = json.loads(request.body)
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    events: list[object] = [
        {**base, "choices": [{"index": 0, "delta": {"content": w}, "finish_reason": None}]}
        for w in ("one ", "two ", "three")
    ]
    events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        events.append({**base, "choices": [], "usage": usage})
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    chunks = text.encode()
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunks), chunks)
    )


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def upstream(recorder: Recorder) -> Iterator[Upstream]:
    with Upstream(recorder) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def proxy(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """One proxy for a module's tests, in front of the recording upstream."""
    settings = {
        "upstreams": {
            "openai": {"base_url": upstream.url},
            "anthropic": {"base_url": upstream.url, "wire": "anthropic"},
        },
        "server": {"header_timeout_seconds": 1.0, "body_timeout_seconds": 1.0},
    }
    with running_proxy(tmp_path_factory.mktemp("proxy"), settings) as proxy:
        yield proxy
