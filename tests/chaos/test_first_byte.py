"""A stream's first byte is timed, also where all of it comes behind its head at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.chaos.scripted import STREAM_HEAD, chunk, event_stream
from tests.rig import Raw, Upstream, read_request, running_proxy, wait_for

ANSWER = chunk(event_stream([{"choices": [{"index": 0, "delta": {"content": "hi"}}]}])) + chunk(b"")


async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader) is not None:
        writer.write(STREAM_HEAD)
        await writer.drain()
        await asyncio.sleep(0.3)
        writer.write(ANSWER)
        await writer.drain()


def test_all_behind_the_head_at_once(tmp_path: Path) -> None:
    message = {"model": "gpt-4o-mini", "stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps({**message, "messages": []})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer sk-a\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    with Upstream(late) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}}
        with running_proxy(tmp_path, settings) as proxy:
            with Raw(proxy.port) as raw:
                raw.send(head.encode()).until(b"\r\n0\r\n\r\n")
            row = wait_for(proxy.journal, what="a record")[0]
            assert 0.2 < row["ttft_seconds"] <= row["latency_seconds"]
