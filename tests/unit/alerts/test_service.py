"""From verdict to delivered message, over a real store and real endpoints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from detection.contrib import Recorder
from detection.types import TOTAL, Observation, Series, Signal, Tier
from proxy.alerts.service import AlertService
from proxy.alerts.settings import AlertsSettings
from proxy.alerts.silences import new_silence
from proxy.incidents import BookRules, IncidentBook
from proxy.incidents_life import LifeRules
from proxy.store.documents import Documents
from proxy.store.store import Store
from tests.recording import record
from tests.unit.alerts.rig import Endpoint, answer, endpoint, verdict
from tests.unit.alerts.test_book import until

LOOPBACK = ["127.0.0.0/8"]
OUTBOX = {"first_wait_seconds": 0.02, "longest_wait_seconds": 0.1, "attempts": 4}


def settings(receivers: list[dict[str, Any]], route: dict[str, Any], **more: Any) -> AlertsSettings:
    """The section as from YAML, quick enough for a test."""
    return AlertsSettings.model_validate(
        {
            "external_url": "https://weir.example.test",
            "receivers": receivers,
            "route": {"group_wait_seconds": 0.05, **route},
            "allow_addresses": LOOPBACK,
            "outbox": OUTBOX,
            **more,
        }
    )


def webhook(here: Endpoint, name: str = "hook") -> dict[str, Any]:
    return {"name": name, "type": "webhook", "url": f"{here.url}/{name}"}


def pagerduty(here: Endpoint, name: str = "duty") -> dict[str, Any]:
    return {"name": name, "type": "pagerduty", "routing_key": "k" * 32, "url": f"{here.url}/{name}"}


@asynccontextmanager
async def replica(
    store: Store, alerts: AlertsSettings, recorder: Recorder | None = None
) -> AsyncIterator[tuple[IncidentBook, AlertService]]:
    """A book and an alert service of one replica, wired as in the app."""
    documents = Documents(store.link, store.settings)
    rules = BookRules(life=LifeRules(quiet=0.1), poll=0.05)
    book = IncidentBook(documents, time.time, recorder=recorder, rules=rules)

    async def noted(fingerprint: str, receiver: str, kind: str) -> None:
        await book.note(fingerprint, "notified", f"{receiver}: {kind}")

    service = AlertService(alerts, documents, time.time, delivered=noted)
    book.subscribe(service.notify)
    task = asyncio.create_task(book.run())
    await service.start()
    try:
        yield book, service
    finally:
        task.cancel()
        await service.stop()


def fired(here: Endpoint, name: str = "hook") -> list[Any]:
    """What a receiver got, read."""
    return [seen.json() for seen in here.seen if seen.path == f"/{name}"]


def now_verdict(**more: Any) -> Any:
    return verdict(ts=time.time(), **more)


async def test_an_incident_is_told_once_and_resolved(store: Store) -> None:
    async with endpoint() as here:
        alerts = settings([webhook(here)], {"receiver": "hook"})
        async with replica(store, alerts) as (book, service):
            book.on_verdict(now_verdict())
            await until(lambda: fired(here))
            for _ in range(3):
                book.on_verdict(now_verdict())
            await asyncio.sleep(0.3)
            assert len(here.seen) == 1
            book.on_verdict(now_verdict(tier=Tier.NONE))
            await until(lambda: len(here.seen) == 2)
            await until(lambda: service.outbox.delivered == 2)
            incident = (await book.store.closed_since(0))[0]
    kinds = [body["type"] for body in fired(here)]
    assert kinds == ["incident.firing", "incident.resolved"]
    body = fired(here)[0]
    for name in (
        "type", "projectId", "signal", "scope", "agentId", "agentName", "severity",
        "observedValue", "baselineValue", "details", "detectedAt",
    ):  # fmt: skip
        assert name in body
    assert {"windowMinutes", "mean", "stddev"} <= body["details"].keys()
    notified = [line["text"] for line in incident.timeline if line["kind"] == "notified"]
    assert notified[0] == "hook: firing"


async def test_another_replica_takes_over_and_tells_nothing_twice(store: Store) -> None:
    async with endpoint() as here:
        alerts = settings([webhook(here)], {"receiver": "hook"})
        async with AsyncExitStack() as stack:
            book, first = await stack.enter_async_context(replica(store, alerts))
            book.on_verdict(now_verdict())
            await until(lambda: first.outbox.delivered == 1)
        # Whoever stops lets go, so that the next leads long before the lease would have ended.
        async with replica(store, alerts) as (book, second):
            await until(lambda: second.leading)
            await asyncio.sleep(0.3)
            assert len(here.seen) == 1
            book.on_verdict(now_verdict(tier=Tier.EMERGENCY))
            await until(lambda: len(here.seen) == 2)
            assert fired(here)[1]["severity"] == "emergency"
            book.on_verdict(now_verdict(tier=Tier.NONE))
            await until(lambda: len(here.seen) == 3)


async def test_one_page_per_incident_whoever_else_hears_of_it(store: Store) -> None:
    async with endpoint() as here:
        alerts = settings(
            [pagerduty(here), pagerduty(here, "second"), webhook(here)],
            {
                "receiver": "hook",
                "routes": [
                    {"receiver": "duty", "min_tier": "critical", "continue": True},
                    {"receiver": "second", "min_tier": "critical", "continue": True},
                    {"receiver": "hook"},
                ],
            },
        )
        async with replica(store, alerts) as (book, _):
            for tier in (Tier.WARNING, Tier.CRITICAL, Tier.EMERGENCY):
                book.on_verdict(now_verdict(tier=tier))
                await until(lambda t=tier: fired(here) and fired(here)[-1]["severity"] == t.label)
            await until(lambda: fired(here, "duty"))
            active = (await book.store.active())[0]
            await book.acknowledge(active.id, "ana")
            await until(lambda: len(fired(here, "duty")) == 2)
            await book.resolve(active.id, "ana", "stopped the agent", "endless retry")
            await until(lambda: len(fired(here, "duty")) == 3)
    assert [e["event_action"] for e in fired(here, "duty")] == ["trigger", "acknowledge", "resolve"]
    assert {e["dedup_key"] for e in fired(here, "duty")} == {active.id}
    assert fired(here, "second") == []


async def test_a_failed_page_goes_to_the_next_and_can_be_replayed(store: Store) -> None:
    async with endpoint() as dead, endpoint() as here:
        dead.respond = answer(400, "invalid routing key")
        alerts = settings(
            [pagerduty(dead), pagerduty(here, "second")],
            {
                "receiver": "second",
                "routes": [{"receiver": "duty", "continue": True}, {"receiver": "second"}],
            },
        )
        async with replica(store, alerts) as (book, service):
            book.on_verdict(now_verdict())
            await until(lambda: fired(here, "second"))
            assert len(dead.seen) == 1
            letters = await service.outbox.dead_letters()
            assert [letter.reason for letter in letters] == ["client_error"]
            dead.respond = None
            assert await service.outbox.replay(letters[0].message.id)
            await until(lambda: len(dead.seen) == 2)


async def test_failures_are_tried_again_in_order_then_given_up(store: Store) -> None:
    async with endpoint() as here:
        here.respond = answer(503)
        alerts = settings([webhook(here)], {"receiver": "hook"})
        async with replica(store, alerts) as (book, service):
            book.on_verdict(now_verdict())
            await until(lambda: len(here.seen) >= 2)
            here.respond = None
            book.on_verdict(now_verdict(tier=Tier.NONE))
            await until(lambda: service.outbox.delivered == 2)
            got = [(s.json()["type"], s.headers["webhook-id"]) for s in here.seen]
            here.respond = answer(503)
            book.on_verdict(now_verdict(series=Series("key", "key_2")))
            await until(lambda: service.outbox.dead == 1)
            assert (await service.outbox.dead_letters())[0].attempts == OUTBOX["attempts"]
    assert len({mark for kind, mark in got if kind == "incident.firing"}) == 1
    assert got[-1][0] == "incident.resolved"


async def test_silenced_and_learning_stay_recorded_and_unsent(store: Store) -> None:
    async with endpoint() as here:
        alerts = settings([webhook(here)], {"receiver": "hook"})
        async with replica(store, alerts) as (book, service):
            now = time.time()
            await service.silences.add(
                new_silence(
                    "silence", ('agent="support-triage"',), starts_at=now - 1, ends_at=now + 60
                )
            )
            book.on_verdict(now_verdict())
            book.on_verdict(
                now_verdict(
                    signal=Signal.SPEND_SPIKE,
                    series=Series("key", "key_1"),
                    learning=True,
                )
            )
            book.on_verdict(now_verdict(series=Series("agent", "other")))
            await until(lambda: fired(here))
            await asyncio.sleep(0.3)
            assert [body["agentId"] for body in fired(here)] == ["other"]
            assert sorted(service.muted.values()) == ["learning", "silenced"]
            assert len(await book.store.active()) == 3


async def test_the_total_keeps_still_beside_the_key_that_explains_it(store: Store) -> None:
    recorder = Recorder()
    now = int(time.time())
    for second in range(now - 1_200, now):
        for key, calls in (("key_1", 20 if second >= now - 90 else 1), ("key_2", 1)):
            for _ in range(calls):
                record(
                    recorder,
                    Observation(ts=second, id="", key=key, model="gpt", cost_nano_usd=10**6),
                )
    async with endpoint() as here:
        alerts = settings([webhook(here)], {"receiver": "hook", "group_wait_seconds": 0.3})
        async with replica(store, alerts, recorder) as (book, service):
            for series in (TOTAL, Series("key", "key_1")):
                book.on_verdict(now_verdict(signal=Signal.SPEND_SPIKE, series=series))
            await until(lambda: fired(here))
            await asyncio.sleep(0.3)
            assert list(service.muted.values()) == ["inhibited"]
    assert [body["scope"] for body in fired(here)] == [{"dimension": "key", "value": "key_1"}]
