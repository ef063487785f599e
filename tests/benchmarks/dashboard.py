"""The admin API over 10,000 series and 35 days: ``python -m tests.benchmarks.dashboard``.

Owns: filling a store, and timing each page's questions. Prints a table; ends
with the longest stall that the questions caused in the proxy's own loop.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp

from detection.engine import Engine
from proxy.admin.app import AdminServer
from proxy.admin.deps import AdminDeps
from proxy.admin.reader import Reader
from proxy.admin.settings import AdminSettings
from proxy.metrics import Exposition, RuntimeMetrics, process_readings
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.unit.admin.past import Caller, Filler

TOKEN = "a-token-of-the-benchmark-0001"
PATHS = (
    "/api/v1/overview?window=1h",
    "/api/v1/overview?window=30d",
    "/api/v1/usage?by=total&window=1h",
    "/api/v1/usage?by=agent&window=24h",
    "/api/v1/usage?by=agent&window=30d",
    "/api/v1/series?by=agent&window=24h",
    "/api/v1/series?by=agent&window=30d",
    "/api/v1/series?by=key&window=7d&q=key_1",
    "/api/v1/series/detail?by=agent&value=agent-17&window=24h",
    "/api/v1/series/detail?by=key&value=key_17&window=30d",
    "/api/v1/first-call",
    "/metrics",
)


def callers(count: int) -> list[Caller]:
    """``count`` agents; a tenth as many keys; few models and projects."""
    return [
        Caller(
            f"agent-{n}", f"key_{n // 10}", f"model-{n % 20}", f"provider-{n % 4}",
            f"project-{n % 50}", 0.4 if n >= 50 else 60.0, 1200, 200, 0.002,
        )
        for n in range(count)
    ]  # fmt: skip


async def run(series: int, days: int, rounds: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = StoreSettings(timeout_seconds=10.0, query_timeout_seconds=30.0)
        store = await Store.open(settings, Path(folder))
        started = time.monotonic()
        await Filler(store).past(store.clock(), days, callers(series))
        print(f"filled {series} agents over {days} days in {time.monotonic() - started:.0f} s")
        runtime = RuntimeMetrics()
        deps = AdminDeps(
            settings=AdminSettings(),
            data_dir=Path(folder),
            clock=store.clock,
            version="bench",
            scrape=Exposition([runtime.readings, process_readings("bench")]).scrape,
            mode=lambda: "enforce",
            data_url=lambda: "",
            reader=Reader(store.counters, store.clock),
            runtime=runtime,
            store=store,
            engine=Engine(),
            environ={"TOKENWEIR_ADMIN_TOKEN": TOKEN},
        )
        server = AdminServer(deps, "127.0.0.1", 0)
        await server.start()
        watch = asyncio.create_task(runtime.watch_loop(0.005))
        lines = await measure(server.url, rounds)
        stall = runtime.worst_stall_seconds(time.monotonic())
        lines.append(f"longest stall of the loop {stall * 1000:.1f} ms")
        print("\n".join(lines))
        if out:
            out.write_text("\n".join(lines) + "\n")
        watch.cancel()
        await server.stop()
        await store.stop()


async def measure(url: str, rounds: int) -> list[str]:
    """A line per path: first answer, median and the slowest of the rounds, in ms."""
    lines = [f"{'path':62} {'first':>8} {'p50':>8} {'worst':>8} ms"]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for path in PATHS:
            took = []
            for _ in range(rounds):
                started = time.perf_counter()
                async with session.get(url + path) as answer:
                    await answer.read()
                    assert answer.status == 200, await answer.text()
                took.append((time.perf_counter() - started) * 1000)
            later = sorted(took[1:])
            lines.append(
                f"{path:62} {took[0]:8.1f} {statistics.median(later):8.1f} {later[-1]:8.1f}"
            )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    asyncio.run(run(given.series, given.days, given.rounds, given.out))
