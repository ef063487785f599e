"""The batch and lease protocols against a pure model, with the real scripts beside it.

Hypothesis plays the network and the crashes: requests that never arrive,
replies that never come back, old batches that arrive again and out of order,
workers that die, a store that loses everything. Whatever the order, once the
network heals, the store has every record once; and no two shares of a budget
pass its limit.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from detection.types import Observation
from proxy.clock import Clock
from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.store.connection import Connection
from proxy.store.counters import Batch, BatchReply, Counters
from proxy.store.errors import StoreUnavailableError
from proxy.store.leases import Claim, Leases
from tests.unit.store.support import Server, expected_usage, observation

STEPS = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
REPLICAS = st.sampled_from(["a", "b"])
FATES = st.sampled_from(["arrive", "arrive", "arrive", "request lost", "reply lost"])
JOURNAL = JournalSettings(segment_bytes=4096, sync_seconds=0)


class Model:
    """The store as the protocol is meant: a last number per replica, and sums."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.requests: Counter[str] = Counter()

    def apply(self, batch: Batch) -> tuple[int, int]:
        """What the script must answer: (status, last)."""
        last = self.last.get(batch.replica)
        if last is None and not batch.fresh:
            return -1, -1
        if last is not None and last >= batch.to:
            return 0, last
        if last is not None and last != batch.after:
            return -1, last
        self.last[batch.replica] = batch.to
        for delta in batch.deltas:
            if delta.series.dimension == "agent":
                self.requests[delta.series.value] += delta.counts[0]
        return 1, batch.to


class Network(Counters):
    """Counters whose batches meet a fate on their way; each also goes to the model."""

    model: Model
    fate = "arrive"
    sent: list[Batch]

    async def deliver(self, batch: Batch, fleet: int) -> BatchReply:
        """One batch at the store, and the model's opinion of the answer."""
        status, last = self.model.apply(batch)
        reply = await Counters.apply(self, batch, fleet)
        assert (reply.applied, reply.duplicate) == (status == 1, status == 0)
        assert reply.applied or reply.last == last
        return reply

    async def apply(self, batch: Batch, fleet_buckets: int = 0) -> BatchReply:
        """Deliver by the fate of the moment."""
        self.sent.append(batch)
        if self.fate == "request lost":
            raise StoreUnavailableError("request lost")
        reply = await self.deliver(batch, fleet_buckets)
        if self.fate == "reply lost":
            raise StoreUnavailableError("reply lost")
        return reply


class Machine(RuleBasedStateMachine):
    """Shared ground: a server, a loop and a link."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.server.command("FLUSHALL")
        self.clock = Clock()
        self.settings = self.server.settings()
        self.link = self.run_now(self._connect())

    async def _connect(self) -> Connection:
        return Connection(self.settings, self.server.url)

    def run_now(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run one coroutine to its end."""
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run_now(self.link.close())
        self.runner.close()


class Counting(Machine):
    """Two replicas count; the network and the processes misbehave."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="twm-"))
        self.model = Model()
        self.calls: list[Observation] = []
        self.networks: dict[str, Network] = {}
        self.ledgers: dict[str, Ledger] = {}
        for name in ("a", "b"):
            network = Network(self.link, self.settings, self.clock)
            network.model, network.sent = self.model, []
            self.networks[name] = network
            self.ledgers[name] = self.run_now(self._open(name))

    async def _open(self, name: str) -> Ledger:
        journal = Journal(self.folder / name, JOURNAL, clock=self.clock)
        return Ledger(journal, self.networks[name], self.clock)

    @rule(name=REPLICAS, count=st.integers(1, 12))
    def record(self, name: str, count: int) -> None:
        for _ in range(count):
            call = observation(len(self.calls), self.clock())
            self.calls.append(call)
            self.ledgers[name].record(call)

    @rule(name=REPLICAS, fate=FATES)
    def tick(self, name: str, fate: str) -> None:
        self.networks[name].fate = fate
        self.run_now(self.ledgers[name].tick())

    @precondition(lambda self: any(n.sent for n in self.networks.values()))
    @rule(name=REPLICAS, which=st.integers(0, 10**6))
    def arrives_again(self, name: str, which: int) -> None:
        network = self.networks[name]
        if network.sent:
            self.run_now(network.deliver(network.sent[which % len(network.sent)], 0))

    @rule(name=REPLICAS)
    def dies(self, name: str) -> None:
        self.ledgers[name].journal.close()
        self.ledgers[name] = self.run_now(self._open(name))

    @rule()
    def loses_everything(self) -> None:
        self.server.command("FLUSHALL")
        self.model.last.clear()
        self.model.requests.clear()

    @invariant()
    def never_more_than_there_was(self) -> None:
        if hasattr(self, "calls"):
            true = Counter(o.agent for o in self.calls)
            assert all(n <= true[agent] for agent, n in self.model.requests.items())

    def teardown(self) -> None:
        for name, ledger in self.ledgers.items():
            self.networks[name].fate = "arrive"
            assert self.run_now(ledger.flush(20))
            # A second look finds a loss that came after the last batch.
            for lane in ledger._lanes:
                lane._sent_at = -1e9
            assert self.run_now(ledger.flush(20))
        network = self.networks["a"]
        for by in ("total", "agent", "key_model"):
            rows = self.run_now(network.usage(by, "1h"))
            assert {r.value: r.counts for r in rows} == expected_usage(self.calls, by)
        for ledger in self.ledgers.values():
            ledger.journal.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        super().teardown()


class Sharing(Machine):
    """Three holders share a budget of 100; holders die, claims arrive late and again."""

    LIMIT = 100

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.holders = {name: self._holder() for name in "abc"}
        self.dead_spent = 0
        self.late: list[tuple[Leases, Claim]] = []

    def _holder(self) -> dict[str, Any]:
        leases = Leases(self.link, self.settings, lambda: self.now)
        return {"leases": leases, "spent": 0, "risk": 0, "ceiling": 0}

    def _claim(self, holder: dict[str, Any], ceiling: int) -> Claim:
        return Claim("b", "p", self.LIMIT, holder["spent"], holder["risk"], ceiling, 3600.0)

    @rule(name=st.sampled_from("abc"), more=st.integers(-30, 60), lost=st.booleans())
    def renews(self, name: str, more: int, lost: bool) -> None:
        holder = self.holders[name]
        wanted = max(holder["spent"] + holder["risk"], holder["ceiling"] + more)
        claim = self._claim(holder, wanted)
        holder["ceiling"] = min(holder["ceiling"], wanted)
        (grant,) = self.run_now(holder["leases"].claim([claim]))
        if not lost:
            holder["ceiling"] = grant.ceiling

    @rule(name=st.sampled_from("abc"), amount=st.integers(1, 40))
    def reserves(self, name: str, amount: int) -> None:
        holder = self.holders[name]
        if holder["spent"] + holder["risk"] + amount <= holder["ceiling"]:
            holder["risk"] += amount

    @rule(name=st.sampled_from("abc"), actual=st.integers(0, 40))
    def settles(self, name: str, actual: int) -> None:
        holder = self.holders[name]
        used = min(actual, holder["risk"])
        holder["spent"] += used
        holder["risk"] = 0

    @rule(name=st.sampled_from("abc"))
    def reports_and_dies(self, name: str) -> None:
        """Its last report told all; then its lease is made to end at once."""
        holder = self.holders[name]
        claim = self._claim(holder, holder["ceiling"])
        ended = Claim("b", "p", self.LIMIT, claim.spent, claim.at_risk, claim.ceiling, -1.0)
        self.run_now(holder["leases"].claim([ended]))
        self.dead_spent += holder["spent"] + holder["risk"]
        self.holders[name] = self._holder()

    @invariant()
    def never_past_the_limit(self) -> None:
        if not hasattr(self, "holders"):
            return
        held = sum(h["ceiling"] for h in self.holders.values())
        assert self.dead_spent + held <= self.LIMIT

    def teardown(self) -> None:
        """Nothing leaks: what the living return, one holder can have whole."""
        for holder in self.holders.values():
            holder["spent"] += holder["risk"]
            holder["risk"] = 0
            self.run_now(holder["leases"].claim([self._claim(holder, holder["spent"])]))
        last = self._holder()
        (grant,) = self.run_now(last["leases"].claim([self._claim(last, self.LIMIT)]))
        spent = self.dead_spent + sum(h["spent"] for h in self.holders.values())
        assert grant.ceiling == self.LIMIT - spent
        super().teardown()


def test_counting_is_exactly_once(shared_server: Server) -> None:
    Counting.server = shared_server
    run_state_machine_as_test(Counting, settings=STEPS)


def test_shares_never_pass_the_limit_and_never_leak(shared_server: Server) -> None:
    Sharing.server = shared_server
    run_state_machine_as_test(Sharing, settings=STEPS)
