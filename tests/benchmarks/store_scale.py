"""How far the store carries: bytes per series, a million series, commands per second.

Run as ``python -m tests.benchmarks.store_scale [--series 10000] [--keys 100000] [--json FILE]``.
Measures here and now, on real servers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from detection.types import Observation, Series
from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.store.series import series_id
from proxy.store.store import Store
from tests.benchmarks.ledger import measure_memory, used_memory
from tests.chaos.scenarios.security import many_calls
from tests.chaos.store_lab import StoreLab
from tests.unit.store.support import Server, observation

MEASURED = 100
SERIES_PER_KEY = 10
CALLS_PER_TICK = 1_000
TARGET_BYTES = 64 * 1024
TARGET_COMMANDS = 40
AT_ONCE = 50
CONNECTIONS = 16

_COPIES = """
local from, to = ARGV[1], cjson.decode(ARGV[2])
local keys = redis.call('KEYS', ARGV[3] .. 'c:' .. from .. ':*')
for _, id in ipairs(to) do
  for _, key in ipairs(keys) do
    local at = string.find(key, from, 1, true)
    local name = string.sub(key, 1, at - 1) .. id .. string.sub(key, at + #from)
    redis.call('COPY', key, name)
    redis.call('EXPIRE', name, redis.call('TTL', key))
  end
  redis.call('ZADD', ARGV[3] .. 'i:agent', ARGV[4], id .. 'copy-of-' .. id)
end
return #keys
"""


async def bytes_per_series(store: Store, server: Server, count: int) -> dict[str, float]:
    """Store memory of series that were busy in every bucket still kept.

    Some are counted by real batches; the others are copies of their keys under
    other names, which take the same room.
    """
    before = used_memory(server)
    measured = await measure_memory(store, server, min(count, MEASURED))
    prefix, now = store.counters.prefix(0), str(int(store.clock()))
    each = max(0, count // MEASURED - 1)
    for n in range(MEASURED if each else 0):
        source = series_id(Series("agent", f"agent-{n:06d}"))
        names = [f"{n:05d}x{copy:06d}" for copy in range(each)]
        await store.link.command("EVAL", _COPIES, 0, source, json.dumps(names), prefix, now)
    used = used_memory(server) - before
    return {
        "series": count,
        "buckets_each": measured["buckets_each"],
        "bytes_per_series": round(used / max(1, count)),
        "target_bytes": TARGET_BYTES,
    }


def call_of(number: int, keys: int, now: float) -> Observation:
    """One call of a key; each key brings series of its own in ten ways."""
    key = number % keys
    return observation(
        number,
        now,
        key=f"key_{key:012x}",
        agent=f"agent-{key}",
        project=f"project-{key}",
        user=f"user-{key}",
        model="model-a",
        tags={name: f"{name}-{key}" for name in ("team", "job", "branch", "run")},
    )


async def many_series(folder: Path, keys: int) -> dict[str, float]:
    """Count one call of each of many keys; what that takes of time and memory."""
    server = Server("--appendonly", "no")
    store = await Store.open(
        server.settings(timeout_seconds=5.0, max_series_per_dimension=2_000_000), folder
    )
    journal = Journal(folder / f"journal-{keys}", JournalSettings(sync_seconds=0))
    ledger = Ledger(journal, store.counters, store.clock)
    try:
        memory, now = own_memory_bytes(), store.clock()
        calls, cpu = max(keys, 10 * CALLS_PER_TICK), 0.0
        began = time.perf_counter()
        for start in range(0, calls, CALLS_PER_TICK):
            batch = [call_of(n, keys, now) for n in range(start, start + CALLS_PER_TICK)]
            spent = time.process_time()
            for call in batch:
                ledger.record(call)
            await ledger.tick()
            cpu += time.process_time() - spent
        took = time.perf_counter() - began
        settled = await ledger.flush(120)
        (total,) = await store.usage("total", "1h")
        return {
            "keys": keys,
            "series": keys * SERIES_PER_KEY,
            "calls": calls,
            "counted": total.counts.requests,
            "settled": float(settled),
            "seconds": round(took, 1),
            "cpu_us_per_call": round(cpu / calls * 1e6, 1),
            "store_mb": round(used_memory(server) / 1e6, 1),
            "replica_grew_mb": round((own_memory_bytes() - memory) / 1e6, 1),
        }
    finally:
        journal.close()
        await store.stop()
        server.close()


def own_memory_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def commands_per_second(folder: Path, seconds: float) -> list[dict[str, float]]:
    """What one replica asks of the store while idle, busy and as busy as it gets."""
    rules = [
        {"name": "most", "by": ["key"], "requests": 10_000_000, "per": "hour"},
        {"name": "each", "by": ["agent"], "requests": 10_000_000, "per": "minute"},
    ]
    budgets = [{"name": "all", "amount_usd": 100_000, "per": "month"}]
    lab = StoreLab(folder, {"limits": rules, "budgets": budgets})
    found = []
    try:
        for pause in (None, 0.5, 0.0):
            stop, made = threading.Event(), [0]

            def load(pause: float | None, stop: threading.Event, made: list[int]) -> None:
                while pause is not None and not stop.is_set():
                    first = made[0] = made[0] + AT_ONCE
                    many_calls(lab, [f"agent-{first + n}" for n in range(AT_ONCE)])
                    time.sleep(pause)

            threads = [
                threading.Thread(target=load, args=(pause, stop, made)) for _ in range(CONNECTIONS)
            ]
            for thread in threads:
                thread.start()
            time.sleep(4.0)  # a burst may ask more at first
            calls, asked, began = made[0], asked_of(lab.server), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            found.append(
                {
                    "calls_per_second": round((made[0] - calls) / took, 1),
                    "store_commands_per_second": round((asked_of(lab.server) - asked) / took, 1),
                    "target": TARGET_COMMANDS,
                }
            )
            stop.set()
            for thread in threads:
                thread.join(60)
    finally:
        lab.close()
    return found


def asked_of(server: Server) -> int:
    """Scripts that clients ran: all that a replica asks, but for a page's few plain reads."""
    text = server.command("INFO", "commandstats").decode(errors="replace")
    found = 0
    for line in text.splitlines():
        if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:")):
            found += int(line.split("calls=")[1].split(",")[0])
    return found


async def memory(series: int, folder: Path) -> dict[str, float]:
    server = Server("--appendonly", "no")
    store = await Store.open(server.settings(timeout_seconds=10.0), folder)
    try:
        return await bytes_per_series(store, server, series)
    finally:
        await store.stop()
        server.close()


def show(row: dict[str, float]) -> dict[str, float]:
    print("  ".join(f"{name}={value}" for name, value in row.items()), flush=True)
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "many": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["commands"] = [show(r) for r in commands_per_second(folder / "lab", given.seconds)]
        found["memory"] = show(asyncio.run(memory(given.series, folder / "memory")))
        for keys in sorted({10, 1_000, given.keys}):
            found["many"].append(show(asyncio.run(many_series(folder / f"k{keys}", keys))))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
