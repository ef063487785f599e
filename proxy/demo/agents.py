"""The demonstration's agents: five that work, one that starts to loop.

Owns: what each agent sends and when, the same for the same seed. Must never:
know whether it talks to the proxy or to the provider itself.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

MODEL = "gpt-4.1"
LOOPER = "invoice-matcher"
HEALTHY = ("support-triage", "code-review", "doc-search", "report-writer", "data-cleaner")
#: The looping agent works well until then.
LOOP_STARTS_SECONDS = 6.0

_TASKS = (
    "Summarise ticket {n} and name the team that should take it.",
    "Review change {n}: is the error path tested?",
    "Which page of the handbook answers question {n}?",
    "Draft the paragraph for week {n} of the report.",
    "Normalise the addresses of batch {n}.",
)
_SYSTEM = "You are a careful assistant of the back office. Use tools when you need them. " * 24


@dataclass
class Tally:
    """What one agent's app saw."""

    sent: int = 0
    answered: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    last_refusal: str = ""
    statuses: dict[int, int] = field(default_factory=dict)


class Agent:
    """One agent: asks, waits for the answer, asks again."""

    def __init__(self, name: str, base_url: str, seed: int) -> None:
        self.name = name
        self.tally = Tally()
        self._url = f"{base_url}/v1/chat/completions"
        self._random = random.Random(f"{seed}:{name}")
        self._number = 0

    async def run(self, session: aiohttp.ClientSession, seconds: float) -> None:
        """Work until the time is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < seconds:
            looping = self.name == LOOPER and loop.time() - began > LOOP_STARTS_SECONDS
            ok = await self._ask(session, self._stuck() if looping else self._task())
            pause = 0.01 if looping else self._random.uniform(0.5, 1.2)
            await asyncio.sleep(pause if ok else 0.25)

    def _task(self) -> dict[str, Any]:
        self._number += 1
        question = self._random.choice(_TASKS).format(n=self._random.randint(1, 10_000_000))
        messages = [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": question},
        ]
        stream = self._number % 2 == 0
        return {"model": MODEL, "messages": messages, "max_tokens": 200, "stream": stream}

    def _stuck(self) -> dict[str, Any]:
        """The same tool call and the same answer once more, the context growing each time."""
        self._number += 1
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": "find_invoice", "arguments": '{"order":"A-4711"}'},
        }
        turn: list[dict[str, Any]] = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"error":"not found"}'},
        ]
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": _SYSTEM * 6},
            {"role": "user", "content": "Match order A-4711 with its invoice."},
        ]
        for _ in range(min(self._number, 120)):
            messages += turn
        return {"model": MODEL, "messages": messages, "max_tokens": 200}

    async def _ask(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> bool:
        tally = self.tally
        tally.sent += 1
        headers = {
            "Authorization": f"Bearer demo-key-of-{self.name}",
            "Content-Type": "application/json",
        }
        if body.get("stream"):
            body["stream_options"] = {"include_usage": True}
        try:
            async with session.post(self._url, data=orjson.dumps(body), headers=headers) as answer:
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return False
        tally.statuses[answer.status] = tally.statuses.get(answer.status, 0) + 1
        if answer.status != 200:
            tally.refused += 1
            tally.last_refusal = _message(raw)
            return False
        tally.answered += 1
        usage = _usage(raw, streamed=bool(body.get("stream")))
        tally.input_tokens += usage.get("prompt_tokens", 0)
        tally.output_tokens += usage.get("completion_tokens", 0)
        return True


def _usage(raw: bytes, *, streamed: bool) -> dict[str, int]:
    if not streamed:
        return dict(orjson.loads(raw)["usage"])
    for line in reversed(raw.split(b"\n")):
        if line.startswith(b"data: {"):
            return dict(orjson.loads(line[6:]).get("usage") or {})
    return {}


def _message(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
