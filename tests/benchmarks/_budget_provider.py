"""A provider that bills, for the budget benchmark, and clients that spend.

Owns: what each call really cost, by the provider's own count. Must never: take
a number from the proxy.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field

from tests.rig import Received, json_answer, read_request

#: Dollars per million tokens, input and output.
PRICES = {"large": (5.0, 20.0), "small": (0.5, 2.0)}
WORDS_PER_CHUNK = 8
MOST_WAITS = 100
#: The most that is set aside for a ``small`` call.
SMALL_NANO_USD = 150_000


def cost(model: str, prompt: int, completion: int) -> int:
    """Nano-USD of a call."""
    price_in, price_out = PRICES[model]
    return round(prompt * price_in * 1000) + round(completion * price_out * 1000)


@dataclass
class Provider:
    """Answers chat completions, streamed or not, and keeps the bill of each project."""

    seed: int
    bill: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    #: On whose bill a call goes that doesn't say it.
    otherwise: str = ""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            try:
                await self._answer(request, writer)
            except (ConnectionError, asyncio.CancelledError):
                return

    async def _answer(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if not request.body:
            writer.write(json_answer({"error": {"message": "only chat completions"}}, 404))
            await writer.drain()
            return
        body = json.loads(request.body)
        run, model = (body.get("metadata") or {}).get("run", self.otherwise), body["model"]
        prompt = max(1, len(request.body) // 4)
        wanted = min(1500, int(self._random.lognormvariate(5.0, 0.8)))
        completion = max(1, min(wanted, body.get("max_tokens") or wanted))
        self.calls[run] += 1
        await asyncio.sleep(self._random.uniform(0.005, 0.03))
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        if not body.get("stream"):
            # Billed when made, whether or not anybody is left to read it.
            self.bill[run] += cost(model, prompt, completion)
            message = {"role": "assistant", "content": "word " * completion}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            writer.write(json_answer({**_base(model), "choices": [choice], "usage": usage}))
            await writer.drain()
            return
        await self._stream(body, run, prompt, completion, usage, writer)

    async def _stream(
        self,
        body: dict[str, object],
        run: str,
        prompt: int,
        completion: int,
        usage: dict[str, int],
        writer: asyncio.StreamWriter,
    ) -> None:
        model = str(body["model"])
        self.bill[run] += cost(model, prompt, 0)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        left = completion
        while left:
            words = min(left, WORDS_PER_CHUNK)
            left -= words
            # What was generated is billed, even where the client is gone.
            self.bill[run] += cost(model, 0, words)
            delta = {"index": 0, "delta": {"content": "word " * words}, "finish_reason": None}
            writer.write(_event({**_base(model), "choices": [delta]}))
            await writer.drain()
            if writer.is_closing():
                return
            await asyncio.sleep(0.0005)
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        writer.write(_event({**_base(model), "choices": [end]}))
        options = body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            writer.write(_event({**_base(model), "choices": [], "usage": usage}))
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()


def _base(model: str) -> dict[str, object]:
    return {"id": "c", "object": "chat.completion", "created": 1, "model": model}


def _event(value: object) -> bytes:
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    return b"%x\r\n" % len(data) + data + b"\r\n"


@dataclass
class Spent:
    """What the clients of one run saw."""

    answered: int = 0
    refused: int = 0
    throttled: int = 0
    broken: int = 0


async def client(
    port: int,
    run: str,
    seed: int,
    spent: Spent,
    *,
    with_max_tokens: bool,
    tries: int = 3,
    small: bool = False,
    any_refusal_is_final: bool = False,
) -> None:
    """Call until the budget has refused a few times; what may be retried is.

    ``small`` makes the cheapest calls only, so that little can stay unspent.
    """
    randomly = random.Random(seed)
    refused = waited = 0
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    while refused < tries:
        stream = randomly.random() < 0.5
        body: dict[str, object] = {
            "model": randomly.choice(["large", "small"]),
            "messages": [{"role": "user", "content": "x" * int(randomly.paretovariate(1.2) * 60)}],
            "metadata": {"run": run},
        }
        if small:
            body |= {"model": "small", "messages": [], "max_tokens": 1}
        elif with_max_tokens:
            body["max_tokens"] = randomly.choice([16, 64, 200, 600])
        if stream:
            body["stream"] = True
        data = json.dumps(body).encode()[:60_000]
        if len(data) == 60_000:
            continue
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Length: {len(data)}\r\nContent-Type: application/json\r\n"
            "Authorization: Bearer sk-benchmark\r\n"
            f"x-tokenweir-project: {run}\r\nx-tokenweir-agent: client-{seed % 20}\r\n\r\n"
        ).encode()
        try:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
            writer.write(head + data)
            status, final = await _read_answer(reader)
            final = final or any_refusal_is_final
        except (OSError, asyncio.IncompleteReadError, ValueError):
            spent.broken += 1
            writer = None
            refused += 1
            await asyncio.sleep(0.05)
            continue
        if status == 200:
            spent.answered += 1
        elif final:
            spent.refused += 1
            refused += 1
        else:
            spent.throttled += 1
            waited += 1
            refused += waited > MOST_WAITS
            await asyncio.sleep(randomly.uniform(0.1, 0.4))
    if writer is not None:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status, and whether the answer says that a retry is no use."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    if "transfer-encoding: chunked" in head:
        while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    else:
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        await reader.readexactly(length)
    if "connection: close" in head:
        raise ValueError("closed")
    return status, "x-should-retry: false" in head
