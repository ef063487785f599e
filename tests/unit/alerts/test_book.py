"""Incidents kept by a real store, seen by several replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from detection.contrib import Recorder
from detection.types import Action, ActionKind, Observation, Series, Tier
from proxy.incidents import BookRules, IncidentBook
from proxy.incidents_life import LifeRules
from proxy.incidents_model import EventKind, IncidentEvent, State
from proxy.store.documents import Documents
from proxy.store.store import Store
from tests.recording import record
from tests.unit.alerts.rig import NOW, verdict


class Clock:
    """Epoch seconds that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(
    store: Store, clock: Clock, recorder: Recorder | None = None, **rules: float
) -> AsyncIterator[tuple[IncidentBook, list[IncidentEvent]]]:
    """A book of a replica of its own, at work."""
    documents = Documents(store.link, store.settings)
    book = IncidentBook(
        documents, clock, recorder=recorder, rules=BookRules(life=LifeRules(**rules), poll=0.02)
    )
    events: list[IncidentEvent] = []
    book.subscribe(events.append)
    task = asyncio.create_task(book.run())
    try:
        yield book, events
    finally:
        task.cancel()


async def until(test: object, seconds: float = 5.0) -> None:
    """Wait for something to come true."""
    async with asyncio.timeout(seconds):
        while not test():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_replicas_that_see_the_same_trouble_make_one_incident(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as (one, heard), running(store, clock) as (two, also):
        for book in (one, two, one, two):
            book.on_verdict(verdict(tier=Tier.WARNING))
        two.on_verdict(verdict(tier=Tier.EMERGENCY))
        await until(lambda: any(e.incident.worst == Tier.EMERGENCY for e in heard))
        await until(lambda: any(e.incident.worst == Tier.EMERGENCY for e in also))
        active = await one.store.active()
    assert len(active) == 1
    assert active[0].state == State.ESCALATED
    assert {event.incident.id for event in heard + also} == {active[0].id}


async def test_the_root_cause_is_told_and_grows(store: Store) -> None:
    clock = Clock()
    recorder = Recorder()
    for second in range(-1_800, 0):
        for _ in range(20 if second >= -100 else 1):
            record(
                recorder,
                Observation(
                    ts=NOW + second,
                    id="",
                    key="key_1",
                    agent="support-triage",
                    model="gpt",
                    project="helpdesk",
                    status=200,
                    input_tokens=1_000,
                    cost_nano_usd=1_000_000,
                ),
            )
    async with running(store, clock, recorder) as (book, events):
        book.on_verdict(verdict(detail={"strong": True}))
        await until(lambda: events)
        first = events[0].incident
        assert first.story.startswith("agent support-triage repeats the same tool call; calls 2")
        assert abs(first.since - (NOW - 100)) <= 10
        assert first.projects == ("helpdesk",)
        assert first.cost_nano_usd == 2_000_000_000
        clock.now += 61
        record(
            recorder,
            Observation(ts=clock.now - 1, id="", agent="support-triage", cost_nano_usd=10**9),
        )
        await until(lambda: len(events) > 1)
        assert events[-1].incident.cost_nano_usd > first.cost_nano_usd


async def test_people_decide_and_the_engine_learns_everywhere(store: Store) -> None:
    clock = Clock()
    taught: list[str] = []
    async with running(store, clock) as (one, _), running(store, clock) as (two, also):
        two.on_dismissed(lambda incident: taught.append(incident.fingerprint))
        one.on_verdict(verdict())
        await until(lambda: also)
        incident = also[0].incident
        assert (await two.acknowledge(incident.id, "ana")).acknowledged_by == "ana"
        assert (await one.dismiss(incident.id, "ben", "nightly job", "cron")).root_cause == "cron"
        await until(lambda: taught)
        one.on_verdict(verdict())
        await until(lambda: not one.pending)
        assert await one.store.active() == []
        one.on_verdict(verdict(tier=Tier.EMERGENCY))
        await until(lambda: also[-1].kind == EventKind.REOPENED)
    assert taught == [incident.fingerprint]
    assert also[-1].incident.reopened == 1


async def test_quiet_resolves_unless_an_action_holds(store: Store) -> None:
    clock = Clock()
    async with running(store, clock, quiet=60) as (book, events):
        book.on_verdict(verdict())
        book.on_action(
            Action(
                "a1",
                ActionKind.BLOCK,
                Series("key", "key_1"),
                NOW,
                NOW + 300,
                incident=verdict().fingerprint,
            )
        )
        book.on_verdict(verdict(tier=Tier.NONE))
        await until(lambda: events and not events[-1].incident.live)
        clock.now += 120
        await asyncio.sleep(0.1)
        assert len(await book.store.active()) == 1
        clock.now += 300
        await until(lambda: events[-1].kind == EventKind.RESOLVED)
        kinds = [line["kind"] for line in events[-1].incident.timeline]
        assert kinds == ["opened", "action", "signal over", "resolved"]
        clock.now += 60
        book.on_verdict(verdict())
        await until(lambda: events[-1].kind == EventKind.REOPENED)


async def test_history_is_found_again(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as (book, events):
        for number in range(5):
            clock.now += 10
            book.on_verdict(verdict(series=Series("key", f"key_{number}"), ts=clock.now))
            await until(lambda n=number: len(events) == n + 1)
        found = await book.store.search(
            lambda i: i.series.value != "key_3", since=NOW, until=NOW + 100, limit=3
        )
    assert [i.series.value for i in found] == ["key_4", "key_2", "key_1"]


async def test_nothing_is_lost_while_the_store_is_away(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as (book, events):
        real = book.store._documents
        book.store._documents = Documents(_gone(store), store.settings)
        book.on_verdict(verdict())
        await until(lambda: book.retries >= 1)
        assert book.pending == 1
        book.store._documents = real
        await until(lambda: events)
    assert events[0].kind == EventKind.OPENED


def _gone(store: Store):
    """A link to a port where no store listens."""
    from proxy.store.connection import Connection

    return Connection(store.settings, "redis://127.0.0.1:1/0", monotonic=store.clock.monotonic)
