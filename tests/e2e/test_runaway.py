"""A runaway agent is stopped by itself, and nobody else is touched."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from tests.conftest import Recorder
from tests.rig import Proxy, Upstream, running_proxy, wait_for

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "find_invoice", "arguments": '{"order": 4711}'},
}
STUCK: list[dict[str, Any]] = [
    {"role": "user", "content": "Match order 4711."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "not found"},
]


class Clients:
    """A looping agent next to healthy ones, and what each saw."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.statuses: dict[str, Counter[int]] = {}
        self.blocked_after: float | None = None
        self.calls_until_block = 0

    async def call(
        self, session: aiohttp.ClientSession, agent: str, messages: list[dict[str, Any]]
    ) -> tuple[int, bytes]:
        url = f"{self.proxy.url}/@{agent}/v1/chat/completions"
        body = {"model": "gpt-4o-mini", "messages": messages, "max_tokens": 50}
        # A connection a call: the kernel spreads them over all workers.
        headers = {"Authorization": f"Bearer sk-{agent}", "Connection": "close"}
        async with session.post(url, json=body, headers=headers) as answer:
            data = await answer.read()
        self.statuses.setdefault(agent, Counter())[answer.status] += 1
        return answer.status, data

    async def healthy(self, session: aiohttp.ClientSession, agent: str, seconds: float) -> None:
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            number += 1
            await self.call(session, agent, [{"role": "user", "content": f"question {number}"}])
            await asyncio.sleep(0.25)

    async def loops(self, session: aiohttp.ClientSession, seconds: float) -> None:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            status, data = await self.call(session, "looper", STUCK)
            if status == 429 and b"insufficient_quota" in data and self.blocked_after is None:
                self.blocked_after = time.monotonic() - began
                self.calls_until_block = sum(self.statuses["looper"].values())
            await asyncio.sleep(0.02)

    async def run(self, seconds: float) -> None:
        async with aiohttp.ClientSession() as session:
            healthy = [self.healthy(session, f"healthy-{n}", seconds) for n in range(5)]
            await asyncio.gather(self.loops(session, seconds), *healthy)


def short_blocks() -> dict[str, Any]:
    """The default ladder with blocks of a few seconds."""
    ladder = [
        {"action": "throttle", "for_seconds": 5, "escalate_after_seconds": 0},
        {"action": "block", "for_seconds": 5},
    ]
    return {"rules": [{"name": "stop", "match": {"tier": "critical"}, "ladder": ladder}]}


def test_a_loop_is_blocked_across_workers_and_nobody_else(tmp_path: Path) -> None:
    with Upstream(Recorder()) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}}
        with running_proxy(tmp_path, settings, arguments=("--workers", "2")) as proxy:
            clients = Clients(proxy)
            asyncio.run(clients.run(8.0))
            assert clients.blocked_after is not None, clients.statuses
            assert clients.blocked_after < 10.0
            assert clients.calls_until_block <= 150
            for agent, statuses in clients.statuses.items():
                if agent != "looper":
                    assert set(statuses) == {200}, (agent, statuses)
            seen = clients.statuses["looper"]
            wait_for(lambda: sum(counted(proxy)) == seen[200] + seen[429], what="the store's count")
            assert counted(proxy) == (seen[200], seen[429])
            refused(proxy)


def counted(proxy: Proxy) -> tuple[int, int]:
    """What the store knows of the looper: calls answered, and calls refused."""
    row = next(r for r in proxy.usage("agent") if r["value"] == "looper")
    return row["requests"], row["refused"]


def refused(proxy: Proxy) -> None:
    """What the official SDKs make of the block: one request, the right exception."""
    before = len(proxy.journal())
    client = openai.OpenAI(base_url=f"{proxy.url}/@looper/v1", api_key="sk-looper")
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=STUCK)  # type: ignore[arg-type]
    assert caught.value.code == "insufficient_quota"
    assert "looper" in str(caught.value)
    claude = anthropic.Anthropic(base_url=f"{proxy.url}/@looper", api_key="sk-looper")
    with pytest.raises(anthropic.RateLimitError) as other:
        claude.messages.create(
            model="claude-sonnet-5", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
        )
    assert "looper" in str(other.value)
    wait_for(lambda: len(proxy.journal()) >= before + 2, what="the refusals in the journal")
    assert len(proxy.journal()) == before + 2, "an SDK retried a block"


def test_a_block_ends_by_itself(tmp_path: Path) -> None:
    with Upstream(Recorder()) as upstream:
        settings = {
            "upstreams": {"openai": {"base_url": upstream.url}},
            "policies": short_blocks(),
        }
        with running_proxy(tmp_path, settings) as proxy:
            clients = Clients(proxy)
            asyncio.run(clients.run(3.0))
            assert clients.statuses["looper"][429] > 0

            async def once() -> int:
                async with aiohttp.ClientSession() as session:
                    messages = [{"role": "user", "content": f"new {time.monotonic()}"}]
                    return (await clients.call(session, "looper", messages))[0]

            wait_for(lambda: asyncio.run(once()) == 200, 20, "the end of the block")


@pytest.mark.parametrize("mode", ["observe", "shadow"])
def test_other_modes_touch_nothing(tmp_path: Path, mode: str) -> None:
    with Upstream(Recorder()) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}, "mode": mode}
        with running_proxy(tmp_path, settings) as proxy:
            clients = Clients(proxy)
            asyncio.run(clients.run(3.0))
            assert set(clients.statuses["looper"]) == {200}
            shadowed = [r for r in proxy.journal() if str(r["action"]).startswith("shadow")]
            assert bool(shadowed) is (mode == "shadow")


def test_sampling_one_prompt_is_throttled_and_never_blocked(tmp_path: Path) -> None:
    with Upstream(Recorder()) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}}
        with running_proxy(tmp_path, settings) as proxy:
            clients = Clients(proxy)

            async def sample() -> list[bytes]:
                answers = []
                async with aiohttp.ClientSession() as session:
                    for _ in range(200):
                        same = [{"role": "user", "content": "Write a haiku."}]
                        answers.append((await clients.call(session, "sampler", same))[1])
                return answers

            answers = asyncio.run(sample())
            assert not [a for a in answers if b"insufficient_quota" in a]
            assert not [r for r in proxy.journal() if r["action"] == "block"]


def test_a_hard_limit_and_a_reload(tmp_path: Path) -> None:
    import yaml

    with Upstream(Recorder()) as upstream:
        settings: dict[str, Any] = {"upstreams": {"openai": {"base_url": upstream.url}}}
        with running_proxy(tmp_path, settings) as proxy:
            client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-a", max_retries=0)

            def ask() -> None:
                client.chat.completions.create(
                    model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}]
                )

            for _ in range(5):
                ask()
            proxy.config.write_text("limits: [oh no\n")
            wait_for(lambda: 'outcome="failed"' in proxy.text("/metrics"), 10, "the bad file")
            ask()
            settings["limits"] = [{"name": "few", "by": ["key"], "requests": 3, "per": "hour"}]
            proxy.config.write_text(yaml.safe_dump(settings))
            wait_for(lambda: 'outcome="ok"' in proxy.text("/metrics"), 10, "the reload")
            with pytest.raises(openai.RateLimitError) as caught:
                for _ in range(5):
                    ask()
            assert "few" in str(caught.value)
