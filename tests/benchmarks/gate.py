"""What the gate costs a request, and how fast a block is everywhere.

``python -m tests.benchmarks.gate [--json FILE] [--blocks N]``

1. Admission and settlement with 1,000 rules in force (blocks, throttles,
   downgrades, limits) and 10,000 keys: mean and percentiles in microseconds, for
   callers that no rule touches and for callers that limits count.
2. The time from a block on one replica to its first refusal on each of three
   (three processes' worth of gates on one real store), p50, p99 and worst; and
   whether all still refuse after the store was killed.
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

from detection.types import Action, ActionKind, Series
from proxy.context import RequestContext
from proxy.settings import BlastRadiusSettings, LimitSettings
from proxy.store.store import Store
from tests.unit.gate.bench import Replica, call, done, gate
from tests.unit.store.support import Server

KEYS = 10_000
RULES = 1_000
CALLS = 200_000


def rules(now: float) -> tuple[list[Action], list[LimitSettings]]:
    """900 actions on keys and agents, and 100 limits of single keys."""
    kinds = (ActionKind.BLOCK, ActionKind.THROTTLE, ActionKind.DOWNGRADE)
    actions = [
        Action(
            id=f"a{i}",
            kind=kinds[i % 3],
            series=Series("key", f"key_{i:012x}") if i % 2 else Series("agent", f"agent-{i}"),
            since=now,
            until=now + 3600,
            rate_per_second=1e6,
            models={"gpt-5*": "gpt-5-mini"},
            rule=f"rule-{i}",
            origin="manual",
        )
        for i in range(RULES - 100)
    ]
    limits = [
        LimitSettings(
            name=f"limit-{i}",
            by=("key",),
            match={"key": (f"key_{5000 + i:012x}",)},
            requests=10**9,
            per="day",
        )
        for i in range(100)
    ]
    return actions, limits


def callers(first: int, count: int) -> list[RequestContext]:
    """Calls of keys one after the other, each with its own agent."""
    return [
        call(f"svc-{i}", key=f"key_{i:012x}", model="gpt-5") for i in range(first, first + count)
    ]


def cost(calls: list[RequestContext], *, settle: bool) -> dict[str, float]:
    """Microseconds of one admission (with its settlement, where asked)."""
    actions, limits = rules(time.time())
    g = gate(time.time, limits=limits, blast_radius=BlastRadiusSettings(share=1.0))
    g.apply(actions)
    # Every key is known: plans are made, as in a proxy that runs.
    for ctx in callers(0, KEYS):
        g.drop(g.admit(ctx))
    # The loop's own cost is taken off; processor time, since other work shares the machine.
    random.seed(1)
    order = random.choices(calls, k=CALLS)
    began = time.thread_time()
    for _ in order:
        pass
    empty = time.thread_time() - began
    finished, admit, settle_one = done(), g.admit, g.settle
    began = time.thread_time()
    if settle:
        for ctx in order:
            settle_one(admit(ctx), finished)
    else:
        for ctx in order:
            admit(ctx)
    mean = (time.thread_time() - began - empty) / CALLS * 1e6
    single = []
    clock = time.perf_counter_ns
    for ctx in order[:20_000]:
        start = clock()
        decision = admit(ctx)
        single.append((clock() - start) / 1000)
        if settle:
            settle_one(decision, finished)
    single.sort()
    return {
        "mean": round(mean, 3),
        "p50": round(single[len(single) // 2], 3),
        "p99": round(single[len(single) * 99 // 100], 3),
    }


async def spread(blocks: int) -> dict[str, Any]:
    """Seconds from a block on one replica to a refusal on each of three."""
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        replicas: list[Replica] = []
        for name in "abc":
            store = await Store.open(server.settings(), Path(folder) / name, worker=name)
            replica = Replica(store, Path(folder) / name)
            await replica.enforcement.start()
            replicas.append(replica)
        seconds = []
        for i in range(blocks):
            agent = f"runaway-{i}"
            action = Action(
                id=f"block-{i}",
                kind=ActionKind.BLOCK,
                series=Series("agent", agent),
                since=time.time(),
                until=time.time() + 600,
                origin="manual",
            )
            began = time.perf_counter()
            replicas[i % 3].enforcement.act(action, by="benchmark")
            waiting = set(range(3))
            while waiting:
                for n in list(waiting):
                    if replicas[n].gate.admit(call(agent)).kind == "block":
                        waiting.discard(n)
                if waiting:
                    await asyncio.sleep(0.0005)
            seconds.append(time.perf_counter() - began)
        server.close()
        await asyncio.sleep(1.0)
        held = sum(
            r.gate.admit(call(f"runaway-{i}")).kind == "block"
            for r in replicas
            for i in range(blocks)
        )
        for replica in replicas:
            await replica.enforcement.stop()
            await replica.store.stop()
    seconds.sort()
    return {
        "blocks": blocks,
        "p50_seconds": round(statistics.median(seconds), 4),
        "p99_seconds": round(seconds[int(len(seconds) * 0.99)], 4),
        "worst_seconds": round(seconds[-1], 4),
        "held_without_store": held,
        "of": 3 * blocks,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--blocks", type=int, default=200)
    options = parser.parse_args()
    result = {
        "rules": RULES,
        "keys": KEYS,
        "microseconds_untouched": cost(callers(6000, 4000), settle=False),
        "microseconds_limited": cost(callers(5000, 100), settle=False),
        "microseconds_limited_and_settled": cost(callers(5000, 100), settle=True),
        "microseconds_acted_on": cost(callers(0, 900), settle=False),
        "spread": asyncio.run(spread(options.blocks)),
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
