"""A day of incidents with receivers that fail half the time, and the time to a delivered webhook.

``python -m tests.benchmarks.alerts [--incidents 300] [--timed 200] [--agents 100] [--json FILE]``

First a simulated day: verdicts open, worsen, end and come back on random
scopes; a webhook, a Slack API and a PagerDuty endpoint on loopback answer every
second request with 503, 429 or nothing at all, and now and then take a message
and lose the answer. Book, plan, outbox and store are the real ones; only the
clock is moved. Then, by the real clock, the time from a verdict to the webhook
that tells of it, with default settings. Last the same through a running proxy:
agents that get stuck one after another, from the verdict to the webhook.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from detection.types import Family, Series, Signal, Tier, Verdict
from proxy.alerts.service import AlertService
from proxy.alerts.settings import AlertsSettings
from proxy.incidents import BookRules, IncidentBook
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.conftest import Recorder
from tests.e2e.test_runaway import STUCK
from tests.rig import Upstream, running_proxy

DAY = 86_400.0
START = 1_800_000_000.0
REPEAT = 14_400.0
SIGNALS = (Signal.AGENT_LOOP, Signal.SPEND_SPIKE, Signal.RETRY_STORM, Signal.NEW_CLIENT)


class Clock:
    """Epoch seconds that the simulation moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Receivers:
    """Endpoints that keep what they took, and fail as they please."""

    clock: Any
    rng: random.Random
    fail_share: float
    url: str = ""
    tries: int = 0
    took: dict[str, list[tuple[float, str, Any]]] = field(default_factory=lambda: defaultdict(list))
    ids: set[str] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Fail, or take."""
        self.tries += 1
        name = request.path.split("/")[1]
        body = await request.json()
        if self.rng.random() < self.fail_share:
            how = self.rng.choice(("503", "429", "gone", "lost"))
            if how == "lost" and name == "hook":
                self.keep(name, request, body)
            if how in ("gone", "lost"):
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            return web.Response(status=int(how), headers={"Retry-After": "30"})
        self.keep(name, request, body)
        return web.json_response({"ok": True, "ts": f"{self.tries}.0"})

    def keep(self, name: str, request: web.Request, body: Any) -> None:
        """Once per message id, as receivers of Standard Webhooks do."""
        mark = request.headers.get("webhook-id", f"{name}{self.tries}")
        if mark not in self.ids:
            self.ids.add(mark)
            self.took[name].append((self.clock(), mark, body))


@asynccontextmanager
async def listening(receivers: Receivers) -> AsyncIterator[None]:
    """Run the endpoints on loopback."""
    app = web.Application()
    app.router.add_post("/{tail:.*}", receivers.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receivers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()


def raw_settings(url: str) -> dict[str, Any]:
    """Everything to the webhook and Slack, the severe to PagerDuty too; else as by default."""
    slack = {"type": "slack", "token": "x", "channel": "#a", "api_url": f"{url}/chat"}
    duty = {"type": "pagerduty", "routing_key": "k", "url": f"{url}/duty"}
    return {
        "allow_addresses": ["127.0.0.0/8"],
        "receivers": [
            {"name": "hook", "type": "webhook", "url": f"{url}/hook"},
            {"name": "chat", **slack},
            {"name": "duty", **duty},
        ],
        "route": {
            "receiver": "hook",
            "repeat_interval_seconds": REPEAT,
            "routes": [
                {"receiver": "duty", "min_tier": "critical", "continue": True},
                {"receiver": "chat", "continue": True},
                {"receiver": "hook"},
            ],
        },
    }


def settings(url: str) -> AlertsSettings:
    """The same, read."""
    return AlertsSettings.model_validate(raw_settings(url))


def a_days_verdicts(count: int, rng: random.Random) -> list[Verdict]:
    """Openings, escalations and ends; some scopes come back."""
    made = []
    for _ in range(count):
        series = Series("agent", f"agent-{rng.randint(0, count // 2)}")
        signal = rng.choice(SIGNALS)
        at = START + rng.uniform(0, DAY - 9_000)
        ends = at + rng.uniform(60, 7_200)
        tier = rng.choice((Tier.WARNING, Tier.CRITICAL, Tier.EMERGENCY))
        made.append(_verdict(at, signal, tier, series))
        if tier < Tier.EMERGENCY and rng.random() < 0.4:
            made.append(_verdict(rng.uniform(at, ends), signal, Tier(tier + 1), series))
        made.append(_verdict(ends, signal, Tier.NONE, series))
    return sorted(made, key=lambda verdict: verdict.ts)


def _verdict(ts: float, signal: Signal, tier: Tier, series: Series) -> Verdict:
    families = frozenset({Family.VOLUME, Family.REPETITION})
    return Verdict(ts, signal, tier, series, families, 60.0, 3.0, 20.0)


async def simulate(store: Store, verdicts: list[Verdict], seed: int) -> dict[str, Any]:
    """The day, and what came of it."""
    clock = Clock()
    receivers = Receivers(clock, random.Random(seed), 0.5)
    async with listening(receivers):
        book = IncidentBook(store.documents, clock)
        service = AlertService(settings(receivers.url), store.documents, clock)
        book.subscribe(service.notify)
        waiting = list(reversed(verdicts))
        while True:
            while waiting and waiting[-1].ts <= clock.now:
                book.on_verdict(waiting.pop())
            await book.turn()
            rest = await service.plan_once()
            due = await service.deliver_once()
            step = min(rest, due, waiting[-1].ts - clock.now if waiting else 60.0)
            if not waiting and not await book.store.active() and not await service.outbox.waiting():
                break
            quiet = not await service.outbox.waiting() and rest >= 1.0
            clock.now += max(0.05, min(60.0, waiting[-1].ts - clock.now) if waiting and quiet
                             else (60.0 if quiet else step))  # fmt: skip
            if clock.now > START + 3 * DAY:
                break
        history = await book.store.search(
            lambda _: True, since=START, until=START + 4 * DAY, limit=100_000, scan=100_000
        )
        dead = len(await service.outbox.dead_letters())
        await service.stop()
    return judge(receivers, history, dead)


def judge(receivers: Receivers, history: list[Any], dead: int) -> dict[str, Any]:
    """Count what must hold."""
    told: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for at, _, body in receivers.took["hook"]:
        told[body["incidentId"]].append((at, body["type"], body["severity"]))
    doubled = 0
    for lines in told.values():
        last: dict[tuple[str, str], float] = {}
        for at, kind, severity in lines:
            if kind == "incident.resolved":
                last.clear()
            elif at - last.get((kind, severity), -REPEAT) < REPEAT:
                doubled += 1
            last[kind, severity] = at
    pages, resolves = (
        Counter(b["dedup_key"] for _, _, b in receivers.took["duty"] if b["event_action"] == what)
        for what in ("trigger", "resolve")
    )
    severe = {i.id for i in history if i.worst >= Tier.CRITICAL}
    return {
        "incidents": len(history),
        "delivered": sum(i.id in told for i in history),
        "doubled_within_interval": doubled,
        "severe": len(severe),
        "paged_once": sum(pages[name] == 1 for name in severe),
        "paged_more_than_once": sum(count > 1 for count in pages.values()),
        "pages_resolved": sum(resolves[name] >= 1 for name in pages),
        "resolved": sum(
            lines[-1][1] == "incident.resolved" for lines in told.values()
        ),
        "open_at_the_end": sum(i.active for i in history),
        "dead_letters": dead,
        "tries": receivers.tries,
        "messages": sum(map(len, receivers.took.values())),
    }  # fmt: skip


async def latency(store: Store, count: int) -> list[float]:
    """Seconds from a verdict to its webhook, one after another and in small bursts."""
    receivers = Receivers(time.time, random.Random(1), 0.0)
    waits: list[float] = []
    async with listening(receivers):
        book = IncidentBook(store.documents, time.time, rules=BookRules())
        service = AlertService(settings(receivers.url), store.documents, time.time)
        book.subscribe(service.notify)
        task = asyncio.create_task(book.run())
        await service.start()
        await asyncio.sleep(1.0)
        began: dict[str, float] = {}
        rng = random.Random(2)
        for number in range(count):
            series = Series("agent", f"timed-{number}")
            began[series.value] = time.time()
            book.on_verdict(_verdict(time.time(), Signal.AGENT_LOOP, Tier.CRITICAL, series))
            await asyncio.sleep(rng.choice((0.0, 0.1, 0.4)))
        async with asyncio.timeout(30):
            while len(receivers.took["hook"]) < count:
                await asyncio.sleep(0.05)
        waits = [at - began[body["scope"]["value"]] for at, _, body in receivers.took["hook"]]
        task.cancel()
        await service.stop()
    return sorted(waits)


def through_a_proxy(folder: Path, agents: int) -> list[float]:
    """Seconds from a loop's verdict to its webhook, with a real proxy in front of a real socket."""
    receivers = Receivers(time.time, random.Random(1), 0.0)
    started, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        async with listening(receivers):
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    started.wait(10)
    with Upstream(Recorder()) as upstream:
        config = {
            "upstreams": {"openai": {"base_url": upstream.url}},
            "alerts": raw_settings(receivers.url),
        }
        with running_proxy(folder, config) as proxy:
            for number in range(agents):
                stuck(proxy.port, f"stuck-{number}", receivers)
            opened = {
                one["id"]: one["opened_at"]
                for one in proxy.api("/api/v1/incidents?state=all&limit=1000")["incidents"]
                if one["series"]["value"].startswith("stuck-")
            }
    ended.set()
    thread.join(10)
    first: dict[str, float] = {}
    for at, _, body in receivers.took["hook"]:
        first.setdefault(body["incidentId"], at)
    return sorted(first[name] - at for name, at in opened.items())


def stuck(port: int, agent: str, receivers: Receivers) -> None:
    """Repeat a tool call until the webhook tells of this agent."""
    body = {"model": "gpt-4o-mini", "messages": STUCK}
    headers = {"Authorization": "Bearer sk-x", "Content-Type": "application/json"}
    deadline = time.monotonic() + 60
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while time.monotonic() < deadline:
        link.request("POST", f"/@{agent}/v1/chat/completions", json.dumps(body), headers)
        link.getresponse().read()
        if any(told["scope"]["value"] == agent for _, _, told in receivers.took["hook"]):
            return
        time.sleep(0.01)
    raise TimeoutError(f"no webhook about {agent}")


async def run(args: argparse.Namespace) -> dict[str, Any]:
    """Both parts, each over a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = await Store.open(StoreSettings(timeout_seconds=2.0), Path(folder) / "day")
        began = time.monotonic()
        verdicts = a_days_verdicts(args.incidents, random.Random(args.seed))
        result = await simulate(store, verdicts, args.seed)
        result["simulation_seconds"] = round(time.monotonic() - began, 1)
        await store.stop()
        store = await Store.open(StoreSettings(timeout_seconds=2.0), Path(folder) / "now")
        waits = await latency(store, args.timed)
        await store.stop()
        whole = await asyncio.to_thread(through_a_proxy, Path(folder) / "proxy", args.agents)
    result |= percentiles("webhook", waits) | percentiles("proxy_webhook", whole)
    return result


def percentiles(name: str, waits: list[float]) -> dict[str, float]:
    """Median and p99 of sorted seconds."""
    at = {"p50": len(waits) // 2, "p99": int(len(waits) * 0.99)}
    return {f"{name}_{word}_seconds": round(waits[place], 3) for word, place in at.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--incidents", type=int, default=300)
    parser.add_argument("--timed", type=int, default=200)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    result = asyncio.run(run(args))
    for name, value in result.items():
        print(f"{name:26} {value}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    right = (
        result["delivered"] == result["incidents"]
        and result["doubled_within_interval"] == 0
        and result["paged_once"] == result["severe"]
        and result["paged_more_than_once"] == 0
        and result["open_at_the_end"] == 0
        and result["webhook_p99_seconds"] < 2
        and result["proxy_webhook_p99_seconds"] < 2
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
