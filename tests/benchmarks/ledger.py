"""What counting costs: per record in this process, per batch in the store, bytes per series.

Run as ``python -m tests.benchmarks.ledger [--json FILE]``. Measures here and
now; the shares (journal, sums, batch) matter more than the absolute numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from detection.types import Series
from proxy.clock import Clock
from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.observation_json import Encoder
from proxy.store.counters import Batch, Delta
from proxy.store.store import Store
from tests.unit.store.support import Server, observation

RECORDS = 50_000
SERIES = 1_000
DAY = 86_400


def per_record(work: Any, count: int) -> float:
    """Microseconds of CPU per call of ``work(n)``."""
    started = time.process_time()
    for n in range(count):
        work(n)
    return (time.process_time() - started) / count * 1e6


async def measure_records(store: Store, folder: Path, identities: int) -> dict[str, float]:
    """Journal, sums and the whole of ``Ledger.record`` with the ticks that follow."""
    clock = Clock()
    now = clock()
    calls = [
        observation(n, now, agent=f"agent-{n % identities}", id=f"call-{n:020d}")
        for n in range(RECORDS)
    ]
    settings = JournalSettings(sync_seconds=0)
    journal = Journal(folder / f"j{identities}", settings)
    encode = Encoder()
    encoding = per_record(lambda n: encode(calls[n]), RECORDS)
    journaling = per_record(lambda n: journal.append(calls[n]), RECORDS)
    journal.close()
    journal = Journal(folder / f"l{identities}", settings)
    ledger = Ledger(journal, store.counters, clock)
    recording, ticks = 0.0, []
    sent_before = store.link.calls
    started = time.process_time()
    for start in range(0, RECORDS, 1_000):
        began = time.process_time()
        for call in calls[start : start + 1_000]:
            ledger.record(call)
        recording += time.process_time() - began
        began = time.perf_counter()
        await ledger.tick()
        ticks.append(time.perf_counter() - began)
    whole = time.process_time() - started
    settled = await ledger.flush(30)
    journal.close()
    return {
        "identities": identities,
        "encode_us": round(encoding, 2),
        "journal_us": round(journaling, 2),
        "record_us": round(recording / RECORDS * 1e6, 2),
        "with_ticks_us": round(whole / RECORDS * 1e6, 2),
        "tick_ms_median": round(statistics.median(ticks) * 1e3, 2),
        "tick_ms_worst": round(max(ticks) * 1e3, 2),
        "store_commands_per_tick": round((store.link.calls - sent_before) / len(ticks), 2),
        "settled": float(settled),
    }


async def measure_memory(store: Store, server: Server, count: int) -> dict[str, float]:
    """Store bytes per series that was busy in every bucket that is still kept.

    35 days of hours, 48 hours of five minutes and two hours of ten seconds:
    each touched once, with counts of the size such buckets have.
    """
    chance = random.Random(7)
    now = int(store.clock())
    starts = sorted(
        {now - s for s in range(0, 7_200, 10)}
        | {now - s for s in range(0, 48 * 3600, 300)}
        | {now - s for s in range(0, 35 * DAY, 3600)}
    )
    before = used_memory(server)
    last = 0
    for n in range(count):
        series = Series("agent", f"agent-{n:06d}")
        deltas = []
        for start in starts:
            calls = chance.randint(1, 40)
            tokens = calls * chance.randint(200, 4_000)
            counts = [
                calls,
                tokens * 2_500,
                tokens,
                calls * 300,
                tokens // 3,
                calls // 20,
                calls * 50,
            ]
            deltas.append(Delta.of(series, start // 10, counts))
        for part in range(0, len(deltas), 500):
            rows = tuple(deltas[part : part + 500])
            batch = Batch(0, "benchmark", last, last + 1, rows, fresh=True)
            await store.counters.apply(batch)
            last += 1
    used = used_memory(server) - before
    return {"series": count, "buckets_each": len(starts), "bytes_per_series": round(used / count)}


def used_memory(server: Server) -> int:
    """What the store says it uses."""
    text = server.command("INFO", "memory").decode()
    return int(text.split("used_memory:")[1].split()[0])


async def main(series: int, target: Path | None) -> None:
    """Measure and print."""
    server = Server("--appendonly", "no")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = await Store.open(server.settings(timeout_seconds=5.0), folder)
        try:
            found: dict[str, Any] = {"records": []}
            for identities in (5, 500):
                found["records"].append(await measure_records(store, folder, identities))
            server.command("FLUSHALL", "SYNC")
            found["memory"] = await measure_memory(store, server, series)
        finally:
            await store.stop()
            server.close()
    for row in [*found["records"], found["memory"]]:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    if target is not None:
        target.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=SERIES)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    asyncio.run(main(given.series, given.json))
