"""Shares of a budget: together never past the limit, and nothing leaks."""

from __future__ import annotations

import asyncio

from proxy.store.leases import Claim, Grant, Leases
from tests.unit.store.conftest import OpenStore
from tests.unit.store.support import Server


def claim(limit: int, spent: int, risk: int, ceiling: int, ttl: float = 5.0) -> Claim:
    return Claim("team", "2026-11", limit, spent, risk, ceiling, ttl_seconds=ttl)


async def one(leases: Leases, wanted: Claim) -> Grant:
    (grant,) = await leases.claim([wanted])
    return grant


async def test_shares_add_up_to_the_limit(open_store: OpenStore) -> None:
    a, b, c = [(await open_store(n)).leases for n in "abc"]
    assert (await one(a, claim(100, 0, 0, 60))).ceiling == 60
    assert (await one(b, claim(100, 0, 0, 60))).ceiling == 40
    last = await one(c, claim(100, 0, 0, 60))
    assert (last.ceiling, last.fleet_committed) == (0, 100)
    assert (await one(a, claim(100, 10, 0, 10))).ceiling == 10
    assert (await one(c, claim(100, 0, 0, 60))).ceiling == 50


async def test_the_same_claim_twice_changes_nothing(open_store: OpenStore) -> None:
    a, b = [(await open_store(n)).leases for n in "ab"]
    for _ in range(3):
        assert (await one(a, claim(100, 5, 5, 70))).ceiling == 70
    assert (await one(b, claim(100, 0, 0, 99))).ceiling == 30


async def test_a_dead_holders_remainder_returns(open_store: OpenStore) -> None:
    a, b = [(await open_store(n)).leases for n in "ab"]
    assert (await one(a, claim(100, 20, 5, 90, ttl=0.2))).ceiling == 90
    assert (await one(b, claim(100, 0, 0, 100))).ceiling == 10
    await asyncio.sleep(0.3)
    grant = await one(b, claim(100, 0, 0, 100))
    assert (grant.ceiling, grant.fleet_spent) == (75, 20)


async def test_an_emptied_store_does_not_grant_it_all_again(
    open_store: OpenStore, server: Server
) -> None:
    a, b = [(await open_store(n)).leases for n in "ab"]
    await one(a, claim(100, 30, 0, 50))
    await one(b, claim(100, 10, 0, 50))
    await one(a, claim(100, 30, 0, 50))
    server.command("FLUSHALL")
    assert (await one(a, claim(100, 30, 0, 100))).ceiling == 50
    assert (await one(b, claim(100, 10, 0, 100))).ceiling == 50


async def test_a_lower_limit_grants_nothing_more(open_store: OpenStore) -> None:
    a, b = [(await open_store(n)).leases for n in "ab"]
    await one(a, claim(100, 40, 10, 80))
    grant = await one(b, claim(50, 0, 0, 50))
    assert grant.ceiling == 0
    assert (await one(a, claim(50, 40, 10, 80))).ceiling == 50
