"""The store's faults, for real: nothing lost, nothing doubled, no block forgotten.

Each test names the fault; the bench counts calls while the fault lasts, heals
it, and compares the store with the calls, to the last nano-dollar.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from detection.types import Observation
from proxy.clock import Clock
from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.store.errors import StoreError, StoreForbiddenError, StoreUnavailableError
from proxy.store.store import Store
from tests.chaos.faultproxy import FaultProxy
from tests.unit.store.support import Server, expected_usage, observation, until


class Bench:
    """A replica's store and ledger behind a fault proxy, and what was recorded."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.server = Server()
        stack.callback(self.server.close)
        self.calls: list[Observation] = []
        self.proxy = FaultProxy(str(self.server.path))

    async def open(self, name: str = "a", **settings: object) -> tuple[Store, Ledger]:
        """A replica; its ledger ticks by itself."""
        if not self.proxy.port:
            await self.stack.enter_async_context(self.proxy)
        url = f"redis://127.0.0.1:{self.proxy.port}"
        fields = {"url": url, "timeout_seconds": 0.25, "breaker_seconds": 0.1} | settings
        store = await Store.open(self.server.settings(**fields), self.folder / name, worker=name)
        self.stack.push_async_callback(store.stop)
        return store, await self.ledger(store, name)

    async def ledger(self, store: Store, name: str = "a") -> Ledger:
        """A ledger over the replica's journal."""
        journal = Journal(
            self.folder / name / "journal", JournalSettings(sync_seconds=0), clock=store.clock
        )
        ledger = Ledger(journal, store.counters, store.clock, tick_seconds=0.02)
        await ledger.start()
        self.stack.push_async_callback(ledger.stop)
        return ledger

    async def load(self, ledger: Ledger, clock: Clock, seconds: float = 0.3) -> None:
        """Record calls for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(5):
                call = observation(len(self.calls), clock())
                self.calls.append(call)
                ledger.record(call)
            await asyncio.sleep(0.005)

    async def check(self, store: Store, ledger: Ledger) -> None:
        """Wait until the store has everything, and compare it all."""
        await until(lambda: ledger.settled and store.available, timeout=15)
        assert await ledger.flush(5)
        for by in ("total", "key", "agent_model"):
            rows = {r.value: r.counts for r in await store.usage(by, "1h")}
            assert rows == expected_usage(self.calls, by), by


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(tmp_path, stack)


async def test_down_at_the_start(bench: Bench) -> None:
    bench.proxy.refuse = True
    store, ledger = await bench.open()
    assert not store.health()["ok"] and store.health()["last_error"]
    await bench.load(ledger, store.clock)
    assert ledger.pending_records == len(bench.calls) and ledger.lag_seconds > 0
    bench.proxy.refuse = False
    await bench.check(store, ledger)
    assert store.health()["ok"]


async def test_killed_under_load(bench: Bench) -> None:
    store, ledger = await bench.open()
    store.controls.put("action", "b", {"kind": "block"})
    await bench.load(ledger, store.clock)
    bench.server.kill()
    started = time.monotonic()
    await bench.load(ledger, store.clock)
    assert time.monotonic() - started < 5
    assert store.controls.get("action", "b") is not None
    bench.server.start()
    await bench.load(ledger, store.clock)
    await bench.check(store, ledger)


async def test_asleep(bench: Bench) -> None:
    store, ledger = await bench.open(timeout_seconds=0.05)
    await bench.load(ledger, store.clock)
    assert bench.server.process is not None
    bench.server.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await store.link.command("PING", patient=False)
    took = time.monotonic() - started
    await bench.load(ledger, store.clock)
    bench.server.process.send_signal(signal.SIGCONT)
    assert took < 1.0
    await bench.check(store, ledger)


async def test_packets_dropped(bench: Bench) -> None:
    store, ledger = await bench.open(timeout_seconds=0.05)
    await bench.load(ledger, store.clock)
    bench.proxy.black_hole = True
    await bench.load(ledger, store.clock)
    bench.proxy.black_hole = False
    bench.proxy.cut(reset=True)
    await bench.check(store, ledger)


@pytest.mark.parametrize("count", [1, 7])
async def test_replies_lost_after_execution(bench: Bench, count: int) -> None:
    store, ledger = await bench.open()
    await bench.load(ledger, store.clock)
    for _ in range(3):
        bench.proxy.lose_replies(count)
        await bench.load(ledger, store.clock)
    await bench.check(store, ledger)
    assert bench.proxy.replies_lost >= 3
    assert ledger.health()["duplicates_ignored"] >= 1


async def test_slow_and_in_slices(bench: Bench) -> None:
    store, ledger = await bench.open(timeout_seconds=2.0)
    bench.proxy.slice_bytes = 7
    await bench.load(ledger, store.clock)
    bench.proxy.slice_bytes, bench.proxy.latency_seconds = 0, 0.05
    await bench.load(ledger, store.clock)
    await bench.check(store, ledger)


async def test_a_read_only_replica(bench: Bench) -> None:
    store, ledger = await bench.open()
    await bench.load(ledger, store.clock)
    bench.server.command("REPLICAOF", "127.0.0.1", "1")
    await bench.load(ledger, store.clock)
    assert ledger.failures
    bench.server.command("REPLICAOF", "NO", "ONE")
    await bench.check(store, ledger)


async def test_full_memory_refuses_writes_and_reads_go_on(bench: Bench) -> None:
    store, ledger = await bench.open()
    await bench.load(ledger, store.clock)
    assert await ledger.flush(5)
    counted = len(bench.calls)
    bench.server.command("CONFIG", "SET", "maxmemory", "1")
    await bench.load(ledger, store.clock)
    (row,) = await store.usage("total", "1h")
    assert row.counts.requests == counted
    store.controls.put("action", "late", {"kind": "block"})
    await until(lambda: "OOM" in str(store.health()["writes_refused"]))
    assert ledger.failures.get("StoreRefusedError", 0) > 0
    bench.server.command("CONFIG", "SET", "maxmemory", "0")
    await bench.check(store, ledger)
    await until(lambda: b"late" in bench.server.command("HGETALL", "tw:{ctl}:live"))


async def test_a_key_of_a_wrong_type_spoils_itself_alone(bench: Bench) -> None:
    store, ledger = await bench.open()
    await bench.load(ledger, store.clock)
    assert await ledger.flush(5)
    keys = bench.server.command("KEYS", "tw:{b0}:c:*").split(b"\r\n")
    spoiled = next(k.decode() for k in keys if b":a" in k)
    bench.server.command("SET", spoiled, "not a hash")
    await bench.load(ledger, store.clock)
    await until(lambda: ledger.settled)
    assert ledger.health()["wrong_type_keys"] == 1
    assert await ledger.flush(5)
    for by in ("total", "key"):
        rows = {r.value: r.counts for r in await store.usage(by, 47 * 3600)}
        assert rows == expected_usage(bench.calls, by)


async def test_scripts_flushed_in_a_loop(bench: Bench) -> None:
    store, ledger = await bench.open()
    for _ in range(20):
        bench.server.command("SCRIPT", "FLUSH")
        await bench.load(ledger, store.clock, 0.03)
    await bench.check(store, ledger)
    assert not ledger.failures


async def test_scripts_forbidden_is_said_at_the_start(bench: Bench) -> None:
    bench.server.command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-eval",
                         "-evalsha")  # fmt: skip
    async with bench.proxy:
        url = f"redis://limited:pw@127.0.0.1:{bench.proxy.port}"
        with pytest.raises(StoreForbiddenError, match="EVALSHA"):
            await Store.open(bench.server.settings(url=url), bench.folder / "x")
        wrong = url.replace("pw", "nonsense")
        with pytest.raises(StoreForbiddenError) as failure:
            await Store.open(bench.server.settings(url=wrong), bench.folder / "x")
        assert "nonsense" not in str(failure.value)


async def test_emptied_in_the_middle(bench: Bench) -> None:
    store, ledger = await bench.open()
    store.controls.put("action", "manual", {"kind": "block"}, by="ann")
    await bench.load(ledger, store.clock)
    bench.server.command("FLUSHALL")
    await bench.load(ledger, store.clock)
    await bench.check(store, ledger)
    await until(lambda: b"manual" in bench.server.command("HGETALL", "tw:{ctl}:live"))


async def test_emptied_while_idle_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.ledger_lane.PROBE_SECONDS", 0.2)
    store, ledger = await bench.open()
    await bench.load(ledger, store.clock)
    await bench.check(store, ledger)
    bench.server.command("FLUSHALL")

    async def refilled() -> bool:
        return bool(await store.usage("total", "1h")) and ledger.settled

    await until(refilled)
    await bench.check(store, ledger)


async def test_one_replica_partitioned(bench: Bench) -> None:
    store, ledger = await bench.open("a")
    direct = bench.server.settings()
    other = await Store.open(direct, bench.folder / "b", worker="b")
    bench.stack.push_async_callback(other.stop)
    far = await bench.ledger(other, "b")
    await bench.load(ledger, store.clock)
    bench.proxy.refuse = True
    bench.proxy.cut(reset=True)
    other.controls.put("action", "while-away", {"kind": "block"})
    await asyncio.gather(bench.load(ledger, store.clock), bench.load(far, other.clock))
    assert store.controls.get("action", "while-away") is None
    assert store.replicas() >= 1
    bench.proxy.refuse = False
    await until(lambda: store.controls.get("action", "while-away") is not None)
    await until(lambda: far.settled)
    await bench.check(store, ledger)


async def test_everything_at_once(bench: Bench) -> None:
    store, ledger = await bench.open()
    for round_number in range(3):
        await bench.load(ledger, store.clock, 0.1)
        bench.proxy.lose_replies(2)
        await bench.load(ledger, store.clock, 0.1)
        bench.server.kill()
        await bench.load(ledger, store.clock, 0.1)
        bench.server.start()
        bench.server.command("SCRIPT", "FLUSH")
        if round_number == 1:
            bench.server.command("FLUSHALL")
        bench.proxy.cut(reset=True)
    await bench.check(store, ledger)


async def test_refused_by_the_disk(bench: Bench) -> None:
    """MISCONF: the server says that it can't persist and takes no writes."""
    store, ledger = await bench.open()
    await bench.load(ledger, store.clock)
    assert await ledger.flush(5)
    (bench.server.folder / "dump.rdb").mkdir()
    bench.server.command("CONFIG", "SET", "save", "1 1")
    bench.server.command("SET", "x", "1")
    bench.server.command("BGSAVE")
    await until(
        lambda: b"rdb_last_bgsave_status:err" in bench.server.command("INFO", "persistence")
    )
    counted = len(bench.calls)
    await bench.load(ledger, store.clock)
    (row,) = await store.usage("total", "1h")
    assert row.counts.requests == counted
    assert "MISCONF" in str(store.health()["writes_refused"])
    bench.server.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    await bench.check(store, ledger)


def test_errors_never_name_the_password() -> None:
    assert issubclass(StoreForbiddenError, StoreError)
