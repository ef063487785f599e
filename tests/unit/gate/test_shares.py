"""Replicas on one real store: no overshoot, no leak, whatever dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from detection.budget import nano_usd
from detection.types import Mode
from proxy import enforcement_holds
from proxy.settings import BudgetSettings, LimitSettings
from proxy.store.store import Store
from proxy.store.tasks import cancel
from tests.unit.gate.bench import Replica, call, done
from tests.unit.gate.conftest import OpenReplica
from tests.unit.store.support import Server

COST = 50 * 150 + 20 * 600


async def spend(replica: Replica, calls: int, at_once: int = 20) -> int:
    """Make calls through a replica; how many were let through."""
    passed = 0
    limit = asyncio.Semaphore(at_once)

    async def one() -> None:
        nonlocal passed
        async with limit:
            decision = await replica.admit(call())
            if decision.refusal is None:
                passed += 1
                await asyncio.sleep(0.001)
            replica.gate.settle(decision, done() if decision.refusal is None else done(0, 0, 429))

    await asyncio.gather(*(one() for _ in range(calls)))
    return passed


async def test_three_replicas_spend_a_budget_to_the_end_and_not_beyond(
    open_replica: OpenReplica,
) -> None:
    budget = BudgetSettings(name="b", amount_usd=0.01)
    replicas = [await open_replica(name, budgets=[budget]) for name in "abc"]
    passed = sum(await asyncio.gather(*(spend(r, 400) for r in replicas)))
    limit = nano_usd(0.01)
    reserved = (200 + 8) * 150 + 100 * 600
    assert passed * COST <= limit
    # Calls that were running are settled; what they gave back can be spent, by one replica too.
    await asyncio.sleep(1.3)
    passed += await spend(replicas[0], 100, at_once=1)
    assert 0 <= limit - passed * COST < reserved


async def test_a_request_limit_is_exact_over_replicas(open_replica: OpenReplica) -> None:
    limit = LimitSettings(name="r", requests=50, per="month")
    replicas = [await open_replica(name, limits=[limit]) for name in "ab"]
    passed = sum(await asyncio.gather(*(spend(r, 60) for r in replicas)))
    assert passed == 50


async def test_shadow_tells_of_every_call_beyond_a_limit(open_replica: OpenReplica) -> None:
    limit = LimitSettings(name="r", requests=10, per="month", mode=Mode.SHADOW)
    told = []
    for name in "ab":
        replica = await open_replica(name, limits=[limit])
        decisions = []
        for _ in range(30):
            decision = await replica.admit(call())
            replica.gate.settle(decision, done())
            decisions.append(decision)
        assert {decision.kind for decision in decisions} == {"allow"}
        told.append(sum(decision.would == "block" for decision in decisions))
    # The second may use what it has not heard to be used, and no more.
    assert told[0] == 20
    assert 20 <= told[1] <= 30


async def test_calls_at_once_are_counted_over_replicas(open_replica: OpenReplica) -> None:
    limit = LimitSettings(name="f", in_flight=6)
    a, b = [await open_replica(name, limits=[limit]) for name in "ab"]
    running = [await r.admit(call()) for r in (a, b) for _ in range(3)]
    assert [d.kind for d in running] == ["allow"] * 6
    refused = await a.admit(call())
    assert refused.kind == "throttle"
    assert refused.refusal is not None
    assert refused.refusal.retry_after_seconds == 1.0
    b.gate.settle(running[-1], done())
    await b.enforcement.report()
    await a.enforcement.report()
    assert (await a.admit(call())).kind == "allow"


async def test_what_a_killed_replica_held_comes_back_when_it_restarts(
    server: Server, tmp_path: Path, open_replica: OpenReplica
) -> None:
    budget = BudgetSettings(name="b", amount_usd=0.001)
    store = await Store.open(server.settings(), tmp_path / "x", worker="x")
    dying = Replica(store, tmp_path / "x", budgets=[budget])
    await dying.enforcement.start()
    for _ in range(3):
        dying.gate.settle(await dying.admit(call()), done())
    running = await dying.admit(call())
    # Killed: no report, no return of shares; only the mirror stays.
    await cancel(dying.enforcement._tasks)
    assert dying.enforcement._mirror is not None
    dying.enforcement._mirror.close()
    await store.stop()

    again = await open_replica("x", budgets=[budget])
    await again.enforcement.report()
    counter = next(iter(again.gate.counters))
    await again.enforcement.report()
    expected = 3 * COST + running.reservation_nano_usd
    assert counter.account.spent == expected
    assert counter.account.charged == 0
    assert counter.account.others == 0
    assert counter.account.remaining == nano_usd(0.001) - expected


async def test_the_free_part_of_a_silent_replicas_share_goes_back_and_it_stops_using_it(
    open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcement_holds, "TTL_SECONDS", 1)
    monkeypatch.setattr(enforcement_holds, "_TRUSTED_SECONDS", 0.8)
    budget = BudgetSettings(name="b", amount_usd=0.002)
    silent = await open_replica("a", budgets=[budget])
    other = await open_replica("b", budgets=[budget])
    running = [await silent.admit(call()) for _ in range(3)]
    assert all(decision.refusal is None for decision in running)
    await silent.enforcement.report()
    at_risk = sum(decision.reservation_nano_usd for decision in running)
    held = next(iter(silent.gate.counters)).account.hold
    assert held > at_risk
    # Heard no more: paused, or cut off from the store.
    await cancel(silent.enforcement._tasks)
    await asyncio.sleep(1.5)
    passed = 0
    while (decision := await other.admit(call())).refusal is None:
        passed += 1
        other.gate.settle(decision, done())
    one = running[0].reservation_nano_usd
    counted = passed * COST + at_risk + one
    assert nano_usd(0.002) - one <= counted <= nano_usd(0.002)
    # Within what was kept back for it, and the one call more.
    more = 0
    while (decision := silent.gate.admit(call())).kind == "allow":
        more += 1
        silent.gate.settle(decision, done())
    assert more <= 1
