"""Sums kept in memory are those of the store, whatever was counted, when, and by whom."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from detection.types import Series
from proxy.admin import rollup, rollups
from proxy.admin.rollups import WARM, WINDOWS, Rollups
from proxy.admin.sums import Sums
from proxy.store.cells import unpack_counts
from proxy.store.counters import Delta
from proxy.store.embedded import find_binary
from proxy.store.series import WIDTH
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.chaos.topologies import Spread
from tests.unit.admin.past import Filler
from tests.unit.store.support import until

DAY = 86_400


@pytest.fixture(params=(1, 3))
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    settings = StoreSettings(timeout_seconds=5.0, query_timeout_seconds=30.0, shards=request.param)
    opened = await Store.open(settings, tmp_path / "store-data")
    yield opened
    await opened.stop()


class Clock:
    """The store's time, some of it ahead; it stands still while answers are compared."""

    def __init__(self, store: Store) -> None:
        self._clock = store.clock
        self.ahead = 0.0
        self.stands: float | None = None

    def __call__(self) -> float:
        return self._clock() + self.ahead if self.stands is None else self.stands


def some(dice: random.Random, ages: list[float], now: float, count: int) -> list[Delta]:
    found = []
    for _ in range(count):
        at = now - dice.choice(ages) * dice.random()
        counts = [
            dice.choice((0, 1, 200, 70_000, 5_000_000_000)) for _ in range(dice.randint(1, 9))
        ]
        found.append(
            Delta.of(Series("agent", f"agent {dice.randrange(40)}"), int(at // 10), counts)
        )
    return found


async def agree(store: Store, held: Rollups, clock: Clock) -> None:
    """The rollups and the store's own sums, for every window and its double."""
    for seconds in (*WINDOWS.values(), 2 * 3600, 2 * DAY, 60 * DAY, 12_345):
        clock.stands = clock()
        sums = await held.sums("agent", seconds)
        wanted = await store.counters.usage("agent", seconds, now=clock())
        assert sums is not None
        found = [row for row in wanted if any(row.counts)]
        assert sums.rows() == found, seconds
        middle = sorted(row.counts.cost_nano_usd for row in found)
        assert sums.median_cost_nano_usd() == (middle[len(middle) // 2] if middle else None)
        for place, row in enumerate(found[:3]):
            assert sums.of_value(row.value) == row.counts
            assert sums.places[row.value] == place
        clock.stands = None


async def test_sums_are_the_stores_after_every_kind_of_change(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "_PAGE", 7)
    # However much has changed: as fresh as can be.
    monkeypatch.setattr(rollups, "_CHEAP_CALLS", 10_000)
    clock, dice, filler = Clock(store), random.Random(5), Filler(store)
    held = Rollups(store.counters, clock)
    await agree(store, held, clock)
    long_ago = [3600.0, DAY, 7 * DAY, 34 * DAY, 170 * DAY]
    await filler.send(some(dice, long_ago, clock(), 400))
    await agree(store, held, clock)
    # What happens now, to those who are known and to others.
    await filler.send(some(dice, [30.0], clock(), 30))
    await agree(store, held, clock)
    await filler.send([Delta.of(Series("agent", "new"), int(clock() // 10), [1, 2, 3])])
    await agree(store, held, clock)
    # What comes late, of known series, and of one that nobody saw before.
    await filler.send(some(dice, long_ago, clock(), 60))
    await agree(store, held, clock)
    past = int((clock() - 3 * DAY) // 10)
    await filler.send([Delta.of(Series("agent", "from an import"), past, [1, 2])])
    await agree(store, held, clock)
    # Nothing is left of what is forgotten.
    assert await store.counters.forget(Series("agent", "from an import"))
    await agree(store, held, clock)
    sums = await held.sums("agent", 7 * DAY)
    assert sums is not None and "from an import" not in sums.places
    # Time goes on: buckets leave the windows, others end.
    for ahead in (70.0, 400.0, 3700.0, 26 * 3600.0):
        clock.ahead = ahead
        await agree(store, held, clock)


@pytest.mark.slow
async def test_sums_are_those_of_a_cluster(tmp_path: Path) -> None:
    with Spread(find_binary()) as cluster:
        settings = StoreSettings(url=cluster.url, timeout_seconds=5.0, query_timeout_seconds=30.0)
        store = await Store.open(settings, tmp_path)
        try:
            clock, dice, filler = Clock(store), random.Random(6), Filler(store)
            held = Rollups(store.counters, clock)
            await filler.send(some(dice, [3600.0, DAY, 34 * DAY], clock(), 200))
            await agree(store, held, clock)
            await filler.send(some(dice, [30.0, DAY], clock(), 60))
            await agree(store, held, clock)
        finally:
            await store.stop()


async def test_an_emptied_store_is_seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "_CHEAP_CALLS", 10_000)
    clock, filler = Clock(store), Filler(store)
    held = Rollups(store.counters, clock)
    await filler.send(some(random.Random(1), [DAY], clock(), 100))
    await agree(store, held, clock)
    await store.counters._link.command("FLUSHALL")
    await agree(store, held, clock)


async def test_it_reads_ahead_while_somebody_asks_and_lets_go_after(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "_WARM_SECONDS", 0.01)
    monkeypatch.setattr(rollups, "_IDLE_SECONDS", 0.5)
    clock = Clock(store)
    await Filler(store).send(some(random.Random(4), [DAY], clock(), 50))
    held = Rollups(store.counters, clock)
    ahead = asyncio.create_task(held.run())
    try:
        await asyncio.sleep(0)
        assert not held._parts, "nobody has come yet"
        held.expect()
        await until(lambda: held._parts.keys() >= set(WARM), timeout=30)
        monkeypatch.setattr(rollups, "_IDLE_SECONDS", 0.0)
        await until(lambda: not held._parts, timeout=30)
        monkeypatch.setattr(rollups, "_IDLE_SECONDS", 60.0)
        await agree(store, held, clock)
        assert "agent" in held._parts
    finally:
        ahead.cancel()


async def test_more_series_than_memory_takes_are_left_to_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "_MOST_SERIES", 5)
    clock = Clock(store)
    await Filler(store).send(some(random.Random(2), [DAY], clock(), 100))
    held = Rollups(store.counters, clock)
    assert await held.sums("agent", DAY) is None
    assert await held.sums("model", DAY) is not None


async def test_a_slow_reading_is_renewed_behind_the_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "_CHEAP_CALLS", -1)
    clock, filler = Clock(store), Filler(store)
    held = Rollups(store.counters, clock)
    bucket = int(clock() // 10)
    await filler.send([Delta.of(Series("agent", "a"), bucket, [1])])
    first = await held.sums("agent", 3600)
    await held._read_behind("agent")  # the buckets of the next minute too
    held._parts["agent"][0].took_seconds = 0.1  # however slow this machine is
    await filler.send([Delta.of(Series("agent", "a"), bucket, [1])])
    clock.ahead = 20.0
    stale = await held.sums("agent", 3600)
    await held._behind["agent"]
    fresh = await held.sums("agent", 3600)
    assert first is not None and stale is not None and fresh is not None
    assert [s.counts(0).requests for s in (first, stale, fresh)] == [1, 1, 2]
    clock.ahead = 20.0 + rollups.USEFUL_SECONDS + 1
    await filler.send([Delta.of(Series("agent", "a"), bucket, [1])])
    waited_for = await held.sums("agent", 3600)
    assert waited_for is not None and waited_for.counts(0).requests == 3


def test_the_rest_of_several_shards_is_one() -> None:
    parts = [
        Sums(["b", "other"], np.array([[1, 2]] * WIDTH)),
        Sums(["other", "a"], np.array([[3, 4]] * WIDTH)),
    ]
    found = Sums.together(parts)
    assert [(row.value, row.counts.requests) for row in found.rows()] == [
        ("other", 5),
        ("a", 4),
        ("b", 1),
    ]
    assert found.only(lambda value: value != "a").values == ["other", "b"]
    assert len(Sums.together([Sums([], np.zeros((WIDTH, 0), np.int64))] * 2)) == 0


async def test_counts_are_unpacked_as_the_store_packs_them(store: Store) -> None:
    dice = random.Random(3)
    edges = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53, -1, -32, -33, -129]
    edges += [-40_000, -(2**31) - 1]
    rows = [[dice.choice(edges) for _ in range(dice.randint(0, 12))] for _ in range(500)]
    rows[7] = [1, 2**70, 3]  # more than the store's own integers hold: a float
    pack = "return cmsgpack.pack(cjson.decode(ARGV[1]))"
    packed = [await store.counters._link.command("EVAL", pack, 0, json.dumps(row)) for row in rows]
    found = unpack_counts(b"".join(packed), np.array([len(p) for p in packed])).tolist()
    assert (found[7][0], found[7][2]) == (1, 3)
    del found[7], rows[7]
    assert found == [(row + [0] * WIDTH)[:WIDTH] for row in rows]
    assert unpack_counts(b"", np.zeros(0, np.int64)).shape == (0, WIDTH)
