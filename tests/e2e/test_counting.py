"""Ten thousand calls: clients, metrics, store and journal agree to the nano-dollar."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Recorder
from tests.rig import Proxy, Upstream, running_proxy, wait_for

CALLS = 10_000


async def drive(proxy: Proxy, calls: int, at_once: int = 64) -> Counter[str]:
    """Mixed JSON and SSE calls of several agents and keys; what the clients saw whole."""
    source = random.Random(3)
    seen: Counter[str] = Counter()
    plan = [
        (f"agent-{source.randrange(7)}", f"sk-{source.randrange(5)}", source.random() < 0.4)
        for _ in range(calls)
    ]
    queue = iter(enumerate(plan))

    async def work(session: aiohttp.ClientSession) -> None:
        for number, (agent, key, stream) in queue:
            body = {
                "model": "gpt-4o-mini",
                "stream": stream,
                "messages": [{"role": "user", "content": f"question {number}"}],
            }
            url = f"{proxy.url}/@{agent}/v1/chat/completions"
            headers = {"Authorization": f"Bearer {key}"}
            async with session.post(url, json=body, headers=headers) as answer:
                data = await answer.read()
                assert answer.status == 200
                assert data.endswith(b"[DONE]\n\n" if stream else b"}")
                assert b'"usage"' not in data or not stream
            seen["calls"] += 1
            seen["input"] += 9 if stream else 11
            seen["output"] += 3 if stream else 7
            seen[agent] += 1

    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(work(session) for _ in range(at_once)))
    return seen


@pytest.mark.parametrize("workers", [2])
def test_everything_is_counted_once(tmp_path: Path, workers: int) -> None:
    with Upstream(Recorder()) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}, "mode": "observe"}
        arguments = ("--workers", str(workers))
        with running_proxy(tmp_path, settings, arguments=arguments) as proxy:
            seen = asyncio.run(drive(proxy, CALLS))
            journal = proxy.journal()
            cost = sum(row["cost_nano_usd"] for row in journal)
            assert len(journal) == len({row["id"] for row in journal}) == CALLS
            assert sum(row["input_tokens"] for row in journal) == seen["input"]
            assert sum(row["output_tokens"] for row in journal) == seen["output"]
            total = wait_for(
                lambda: [r for r in proxy.usage() if r["requests"] == CALLS], what="the store"
            )[0]
            assert total["input_tokens"] == seen["input"]
            assert total["output_tokens"] == seen["output"]
            assert total["cost_nano_usd"] == cost
            agents = {row["value"]: row["requests"] for row in proxy.usage("agent")}
            assert agents == {name: n for name, n in seen.items() if name.startswith("agent-")}
            assert sum(row["cost_nano_usd"] for row in proxy.usage("key")) == cost
            samples = metric_sums(proxy.text("/metrics"))
            assert samples["tokenweir_requests_total"] == CALLS
            tokens = seen["input"] + seen["output"]
            assert samples["tokenweir_tokens_total"] == tokens
            assert round(samples["tokenweir_cost_usd_total"] * 1e9) == cost
            assert samples["tokenweir_requests_in_flight"] == 0


def metric_sums(text: str) -> dict[str, float]:
    """Each metric summed over its labels."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            name = name.partition("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums
