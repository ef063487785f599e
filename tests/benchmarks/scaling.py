"""What a fleet asks of its store: measured per piece here, then summed for 1 to 1,000 replicas.

Run as ``python -m tests.benchmarks.scaling [--rate N] [--keys N] [--json FILE]``. The pieces
(store CPU per batch, per series in it, per heartbeat, per announcement and listener; bytes
per series; our own CPU per call) are measured on a real Valkey and the real parts. The fleet
is then simulated: calls fall on keys by a power law, each replica's ticks are drawn, and the
store's share of a core, its queue and the age of a block at each replica follow. What is
simulated is said so; nothing of it was run on a thousand machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from detection.budget import headroom
from detection.engine import Engine
from detection.types import Series
from proxy.clock import Clock
from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.store.counters import Batch, Delta
from proxy.store.scripts import load
from proxy.store.store import Store
from tests.benchmarks.ledger import used_memory
from tests.unit.store.support import Server, observation

REPLICAS = (1, 3, 10, 30, 100, 300, 1000)
#: (store.tick_seconds, store.shards), the cheapest to run first.
CHOICES = [
    (0.1, 1),
    (0.2, 1),
    (0.5, 1),
    (1.0, 1),
    *((t, 2**n) for n in range(1, 9) for t in (0.2, 1.0)),
]
FLEET_BUCKETS = 13
#: Of one store core: above this a queue grows faster than bursts drain.
ROOM = 0.6
LOST_ANNOUNCEMENTS = 0.01
RECONCILE_SECONDS = 1.0
#: How long a replica's loop may keep an announcement waiting, mean.
LOOP_SECONDS = 0.002
BUDGET_USD = 1000.0
CALL_USD, DEAREST_USD = 0.002, 0.25


@dataclass
class Pieces:
    """Microseconds of CPU, and bytes."""

    batch_us: float = 0.0
    series_us: float = 0.0
    heartbeat_us: float = 0.0
    announce_us: float = 0.0
    claim_us: float = 0.0
    busy_series_bytes: float = 0.0
    quiet_series_bytes: float = 0.0
    record_us: float = 0.0
    judge_us: float = 0.0
    judged_series_bytes: float = 0.0


def store_cpu(server: Server) -> float:
    """Seconds of CPU that the store has used."""
    text = server.command("INFO", "cpu").decode()
    found = dict(line.split(":") for line in text.splitlines() if ":" in line)
    return float(found["used_cpu_sys"]) + float(found["used_cpu_user"])


async def batches(store: Store, server: Server, series: int, count: int, name: str) -> float:
    """Store CPU of a batch with so many series, microseconds."""
    now = int(store.clock())
    names = [Series("key", f"key-{n}") for n in range(2000)]
    counts = [2, 150_000, 1800, 240, 600]

    def batch(number: int) -> Batch:
        first = number * series
        rows = tuple(
            Delta.of(names[(first + n) % 2000], now // 10, list(counts)) for n in range(series)
        )
        return Batch(0, name, number, number + 1, rows, fresh=number == 0)

    for number in range(20):
        await store.counters.apply(batch(number), FLEET_BUCKETS)
    before = store_cpu(server)
    for number in range(20, 20 + count):
        await store.counters.apply(batch(number), FLEET_BUCKETS)
    return (store_cpu(server) - before) / count * 1e6


async def bytes_of(store: Store, server: Server, starts: list[int], count: int) -> float:
    """Store bytes of a series that was called at these times."""
    server.command("FLUSHALL", "SYNC")
    before, last = used_memory(server), 0
    for n in range(count):
        rows = tuple(
            Delta.of(Series("key", f"key_{n:012d}"), start // 10, [9, 700_000, 8100, 900, 2700])
            for start in starts
        )
        for part in range(0, len(rows), 500):
            await store.counters.apply(
                Batch(0, "bytes", last, last + 1, rows[part : part + 500], fresh=last == 0)
            )
            last += 1
    return (used_memory(server) - before) / count


async def measure(server: Server, folder: Path) -> Pieces:
    """All pieces."""
    found = Pieces()
    store = await Store.open(server.settings(timeout_seconds=10.0), folder)
    try:
        small = await batches(store, server, 1, 2000, "small")
        large = await batches(store, server, 200, 300, "large")
        found.series_us = (large - small) / 199
        found.batch_us = small - found.series_us
        before = store_cpu(server)
        for _ in range(1000):
            await store.controls.reconcile()
        found.heartbeat_us = (store_cpu(server) - before) / 1000 * 1e6
        before = store_cpu(server)
        for n in range(500):
            store.controls.put("action", f"a{n % 20}", {"n": n})
            await store.controls.flush()
        found.announce_us = (store_cpu(server) - before) / 500 * 1e6
        hold, now_far = load("hold"), store.clock() + 86_400
        before = store_cpu(server)
        for n in range(1000):
            report = orjson.dumps([[10**12, 5, 10**9, 0, now_far, 0, 1, 0, 0, 5]])
            await store.link.run(hold, [f"tw:{{hold0}}:b{n % 50}"], ["r", n + 1, 10, report])
        found.claim_us = (store_cpu(server) - before) / 1000 * 1e6
        now = int(store.clock())
        busy = sorted(
            {now - s for s in range(0, 7200, 10)}
            | {now - s for s in range(0, 48 * 3600, 300)}
            | {now - s for s in range(0, 35 * 86400, 3600)}
        )
        found.busy_series_bytes = await bytes_of(store, server, busy, 60)
        quiet = [now - 3600 * hour for hour in range(3, 20 * 24, 37)]
        found.quiet_series_bytes = await bytes_of(store, server, quiet, 3000)
        calls = [observation(n, now, agent=f"agent-{n % 50}") for n in range(20_000)]
        journal = Journal(folder / "journal", JournalSettings(sync_seconds=0))
        ledger = Ledger(journal, store.counters, Clock())
        started = time.process_time()
        for call in calls:
            ledger.record(call)
        found.record_us = (time.process_time() - started) / len(calls) * 1e6
        journal.close()
    finally:
        await store.stop()
    found.judge_us, found.judged_series_bytes = judging(now)
    return found


def judging(now: float) -> tuple[float, float]:
    """Our CPU per call judged, and bytes per series held by the engine."""
    engine, chance = Engine(), random.Random(3)
    calls = [
        observation(
            n, now + n * 0.05, key=f"key-{chance.randrange(300)}", agent=f"a{chance.randrange(300)}"
        )
        for n in range(40_000)
    ]
    for call in calls[:10_000]:
        engine.observe(call)
    started = time.process_time()
    for call in calls[10_000:]:
        engine.observe(call)
    spent = (time.process_time() - started) / 30_000 * 1e6
    return spent, float(engine.health()["bytes_per_series"])


# -- the fleet ---------------------------------------------------------------------


def power_law(chance: np.random.Generator, size: int, among: int) -> Any:
    """Draws from 0..among-1 where the n-th is called about n^-1.05 as often as the first."""
    uniform, s = chance.random(size), 1.05
    top = float(among) ** (1 - s)
    return ((1 - uniform * (1 - top)) ** (1 / (1 - s))).astype(np.int64)


def share(replicas: int, rate: float) -> float:
    """What a replica sets aside of a fresh budget, by the rule in force, in dollars."""
    asked = headroom(
        per_second=rate * CALL_USD * 1e9,
        largest=int(DEAREST_USD * 1e9),
        remaining=int(BUDGET_USD * 1e9),
        replicas=replicas,
    )
    return round(asked / 1e9, 2)


def touched(calls_a_tick: float, keys: int, chance: np.random.Generator) -> float:
    """How many series a replica's tick adds to, mean."""
    found = []
    for _ in range(20):
        calls = int(chance.poisson(calls_a_tick))
        distinct = len(np.unique(power_law(chance, calls, keys)))
        agents = len(np.unique(power_law(chance, calls, max(1, keys // 10))))
        models = len(np.unique(power_law(chance, calls, 12)))
        # total, provider, endpoint; models; keys and key x model; agents and agent x model
        found.append(3 + models + 2 * distinct + 2 * agents if calls else 0)
    return float(np.mean(found))


def fleet(
    replicas: int, rate: float, keys: int, pieces: Pieces, chance: np.random.Generator
) -> dict[str, Any]:
    """One fleet: what its store bears, and how old a block is where it arrives."""
    series, tick, shards, load, service, sent = 0.0, 0.0, 0, 9.9, 0.0, 0.0
    for tick, shards in CHOICES:
        series = touched(rate * tick, keys, chance)
        # A shard that nothing of a tick falls on is sent nothing.
        sent = (1 - np.exp(-series / shards)) * replicas / tick
        claims = replicas / tick * min(1.0, rate * tick) / shards
        each = pieces.batch_us + series / shards / max(1e-9, 1 - np.exp(-series / shards)) * (
            pieces.series_us
        )
        # Shard 0 also bears the heartbeats and the announcements.
        beats = replicas / RECONCILE_SECONDS * pieces.heartbeat_us
        load = float(sent * each + claims * pieces.claim_us + beats) / 1e6
        service = float(each) / 1e6
        if load <= ROOM:
            break
    waits = chance.exponential(service * load / max(1e-9, 1 - min(load, 0.99)), replicas)
    arrive = waits + chance.exponential(LOOP_SECONDS, replicas) + replicas * 1e-6
    lost = chance.random(replicas) < LOST_ANNOUNCEMENTS
    arrive = np.where(lost, arrive + chance.random(replicas) * RECONCILE_SECONDS, arrive)
    day_keys = len(np.unique(power_law(chance, 2_000_000, keys)))
    active = min(keys, int(day_keys * max(1.0, replicas * rate * 86400 / 2_000_000) ** 0.9))
    return {
        "replicas": replicas,
        "calls_per_second": round(replicas * rate),
        "tick_seconds": tick,
        "shards": shards,
        "batches_per_second": round(sent * shards),
        "series_per_tick": round(series),
        "busiest_shard_core_share": round(load, 3),
        "store_gib_all_shards": round(active * 3 * pieces.quiet_series_bytes / 2**30, 2),
        "block_age_p50_ms": round(float(np.percentile(arrive, 50)) * 1e3, 1),
        "block_age_p99_ms": round(float(np.percentile(arrive, 99)) * 1e3, 1),
        "block_age_worst_ms": round(float(arrive.max()) * 1e3, 1),
        "share_of_1000_usd": share(replicas, rate),
    }


async def main(rate: float, keys: int, target: Path | None) -> None:
    """Measure, simulate, print."""
    server = Server("--appendonly", "no")
    try:
        with tempfile.TemporaryDirectory() as name:
            pieces = await measure(server, Path(name))
    finally:
        server.close()
    print("measured here, microseconds of CPU and bytes:")
    for label, value in asdict(pieces).items():
        print(f"  {label:<22}{value:>10.1f}")
    chance = np.random.default_rng(11)
    rows = [fleet(count, rate, keys, pieces, chance) for count in REPLICAS]
    print(f"\nsimulated, {rate:g} calls a second and replica, {keys:,} keys:")
    print("  " + "  ".join(rows[0]))
    for row in rows:
        print("  " + "  ".join(f"{value:>{len(label)}}" for label, value in row.items()))
    if target is not None:
        target.write_text(json.dumps({"pieces": asdict(pieces), "fleets": rows}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    asyncio.run(main(given.rate, given.keys, given.json))
