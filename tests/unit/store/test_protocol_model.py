"""The batch and share protocols against a pure model, with the real scripts beside it.

Hypothesis plays the network and the crashes: requests that never arrive,
replies that never come back, old batches that arrive again and out of order,
workers that die, a store that loses everything. Whatever the order, once the
network heals, the store has every record once; and no two shares of a budget
pass its limit.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
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

from detection.budget import Account
from detection.types import Mode, Observation
from proxy import gate_counters, gate_rules
from proxy.clock import Clock
from proxy.gate_decision import Decision
from proxy.gate_estimate import Estimate
from proxy.gate_rules import compile_limit
from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.settings import LimitSettings
from proxy.store.connection import Connection
from proxy.store.counters import Batch, BatchReply, Counters
from proxy.store.errors import StoreUnavailableError
from proxy.store.scripts import load
from tests.unit.store.support import Server, expected_usage, observation

STEPS = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
REPLICAS = st.sampled_from(["a", "b"])
HOLDERS = st.sampled_from("abc")
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
            for series in delta.place.series:
                if series.dimension == "agent":
                    self.requests[series.value] += delta.counts[0]
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


SETTINGS = LimitSettings(name="model", cost_usd=1e-7, per="day", mode="enforce")
(RULE,) = compile_limit(SETTINGS, Mode.ENFORCE)[0]


class Sharing(Machine):
    """Three replicas share a limit of 100; reports get lost, come late and again; replicas die."""

    LIMIT = 100

    @initialize()
    def begin(self) -> None:
        self.script, self.far = load("hold"), time.time() + 86_400
        self.gate = gate_counters.Counters(time.time)
        self.gate.alone = False
        self.born = 0
        self.holders = {name: self._holder() for name in "abc"}
        self.of_the_dead = 0

    def _holder(self) -> dict[str, Any]:
        self.born += 1
        counter = gate_rules.Counter(RULE, ("",))
        counter.account, counter.end = Account(self.LIMIT), float("inf")
        holder = {"id": f"r{self.born}", "counter": counter, "account": counter.account}
        return {**holder, "last": 0, "open": None, "sent": []}

    def _settle(self, holder: dict[str, Any], actual: int) -> None:
        """All that is reserved becomes ``actual``."""
        decision = Decision("allow")
        decision.holds = [(holder["counter"], holder["account"], holder["account"].reserved)]
        self.gate.settle(decision, Observation(ts=0.0, id="", cost_nano_usd=actual))

    def _send(self, holder: dict[str, Any], report: Any, ttl: float = 3600.0) -> list[int]:
        sequence, request = report
        args = [holder["id"], sequence, ttl, json.dumps([request])]
        reply = self.run_now(self.link.run(self.script, ["tw:{hold0}:model"], args))
        return [int(number) for number in reply]

    def _report(self, holder: dict[str, Any], extra: int) -> Any:
        """The one that waits for its answer, or a new one."""
        if holder["open"] is None:
            account = holder["account"]
            told = account.report(extra)
            holder["last"] += 1
            request = [self.LIMIT, told.used, told.want, told.keep, self.far, 0, 1, 0, 0]
            holder["open"] = holder["last"], [*request, account.reserved]
            holder["sent"].append(holder["open"])
        return holder["open"]

    def _answered(self, holder: dict[str, Any], reply: list[int]) -> None:
        (_, request), holder["open"] = holder["open"], None
        spent, charged, held, others = reply
        holder["account"].acknowledge(
            request[1], held=held, spent=spent, charged=charged, others=others
        )

    @rule(name=HOLDERS, extra=st.integers(0, 60), fate=FATES)
    def reports(self, name: str, extra: int, fate: str) -> None:
        holder = self.holders[name]
        report = self._report(holder, extra)
        if fate != "request lost":
            reply = self._send(holder, report)
            if fate == "arrive":
                self._answered(holder, reply)

    @rule(name=HOLDERS, which=st.integers(0, 10**6))
    def arrives_again(self, name: str, which: int) -> None:
        holder = self.holders[name]
        if holder["sent"]:
            self._send(holder, holder["sent"][which % len(holder["sent"])])

    @rule(name=HOLDERS, amount=st.integers(1, 40))
    def reserves(self, name: str, amount: int) -> None:
        counter = self.holders[name]["counter"]
        estimate = Estimate(0, amount, 0, 0, 0, True, ("", ""), 0)
        self.gate.reserve([counter], estimate, Decision("allow"), time.time(), final=False)

    @rule(name=HOLDERS, actual=st.integers(0, 40))
    def settles(self, name: str, actual: int) -> None:
        holder = self.holders[name]
        self._settle(holder, min(actual, holder["account"].reserved))

    @rule(name=HOLDERS)
    def reports_and_dies(self, name: str) -> None:
        """What it had told to be at risk stays counted; the rest of its share returns."""
        holder = self.holders[name]
        if holder["open"] is not None:
            self._answered(holder, self._send(holder, holder["open"]))
        self._answered(holder, self._send(holder, self._report(holder, 0), ttl=-1.0))
        self.of_the_dead += holder["account"].mine + holder["account"].reserved
        self.holders[name] = self._holder()

    @invariant()
    def never_past_the_limit(self) -> None:
        if hasattr(self, "holders"):
            accounts = [holder["account"] for holder in self.holders.values()]
            used = sum(account.mine + account.reserved for account in accounts)
            assert self.of_the_dead + used <= self.LIMIT

    def teardown(self) -> None:
        """Nothing leaks: what the living return, one holder can have whole."""
        spent = self.of_the_dead
        for holder in self.holders.values():
            account = holder["account"]
            self._settle(holder, account.reserved)
            for _ in range(2):
                self._answered(holder, self._send(holder, self._report(holder, 0)))
            spent += account.mine
        last = self._holder()
        self._answered(last, self._send(last, self._report(last, self.LIMIT)))
        assert last["account"].hold == self.LIMIT - spent
        super().teardown()


def test_a_late_report_takes_nothing_from_who_moved_on(shared_server: Server) -> None:
    Sharing.server = shared_server
    run = Sharing()
    run.begin()
    run.reports("a", 0, "arrive")
    run.reports("a", 60, "arrive")
    run.arrives_again("a", 0)
    run.reports("b", 60, "arrive")
    for name in "ab":
        run.reserves(name, 40)
        run.reserves(name, 20)
        run.never_past_the_limit()
    run.teardown()


def test_counting_is_exactly_once(shared_server: Server) -> None:
    Counting.server = shared_server
    run_state_machine_as_test(Counting, settings=STEPS)


def test_shares_never_pass_the_limit_and_never_leak(shared_server: Server) -> None:
    Sharing.server = shared_server
    run_state_machine_as_test(Sharing, settings=STEPS)
