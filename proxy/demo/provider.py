"""A local provider in OpenAI's wire format, for the demonstration.

Owns: answers that cost nothing and arrive as a provider's do, with the usage of
what was really sent. Must never: be reachable from another machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from typing import Any

import orjson
from aiohttp import web

_TEXT = (
    "the invoice was matched with order and shipped on time customer asked for refund "
    "report shows growth in region while cost per unit fell this answer cites two sources"
)
_WORDS = tuple(re.findall(r"\w+", _TEXT))
_CHARACTERS_PER_TOKEN = 4


class DemoProvider:
    """Serves ``/v1/chat/completions``, plain and streamed, on a loopback port."""

    def __init__(self) -> None:
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen on a port of the loopback; 0 takes a free one."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = orjson.loads(raw)
        digest = hashlib.blake2b(raw, digest_size=8).digest()
        source = random.Random(digest)
        prompt = sum(len(orjson.dumps(m)) for m in body["messages"]) // _CHARACTERS_PER_TOKEN
        words = [source.choice(_WORDS) for _ in range(source.randint(20, 80))]
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": len(words) + 4,
            "total_tokens": prompt + len(words) + 4,
        }
        await asyncio.sleep(source.uniform(0.02, 0.05))
        base = {"id": f"chatcmpl-{digest.hex()}", "created": 0, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
            return web.Response(body=orjson.dumps(answer), content_type="application/json")
        return await self._stream(request, body, base, words, usage)

    async def _stream(
        self,
        request: web.Request,
        body: dict[str, Any],
        base: dict[str, Any],
        words: list[str],
        usage: dict[str, int],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        base = {**base, "object": "chat.completion.chunk"}
        for word in words:
            choice = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
            await response.write(_event({**base, "choices": [choice]}))
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await response.write(_event({**base, "choices": [last]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(_event({**base, "choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _event(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
