"""What the alert tests share: incidents made by the real steps, and a real HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from detection.contrib import Recorder
from detection.explain import explain
from detection.types import Family, Observation, Series, Signal, Tier, Verdict
from proxy import incidents_life as life
from proxy.alerts.message import Attachment, Message, card_of
from proxy.alerts.net import Net
from proxy.incidents_cause import Cause, with_cause
from proxy.incidents_model import Incident, State
from tests.recording import record

NOW = 1_800_000_000.0
URL = "https://weir.example.test"

#: Text that turns into a mention, markup, a header or a terminal code where it isn't escaped.
EVIL = (
    "bot <!channel> @everyone <img src=x onerror=alert(1)> *b* [x](http://evil.test)"
    "\r\nBcc: a@b\x1b[31m"
)

AGENT = Series("agent", "support-triage")


def verdict(
    signal: Signal = Signal.AGENT_LOOP,
    tier: Tier = Tier.CRITICAL,
    series: Series = AGENT,
    ts: float = NOW,
    **more: Any,
) -> Verdict:
    """A verdict with believable figures."""
    facts = {"observed": 60.0, "baseline": 3.0, "ratio": 20.0, "window_seconds": 60.0}
    return Verdict(
        ts, signal, tier, series, frozenset({Family.VOLUME, Family.REPETITION}), **{**facts, **more}
    )


def incident(
    series: Series = AGENT,
    tier: Tier = Tier.CRITICAL,
    signal: Signal = Signal.AGENT_LOOP,
    now: float = NOW,
    **changes: Any,
) -> Incident:
    """An opened incident, explained from calls that really grew twentyfold."""
    step = life.on_verdict(
        None, verdict(signal, tier, series, ts=now, detail={"stddev": 1.5}), now, life.LifeRules()
    )
    assert step is not None
    made = step[0]
    recorder = Recorder()
    agent = series.value if series.dimension == "agent" else "support-triage"
    key = series.value if series.dimension == "key" else "key_0123456789ab"
    for second in range(-1_800, 0):
        for _ in range(20 if second >= -120 else 1):
            record(
                recorder,
                Observation(
                    ts=now + second, id="", key=key, agent=agent, model="gpt-5-mini",
                    endpoint="responses", project="helpdesk", client="net_1", status=200,
                    input_tokens=1_000, output_tokens=100, cost_nano_usd=450_000,
                )
            )  # fmt: skip
    told = explain(list(recorder.snapshot().cells(series)), now=now, series=series)
    assert told is not None
    made = with_cause(made, Cause(told, None), now)
    return replace(made, **changes) if changes else made


def message(
    *incidents: Incident, kind: str = "firing", receiver: str = "r", page: bool = False, **more: Any
) -> Message:
    """A message about incidents, as the plan makes them."""
    held = incidents or (incident(),)
    if kind == "resolved":
        held = tuple(
            replace(i, state=State.RESOLVED, closed_at=NOW + 600, resolution="went quiet")
            for i in held
        )
    cards = tuple(card_of(one, URL) for one in held)
    defaults: dict[str, Any] = {"lane": "lane1", "title": cards[0].title if cards else "Report"}
    return Message(
        id="msg_1", receiver=receiver, kind=kind, cards=cards, created_at=NOW, page=page,
        **{**defaults, **more},
    )  # fmt: skip


REPORT = Attachment("report.html", "text/html", "PGgxPlJlcG9ydDwvaDE+")

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """A request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass
class Endpoint:
    """A real server on loopback that keeps what arrives and answers as told."""

    url: str
    seen: list[Seen] = field(default_factory=list)
    respond: Respond | None = None


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    """Run one."""
    app = web.Application()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    here = Endpoint("")

    async def handle(request: web.Request) -> web.StreamResponse:
        here.seen.append(Seen(request.path, dict(request.headers), await request.read()))
        if here.respond is not None:
            return await here.respond(request)
        return web.json_response({"ok": True, "ts": "171.001", "status": "success"}, status=200)

    app.router.add_route("*", "/{tail:.*}", handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    here.url = f"http://127.0.0.1:{port}"
    try:
        yield here
    finally:
        await runner.cleanup()


def answer(status: int, text: str = "", **headers: str) -> Respond:
    """Always this answer."""

    async def respond(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=text, headers=named)

    return respond


async def endless(request: web.Request) -> web.StreamResponse:
    """A body that never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 65_536)
    except ConnectionError:
        return response


async def hanging(_: web.Request) -> web.StreamResponse:
    """Never an answer."""
    await asyncio.sleep(30)
    return web.Response()


@asynccontextmanager
async def network(**settings: Any) -> AsyncIterator[Net]:
    """A guarded way out that may reach loopback unless told otherwise."""
    net = Net(**{"allowed": ("127.0.0.0/8", "::1/128"), "now": lambda: NOW, **settings})
    try:
        yield net
    finally:
        await net.close()
