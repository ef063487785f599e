"""The dashboard over 10,000 agents and 35 days: ``python -m tests.benchmarks.dashboard``.

Owns: filling a real proxy's store, timing each question of the API and each page in a
real browser, and what a live update costs the loop. Must never: assert a time; it
prints what it measured here and now.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from operator import add
from pathlib import Path

import aiohttp

from detection.types import Series
from proxy.admin.events import EventHub
from proxy.store.counters import Delta
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.rig import ROOT, TOKEN, Proxy, running_proxy
from tests.unit.admin.past import Caller, Filler, counts_of

_BUSY = 5
_WATCHERS = 10
_UPDATES = 1000
_DAY = 86_400
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
    "/api/v1/series/months?by=agent&value=agent-17",
    "/api/v1/first-call",
    "/api/v1/forecast",
    "/billing/anomalies",
    "/api/v1/health",
    "/metrics",
)
PAGES = (
    "now", "incidents", "by/agent", "by/key", "by/model", "by/project", "by/provider",
    "by/agent/agent-17", "by/key/key_17", "budgets", "policy", "windows", "audit", "start",
)  # fmt: skip
READY = (
    "() => document.querySelector('main h1') && "
    "!document.querySelector('.state[data-kind=loading]')"
)
UPDATE = {
    "kind": "opened", "id": "inc_0123456789ab", "state": "open", "tier": "critical",
    "signal": "volume_surge", "series": {"dimension": "agent", "value": "agent-17"},
}  # fmt: skip


def callers(count: int) -> list[Caller]:
    """``count`` agents, the first of them busy; a tenth as many keys; few models and projects."""
    return [
        Caller(
            f"agent-{n}", f"key_{n // 10}", f"model-{n % 20}", f"provider-{n % 4}",
            f"project-{n % 50}", 60.0, 1200, 200, 0.002,
        )
        for n in range(count)
    ]  # fmt: skip


def now_and_then(
    quiet: Sequence[Caller], now: float, days: int, every_days: int
) -> Iterator[Delta]:
    """Ten calls of each caller at an hour of its own, every few days and in the last hour.

    What callers share (the total, their model, ...) is summed by the hour first.
    """
    dice = random.Random(11)
    sums: dict[tuple[Series, int], list[int]] = {}
    for caller in quiet:
        hour, first = dice.randrange(24), dice.randrange(every_days)
        row = counts_of(caller, 10)
        past = (now - d * _DAY - hour * 3600 for d in range(first, days, every_days))
        for at in (now, *past):
            for series in caller.series():
                place = series, int(at // 3600 * 360)
                known = sums.get(place)
                sums[place] = row if known is None else list(map(add, known, row))
    for (series, bucket), row in sums.items():
        yield Delta.of(series, bucket, row)


async def fill(proxy: Proxy, count: int, days: int, every_days: int) -> None:
    """Through the store's own door, while the proxy runs."""
    settings = StoreSettings(timeout_seconds=10.0)
    store = await Store.open(settings, proxy.data_dir, worker="past")
    try:
        everyone = callers(count)
        filler = Filler(store)
        now = store.clock()
        await filler.past(now, days, everyone[:_BUSY])
        piece: list[Delta] = []
        for delta in now_and_then(everyone[_BUSY:], now, days, every_days):
            piece.append(delta)
            if len(piece) >= 200_000:
                await filler.send(piece)
                piece.clear()
        await filler.send(piece)
    finally:
        await store.stop()


async def questions(url: str, rounds: int) -> list[str]:
    """A line per path: first answer, median, 99th percentile, in ms.

    The first answers come one after another, as soon as the proxy is ready.
    """
    lines = [f"{'question':62} {'first':>8} {'p50':>8} {'p99':>8} ms"]
    everything: list[float] = []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        first = {path: await answered(session, url + path) for path in PATHS}
        for path in PATHS:
            took = []
            for _ in range(rounds):
                took.append(await answered(session, url + path))
                await asyncio.sleep(0.02)
            everything += [first[path], *took]
            took.sort()
            p50, p99 = statistics.median(took), took[min(len(took) - 1, len(took) * 99 // 100)]
            lines.append(f"{path:62} {first[path]:8.1f} {p50:8.1f} {p99:8.1f}")
    everything.sort()
    p99 = everything[len(everything) * 99 // 100]
    lines.append(f"{'all questions, first answers included':62} {'':8} "
                 f"{statistics.median(everything):8.1f} {p99:8.1f}")  # fmt: skip
    return lines


async def answered(session: aiohttp.ClientSession, url: str) -> float:
    """How long an answer takes, in ms."""
    started = time.perf_counter()
    async with session.get(url) as answer:
        await answer.read()
        assert answer.status == 200, await answer.text()
    return (time.perf_counter() - started) * 1000


def stalls(proxy: Proxy) -> str:
    """The longest stall of the proxy's loop in the last minute, by its own word."""
    for line in proxy.text("/metrics").splitlines():
        if line.startswith("tokenweir_loop_stall_seconds "):
            return (
                f"longest stall of the proxy's loop meanwhile {float(line.split()[1]) * 1e3:.1f} ms"
            )
    return "no stall is told"


def pages(proxy: Proxy) -> list[str]:
    """Seconds from a click on a page's link until nothing loads any more, in Chromium."""
    try:
        from tests.e2e.dashboard.conftest import CHROMIUM, Watched, playwright
    except BaseException as missing:  # a skip of pytest, outside of pytest
        return [f"pages not measured: {missing}"]
    lines = [f"{'page':62} {'median':>8} {'worst':>8} ms"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        watched = Watched(context, proxy.admin)
        link = proxy.api("/api/v1/sign-in-links", "POST", {})["link"]
        watched.page.goto(link)
        watched.page.wait_for_selector("main h1")
        for path in PAGES:
            took = []
            for _ in range(5):
                watched.page.goto(f"{proxy.admin}/#/health")
                watched.page.wait_for_timeout(200)
                started = time.perf_counter()
                watched.page.goto(f"{proxy.admin}/#/{path}")
                watched.page.wait_for_function(READY, timeout=30_000)
                took.append((time.perf_counter() - started) * 1000)
            lines.append(f"{path:62} {statistics.median(took):8.0f} {max(took):8.0f}")
        browser.close()
    return lines


async def updates() -> str:
    """What telling ten open dashboards costs the loop, the writing to them included."""
    from proxy.admin.app import AdminServer
    from tests.benchmarks._watch import deps_of

    hub = EventHub()
    with tempfile.TemporaryDirectory() as folder:
        server = AdminServer(deps_of(Path(folder), hub), "127.0.0.1", 0)
        await server.start()
        watchers = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks._watch", server.url, str(_WATCHERS)], cwd=ROOT
        )
        try:
            async with asyncio.timeout(60):
                while hub.count < _WATCHERS:
                    await asyncio.sleep(0.1)
            idle = await spent(lambda number: None)
            busy = await spent(lambda number: hub.publish("incident", {**UPDATE, "n": number}))
        finally:
            watchers.kill()
            watchers.wait(10)
            await server.stop()
    return f"a live update to {_WATCHERS} dashboards costs the loop {(busy - idle) * 1e3:.3f} ms"


async def spent(act: object) -> float:
    """CPU seconds of this thread per update."""
    started = time.thread_time()
    for number in range(_UPDATES):
        act(number)  # type: ignore[operator]
        await asyncio.sleep(0.002)
    return (time.thread_time() - started) / _UPDATES


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument(
        "--every-days", type=int, default=1, help="Quiet agents call on every so many days."
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "budgets": [{"name": "all", "amount_usd": 1e6, "per": "month"}],
            # A machine that fills and measures at once is slow to answer.
            "store": {"timeout_seconds": 5, "query_timeout_seconds": 30},
        }
        with running_proxy(Path(folder), settings) as proxy:
            started = time.monotonic()
            asyncio.run(fill(proxy, given.agents, given.days, given.every_days))
            took = time.monotonic() - started
            print(f"filled {given.agents:,} agents and what belongs to them, {given.days} days, "
                  f"in {took:.0f} s", flush=True)  # fmt: skip
        # What is asked first of a proxy that has just started is the slowest.
        with running_proxy(Path(folder), settings) as proxy:
            print("\n".join(asyncio.run(questions(proxy.admin, given.rounds))), flush=True)
            print(stalls(proxy), flush=True)
        with running_proxy(Path(folder), settings) as proxy:
            print("\n".join(pages(proxy)), flush=True)
    print(asyncio.run(updates()))


if __name__ == "__main__":
    main()
