"""Counting into a real store: sums, windows, exactly once."""

from __future__ import annotations

from detection.types import FleetBucket, Series
from proxy.store.series import DAY, FIVE_MINUTES, HOUR, TEN_SECONDS
from tests.unit.store.conftest import OpenLedger, OpenStore
from tests.unit.store.support import TOTAL, Server, calls_at, expected_usage, observation

DIMENSIONS = (
    "total", "provider", "model", "key", "agent", "project", "endpoint", "tag", "user",
    "key_model", "agent_model",
)  # fmt: skip


async def test_usage_equals_what_was_recorded(
    open_store: OpenStore, open_ledger: OpenLedger
) -> None:
    store = await open_store()
    ledger = await open_ledger(store)
    calls = calls_at(store.clock(), 500)
    for call in calls:
        ledger.record(call)
    assert await ledger.flush()
    for by in DIMENSIONS:
        for window in ("1h", "24h", "30d", 300):
            rows = await store.usage(by, window)
            assert {r.value: r.counts for r in rows} == expected_usage(calls, by), (by, window)


async def test_history_has_the_same_sums_at_every_resolution(
    open_store: OpenStore, open_ledger: OpenLedger
) -> None:
    store = await open_store()
    ledger = await open_ledger(store)
    now = store.clock()
    calls = calls_at(now, 50)
    for call in calls:
        ledger.record(call)
    assert await ledger.flush()
    series = Series("agent", "agent-1")
    wanted = expected_usage(calls, "agent")["agent-1"]
    for resolution in (TEN_SECONDS, FIVE_MINUTES, HOUR, DAY):
        rows = await store.history(series, resolution, now - 600, now + 1)
        assert rows
        total = rows[0][1]
        for _, counts in rows[1:]:
            total = total.plus(counts)
        assert total == wanted


async def test_two_replicas_hear_of_each_other(
    open_store: OpenStore, open_ledger: OpenLedger
) -> None:
    store, other_store = await open_store("a"), await open_store("b")
    ours, theirs = await open_ledger(store, "a"), await open_ledger(other_store, "b")
    now = store.clock()
    heard: dict[Series, dict[int, FleetBucket]] = {}
    ours.on_fleet(lambda s, b: heard.setdefault(s, {}).update({x.bucket: x for x in b}))
    for n in range(7):
        theirs.record(observation(n, now, agent="looper"))
    assert await theirs.flush()
    for n in range(3):
        ours.record(observation(n, now, agent="looper"))
    assert await ours.flush()
    buckets = heard[Series("agent", "looper")]
    assert sum(b.requests for b in buckets.values()) == 7
    assert sum(b.tokens for b in buckets.values()) == sum(110 + 2 * n for n in range(7))
    rows = await store.usage("agent", "1h")
    assert [(r.value, r.counts.requests) for r in rows] == [("looper", 10)]


async def test_a_restart_counts_nothing_twice_and_loses_nothing(
    open_store: OpenStore, open_ledger: OpenLedger
) -> None:
    store = await open_store()
    ledger = await open_ledger(store)
    calls = calls_at(store.clock(), 60)
    for call in calls[:20]:
        ledger.record(call)
    assert await ledger.flush()
    for call in calls[20:40]:
        ledger.record(call)
    ledger.journal.close()
    again = await open_ledger(store)
    for call in calls[40:]:
        again.record(call)
    assert await again.flush()
    rows = await store.usage("key", "1h")
    assert {r.value: r.counts for r in rows} == expected_usage(calls, "key")


async def test_an_emptied_store_is_filled_again_from_the_journal(
    open_store: OpenStore, open_ledger: OpenLedger, server: Server
) -> None:
    store = await open_store()
    ledger = await open_ledger(store)
    calls = calls_at(store.clock(), 90)
    for call in calls[:80]:
        ledger.record(call)
    assert await ledger.flush()
    server.command("FLUSHALL")
    for call in calls[80:]:
        ledger.record(call)
    await ledger.tick()
    assert await ledger.flush()
    rows = await store.usage("total", "1h")
    assert [r.counts for r in rows] == [expected_usage(calls, "total")[""]]
    assert ledger.health()["rewinds"] == 1


async def test_refused_calls_are_a_column_of_their_own(
    open_store: OpenStore, open_ledger: OpenLedger
) -> None:
    store = await open_store()
    ledger = await open_ledger(store)
    now = store.clock()
    ledger.record(observation(1, now))
    ledger.record(observation(1, now, action="block", status=429))
    assert await ledger.flush()
    (row,) = await store.usage("total", "1h")
    assert (row.counts.requests, row.counts.refused, row.counts.errors) == (1, 1, 0)
    assert TOTAL == ("total", "")


async def test_values_beyond_the_bound_count_as_other(
    open_store: OpenStore, open_ledger: OpenLedger
) -> None:
    store = await open_store(max_series_per_dimension=100)
    ledger = await open_ledger(store)
    now = store.clock()
    for n in range(130):
        ledger.record(observation(0, now, agent=f"a{n}"))
    assert await ledger.flush()
    rows = {r.value: r.counts.requests for r in await store.usage("agent", "1h")}
    assert rows["other"] == 30 and len(rows) == 101
