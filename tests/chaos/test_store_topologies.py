"""Every shape of store, broken in its own way: counts stay exact and blocks everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from detection.types import Observation
from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.store.errors import StoreError
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.chaos.topologies import BINARIES, Guarded, Secure, Spread
from tests.unit.store.support import expected_usage, observation, until

SERVERS = [
    pytest.param(path, id=name, marks=[] if path else [pytest.mark.skip(f"no {name} here")])
    for name, path in BINARIES.items()
]


class Replica:
    """A store, its ledger, and calls that go on in the background."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self.store, self.ledger = store, ledger
        self.calls: list[Observation] = []
        self.stopped = False

    async def load(self) -> None:
        while not self.stopped:
            call = observation(len(self.calls), self.store.clock())
            self.calls.append(call)
            self.ledger.record(call)
            await asyncio.sleep(0.004)

    @contextlib.asynccontextmanager
    async def loaded(self) -> AsyncIterator[None]:
        """Calls come all through the block; then everything must have been counted."""
        self.stopped = False
        task = asyncio.create_task(self.load())
        try:
            yield
        finally:
            self.stopped = True
            await task
        await self.check()

    async def check(self) -> None:
        await until(lambda: self.ledger.settled and self.store.available, timeout=60)
        assert await self.ledger.flush(30)
        for by in ("total", "key", "agent_model"):
            rows = {r.value: r.counts for r in await self.store.usage(by, "1h")}
            assert rows == expected_usage(self.calls, by), by

    async def counted(self, more: int = 50) -> None:
        """Wait until the store has some more calls."""
        wanted = self.ledger.journal.acknowledged + more
        await until(lambda: self.ledger.journal.acknowledged >= wanted, timeout=60)


OpenReplica = Callable[..., Any]


@pytest.fixture
async def open_replica(tmp_path: Path) -> AsyncIterator[OpenReplica]:
    async with contextlib.AsyncExitStack() as stack:

        async def open(url: str, name: str = "a", **given: Any) -> Replica:
            fields = {"url": url, "timeout_seconds": 1.0, "breaker_seconds": 0.1} | given
            settings = StoreSettings.model_validate(fields | {"reconcile_seconds": 0.2})
            store = await Store.open(settings, tmp_path / name, worker=name)
            stack.push_async_callback(store.stop)
            journal = Journal(
                tmp_path / name / "journal", JournalSettings(sync_seconds=0), clock=store.clock
            )
            ledger = Ledger(journal, store.counters, store.clock, tick_seconds=0.02)
            await ledger.start()
            stack.push_async_callback(ledger.stop)
            return Replica(store, ledger)

        yield open


def blocked(replica: Replica, name: str) -> bool:
    return replica.store.controls.get("action", name) is not None


@pytest.mark.skipif(not BINARIES["redis"], reason="no redis-server with TLS here")
async def test_tls(open_replica: OpenReplica) -> None:
    with Secure(BINARIES["redis"]) as secure:
        one = await open_replica(secure.url, "a", ca_file=secure.ca_file)
        other = await open_replica(secure.url, "b", ca_file=secure.ca_file)
        async with one.loaded():
            one.store.controls.put("action", "over-tls", {"kind": "block"})
            await until(lambda: blocked(other, "over-tls"), timeout=30)
            await one.counted()
        assert one.store.health()["kind"] == "rediss"
        for wrong in ({"ca_file": str(secure.folder / "other.crt")}, {"url": secure.url}):
            fields = {"url": secure.url} | wrong
            stranger = await open_replica(fields.pop("url"), "c", **fields)
            assert not stranger.store.available, "an unknown certificate was believed"
            with pytest.raises(StoreError):
                await stranger.store.link.command("PING")
            await stranger.ledger.stop()


@pytest.mark.slow
@pytest.mark.parametrize("binary", SERVERS)
async def test_sentinel_fails_over_while_a_block_is_set(
    open_replica: OpenReplica, binary: str
) -> None:
    with Guarded(binary) as guarded:
        one = await open_replica(guarded.url, "a")
        other = await open_replica(guarded.url, "b")
        async with one.loaded():
            one.store.controls.put("action", "before", {"kind": "block"})
            await until(lambda: blocked(other, "before"), timeout=30)
            await one.counted()
            old = guarded.primary()
            old.kill()
            one.store.controls.put("action", "meanwhile", {"kind": "block"})
            assert blocked(one, "meanwhile"), "a block waited for the store"
            await until(lambda: guarded.primary() is not old, timeout=60)
            await until(lambda: blocked(other, "meanwhile"), timeout=60)
            await one.counted()
            old.start()  # comes back as a copy of the new one
            await one.counted()
        third = await open_replica(guarded.url, "c")
        for name in ("before", "meanwhile"):
            await until(lambda name=name: blocked(third, name), timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("binary", SERVERS)
async def test_a_cluster_is_resharded_and_loses_masters(
    open_replica: OpenReplica, binary: str
) -> None:
    with Spread(binary) as cluster:
        one = await open_replica(cluster.url, "a")
        other = await open_replica(cluster.url, "b")
        shards = one.store.counters.shards
        assert shards > 1
        async with one.loaded():
            one.store.controls.put("action", "before", {"kind": "block"})
            await until(lambda: blocked(other, "before"), timeout=30)
            await one.counted()
            for key in (
                "tw:{ctl}:live",
                one.store.counters.prefix(0),
                one.store.counters.prefix(1),
            ):
                slot = cluster.slot_of(key)
                target = next(n for n in cluster.masters if n is not cluster.owner(slot))
                await asyncio.to_thread(cluster.move, slot, target)
            await one.counted()
        async with one.loaded():
            # A master with a copy: the copy takes over.
            first = cluster.masters[0]
            first.kill()
            one.store.controls.put("action", "meanwhile", {"kind": "block"})
            port = cluster.copy.port
            await until(lambda: cluster.owner(0).port == port, timeout=60)
            await until(lambda: blocked(other, "meanwhile"), timeout=60)
            await one.counted()
            first.start()
        async with one.loaded():
            # A master without one: what it held waits, the rest goes on.
            last = cluster.masters[2]
            last.kill()
            await asyncio.sleep(2.0)
            began = time.monotonic()
            one.store.controls.put("action", "later", {"kind": "block"})
            assert blocked(one, "later") and time.monotonic() - began < 1.0
            last.start()
        await until(lambda: blocked(other, "later"), timeout=60)
