"""Shares that rest: callers who come now and then, and very many of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy import enforcement_holds
from proxy.gate_rules import Counter
from proxy.settings import BudgetSettings, LimitSettings
from proxy.store.store import Store
from tests.unit.gate.bench import Replica, call, done
from tests.unit.gate.conftest import OpenReplica
from tests.unit.gate.test_shares import COST
from tests.unit.store.support import Server, until

BUDGET = BudgetSettings(name="b", by=["key"], amount_usd=1.0, per="month")
LIMIT = LimitSettings(name="r", by=["key"], requests=100_000, per="month")


async def one(replica: Replica, key: str = "key_0") -> str:
    """A call from its admission to its end; how it was let through."""
    decision = await replica.admit(call(key=key))
    replica.gate.settle(decision, done() if decision.refusal is None else done(0, 0, 429))
    return decision.kind


def counter_of(replica: Replica) -> Counter:
    (counter,) = replica.gate.counters
    return counter


async def test_who_comes_now_and_then_finds_its_share_and_costs_nothing_meanwhile(
    open_replica: OpenReplica,
) -> None:
    replica = await open_replica("a", limits=[LIMIT])
    holds, counters = replica.enforcement.holds, replica.gate.counters
    await one(replica)
    await until(lambda: not counters.dirty)
    reports = holds.reports
    await asyncio.sleep(2.5)
    assert holds.reports == reports
    assert counter_of(replica).account.hold > 0
    decision = replica.gate.admit(call())
    assert decision.kind == "allow", "without a wait"
    replica.gate.settle(decision, done())
    await until(lambda: counter_of(replica).account.spent == 2)


async def test_a_share_at_rest_is_renewed_and_given_back_when_nobody_comes(
    open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcement_holds, "REST_SECONDS", 13)
    monkeypatch.setattr(enforcement_holds, "_RENEW_SECONDS", 4.0)
    monkeypatch.setattr(enforcement_holds, "_REST_IDLE_SECONDS", 9.0)
    replica = await open_replica("a", budgets=[BUDGET])
    await one(replica)
    account = counter_of(replica).account
    await until(lambda: not replica.gate.counters.dirty)
    first = account.until
    await until(lambda: account.until > first, timeout=12)
    assert account.hold > 0
    await until(lambda: account.hold == 0, timeout=12)
    assert account.spent == COST
    assert account.charged == 0


async def test_a_replica_that_ends_gives_back_what_rests(
    server: Server, tmp_path: Path, open_replica: OpenReplica
) -> None:
    store = await Store.open(server.settings(), tmp_path / "ends", worker="ends")
    ends = Replica(store, tmp_path / "ends", budgets=[BUDGET])
    await ends.enforcement.start()
    assert set(await asyncio.gather(*(one(ends, f"key_{n}") for n in range(600)))) == {"allow"}
    await until(lambda: {c.account.spent for c in ends.gate.counters} == {COST})
    await ends.enforcement.stop()
    await store.stop()
    stays = await open_replica("b", budgets=[BUDGET])
    await asyncio.gather(*(one(stays, f"key_{n}") for n in range(600)))
    accounts = [counter.account for counter in stays.gate.counters]
    await until(lambda: {account.spent for account in accounts} == {2 * COST})
    assert {(account.others, account.charged) for account in accounts} == {(0, 0)}


async def test_a_crowd_of_accounts_is_served_and_counted(open_replica: OpenReplica) -> None:
    replica = await open_replica("a", budgets=[BUDGET])
    for _ in range(2):
        kinds = await asyncio.gather(*(one(replica, f"key_{n}") for n in range(2_000)))
        assert set(kinds) == {"allow"}
    counters = replica.gate.counters
    await until(lambda: {c.account.spent for c in counters} == {2 * COST}, timeout=20)


async def test_a_share_so_large_that_others_miss_it_does_not_rest(
    open_replica: OpenReplica,
) -> None:
    limit = LimitSettings(name="r", requests=20, per="month")
    replica = await open_replica("a", limits=[limit])
    await one(replica)
    account = counter_of(replica).account
    await until(lambda: account.hold == 0 and account.spent == 1)
    assert not replica.enforcement.holds._resting
    assert account.remaining == limit.requests - 1


async def test_what_rests_is_told_of_again_when_the_store_has_been_away(
    open_replica: OpenReplica, server: Server
) -> None:
    replica = await open_replica("a", limits=[LIMIT])
    await one(replica)
    counters = replica.gate.counters
    await until(lambda: not counters.dirty)
    other = await open_replica("b", limits=[LIMIT])
    server.command("FLUSHALL")
    account, lost_at = counter_of(replica).account, replica.store.clock()
    counters.available = False
    await until(lambda: account.heard_at > lost_at and not counters.dirty)
    assert await one(other) == "allow"
    await until(lambda: counter_of(other).account.spent == 2)
    left = LIMIT.requests - 2 - account.hold
    assert counter_of(other).account.remaining == left
