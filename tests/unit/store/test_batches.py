"""Batches of many callers: what they add up to, how large they grow, how often they go out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from detection.types import Observation, Series
from proxy import ledger as ledger_module
from proxy.ledger_lane import BATCH_SERIES
from proxy.store.counters import Batch, BatchReply, Delta
from proxy.store.series import Counts, Place
from tests.unit.store.conftest import OpenLedger, OpenStore
from tests.unit.store.support import expected_usage, observation

SHARED, OWN, OTHER = (Series("agent", name) for name in ("shared", "own", "other one"))


async def test_places_that_share_a_series_add_up(open_store: OpenStore) -> None:
    store = await open_store()
    now = int(store.clock()) // 10
    deltas = (
        Delta(Place([SHARED, OWN]), now, [2, 70, 5, 0, 0]),
        Delta(Place([OTHER, SHARED]), now, [1, 30, 0, 4]),
        Delta(Place([SHARED, OWN]), now - 1, [1]),
    )
    reply = await store.counters.apply(Batch(0, "a", 0, 3, deltas, fresh=True), 13)
    assert reply.applied
    rows = {row.value: row.counts for row in await store.usage("agent", "1h")}
    assert rows == {
        "shared": Counts(4, 100, 5, 4),
        "own": Counts(3, 70, 5),
        "other one": Counts(1, 30, 0, 4),
    }
    told = {series: dict(buckets) for series, buckets in reply.fleet}
    assert told[SHARED] == {now: Counts(3, 100, 5, 4), now - 1: Counts(1)}
    assert told[OTHER] == {now: Counts(1, 30, 0, 4)}


async def test_no_batch_holds_the_store_up_for_long(
    open_store: OpenStore, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    ledger = await open_ledger(store)
    sizes: list[int] = []
    apply = store.counters.apply

    async def watched(batch: Batch, fleet_buckets: int = 0) -> BatchReply:
        sizes.append(len({name for delta in batch.deltas for name in delta.place.ids}))
        return await apply(batch, fleet_buckets)

    monkeypatch.setattr(store.counters, "apply", watched)
    calls = [observation(n, store.clock(), agent=f"a{n}", user=f"u{n}") for n in range(3000)]
    for call in calls:
        ledger.record(call)
    assert await ledger.flush(30)
    assert len(sizes) > 5 and max(sizes) <= BATCH_SERIES
    found = {row.value: row.counts for row in await store.usage("user", "1h")}
    assert found == expected_usage(calls, "user")


async def test_known_callers_are_bounded_and_those_forgotten_count_on(
    open_store: OpenStore, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KNOWN_IDENTITIES", 20)
    store = await open_store()
    ledger = await open_ledger(store)
    calls = [observation(n, store.clock(), agent=f"a{n % 70}") for n in range(700)]
    for call in calls:
        ledger.record(call)
    assert await ledger.flush(30)
    assert len(ledger._known) == 20
    assert {r.value: r.counts for r in await store.usage("agent", "1h")} == expected_usage(
        calls, "agent"
    )


async def test_sums_are_told_per_client_and_count_once_in_the_series(
    open_store: OpenStore, open_ledger: OpenLedger
) -> None:
    """Root causes know clients, which are no series: the series' sums must not lose any."""
    store = await open_store()
    ledger = await open_ledger(store)
    told: dict[str | None, int] = {}

    def listen(start: float, sample: Observation, counts: Sequence[int]) -> None:
        assert start == sample.ts // 10 * 10
        told[sample.client] = told.get(sample.client, 0) + counts[0]

    def fail(start: float, sample: Observation, counts: Sequence[int]) -> None:
        raise RuntimeError("a listener of ours fails")

    ledger.on_sums(fail)
    ledger.on_sums(listen)
    calls = [observation(n, store.clock(), agent="a", client=f"c{n % 3}") for n in range(90)]
    for call in calls:
        ledger.record(call)
    ledger.totals()
    assert told == {"c0": 30, "c1": 30, "c2": 30}
    assert ledger.failures["sums"] > 0
    assert await ledger.flush(30)
    assert {r.value: r.counts for r in await store.usage("agent", "1h")} == expected_usage(
        calls, "agent"
    )


@pytest.mark.parametrize(
    ("callers", "replicas", "least", "most"),
    [(1, 1, 0.001, 0.06), (80, 1, 0.08, 0.32), (80, 2, 0.0, 0.0)],
)
async def test_a_lone_replica_waits_for_its_callers_to_call_again(
    open_store: OpenStore,
    open_ledger: OpenLedger,
    callers: int,
    replicas: int,
    least: float,
    most: float,
) -> None:
    store = await open_store()
    ledger = await open_ledger(store)
    ledger._replicas = lambda: replicas
    await ledger.flush(30)
    ledger._gather(0)
    for n in range(160):
        ledger.record(observation(n, store.clock(), agent=f"a{n % callers}"))
    sent = await ledger.tick()
    assert least <= ledger._gather(sent) <= most
    assert ledger._gather(0) == 0.0, "rows count once"
    for n in range(160):
        ledger.record(observation(n, store.clock(), agent=f"a{n % callers}"))
    await ledger.tick()
    assert ledger._gather(ledger_module.STEPS_A_TICK) == 0.0, "more is waiting to be sent"


async def test_a_flood_of_callers_makes_ticks_longer_not_commands_more(
    open_store: OpenStore, open_ledger: OpenLedger
) -> None:
    store = await open_store()
    ledger = await open_ledger(store)
    await ledger.start()
    loop = asyncio.get_running_loop()
    began, before, made = loop.time(), store.link.calls, 0
    while loop.time() - began < 2.0:
        for _ in range(60):
            made += 1
            ledger.record(observation(made, store.clock(), agent=f"a{made}", user=f"u{made}"))
        await asyncio.sleep(0.005)
    asked = store.link.calls - before
    assert asked <= 40 * (loop.time() - began) + ledger_module.STEPS_A_TICK
    assert await ledger.flush(60)
    (row,) = await store.usage("total", "1h")
    assert row.counts.requests == made
