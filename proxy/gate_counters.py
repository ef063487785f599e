"""Counting calls against limits and budgets, within what this replica holds.

Owns: the counters in use, reserving and settling on their accounts, and the
list of accounts that need the store. Must never: do I/O; what it needs it
leaves for :mod:`proxy.enforcement` to fetch.

With nobody attached that fetches shares, this process counts alone and holds
every limit whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence

from detection.budget import Account
from detection.types import Mode, Observation
from proxy import gate_refusals as say
from proxy.context import RequestContext
from proxy.gate_decision import Decision, Hold
from proxy.gate_estimate import Estimate
from proxy.gate_rules import (
    CallCap,
    Counter,
    Rule,
    RuleIndex,
    compile_budget,
    compile_limit,
)
from proxy.providers.base import Refusal
from proxy.settings import BudgetSettings, LimitSettings

_FRESH_SECONDS = 0.5
#: Counters known at once, more or less: about 1 kB each.
MOST_COUNTERS = 120_000
_IDLE_SECONDS = 900.0
_IDLE_AT_LEAST_SECONDS = 2.0

Ready = Callable[[bool], None]
Waiter = tuple[tuple[Hold, ...], Ready]


class Counters:
    """Every limit and budget, and where each stands.

    ``dirty`` are the counters with something to tell the store, ``retired`` the
    accounts of periods that ended with calls still running in them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._index = RuleIndex(())
        self._caps: list[CallCap] = []
        self._counters: dict[tuple[Rule, tuple[str, ...]], Counter] = {}
        self.replicas = 1
        self.available = True
        self.alone = True
        #: A copy of what is at risk that outlives the process, by ``account.place``.
        self.mirror: MutableSequence[int] | memoryview = []
        self.dirty: set[Counter] = set()
        self.retired: dict[str, tuple[Counter, Account, float]] = {}
        self._waiters: list[Waiter] = []
        self._forgot_at = 0.0
        self.on_wait: Callable[[], None] = lambda: None
        #: Called where counters are gone that plans may still point at.
        self.on_forgotten: Callable[[], None] = lambda: None
        #: Counters that refused (or would have), for incidents: counter -> calls refused.
        self.crossed: dict[Counter, int] = {}

    # -- settings ---------------------------------------------------------------

    def configure(
        self, master: Mode, limits: Sequence[LimitSettings], budgets: Sequence[BudgetSettings]
    ) -> None:
        """Take new settings; a rule whose count means the same keeps its count."""
        rules: list[Rule] = []
        self._caps = []
        for limit in limits:
            found, cap = compile_limit(limit, master)
            rules += found
            if cap is not None:
                self._caps.append(cap)
        rules += [compile_budget(budget, master) for budget in budgets]
        old = {_identity(counter.rule): counter.rule for counter in self._counters.values()}
        renewed = {old[_identity(r)]: r for r in rules if _identity(r) in old}
        kept: dict[tuple[Rule, tuple[str, ...]], Counter] = {}
        for (rule, values), counter in self._counters.items():
            new = renewed.get(rule)
            if new is not None:
                counter.rule = new
                counter.account.limit = counter.limit_now
                if self.alone:
                    counter.account.hold = counter.account.limit - counter.account.mine
                kept[new, values] = counter
            else:
                self._retire(counter, counter.account)
        self._counters = kept
        self._index = RuleIndex(rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force."""
        return self._index.rules

    @property
    def dimensions(self) -> set[str]:
        """What has to be known of a call."""
        return self._index.dimensions | {d for cap in self._caps for d in cap.match.dimensions}

    def __iter__(self) -> Iterator[Counter]:
        return iter(self._counters.values())

    def know(self, counter: Counter) -> bool:
        """Whether this is one of them, still."""
        return self._counters.get((counter.rule, counter.values)) is counter

    def __len__(self) -> int:
        return len(self._counters)

    # -- plans ------------------------------------------------------------------

    def of(self, ctx: RequestContext, own: Iterable[Rule] = ()) -> tuple[Counter, ...]:
        """The counters of a call; ``own`` are the rules of its key."""
        found = [self._counter(rule, values) for rule, values in self._index.of(ctx)]
        found += [self._counter(rule, (ctx.key or "",)) for rule in own]
        return tuple(found)

    def totals(self) -> list[Counter]:
        """The counters of rules that count calls of everybody together."""
        return [self._counter(rule, ("",)) for rule in self.rules if rule.by == ("total",)]

    def caps_of(self, ctx: RequestContext) -> tuple[CallCap, ...]:
        """The caps on the cost of one call that apply."""
        return tuple(cap for cap in self._caps if cap.match.matches(ctx))

    def _counter(self, rule: Rule, values: tuple[str, ...]) -> Counter:
        counter = self._counters.get((rule, values))
        if counter is None:
            if len(self._counters) >= MOST_COUNTERS:
                self._forget_some()
            counter = self._counters[rule, values] = Counter(rule, values)
        return counter

    def _forget_some(self) -> None:
        now = self._clock()
        if now - self._forgot_at > _IDLE_AT_LEAST_SECONDS:
            self._forgot_at = now
            if self.forget_idle(now, _IDLE_AT_LEAST_SECONDS):
                self.on_forgotten()

    def forget_idle(self, now: float, idle_seconds: float = _IDLE_SECONDS) -> bool:
        """Drop counters nobody uses; whether plans may now point at dropped ones."""
        gone = [
            name
            for name, c in self._counters.items()
            if now - c.seen > idle_seconds and now >= (c.end if self.alone else c.seen)
            if not (c.account.reserved or (c.account.pending and not self.alone))
            if self.alone or c.account.hold <= 0
        ]
        for name in gone:
            del self._counters[name]
        return bool(gone)

    # -- one call ---------------------------------------------------------------

    def reserve(
        self,
        counters: Sequence[Counter],
        estimate: Estimate | None,
        decision: Decision,
        now: float,
        *,
        final: bool,
    ) -> Decision | None:
        """Set aside what a call needs everywhere, or nothing and say why not."""
        holds = decision.holds
        dirty = self.dirty
        # What is priced has an estimate.
        tokens, cost = (0, 0) if estimate is None else estimate[:2]
        amounts = (1, cost, tokens, 1)  # in the order of UNITS
        for counter in counters:
            if now >= counter.end:
                self.roll(counter, now)
            account = counter.account
            amount = amounts[counter.unit]
            counter.seen = now
            if now > account.until:
                account.lapse()
            reserved, pending = account.reserved, account.pending
            if account.hold - reserved - pending < amount and counter.rule.judges:
                refused = self._short(counter, amount, decision, now, final=final)
                if refused is not None:
                    self.give_back(decision)
                    return refused
            account.reserved = reserved = reserved + amount
            place = account.place
            if place >= 0:
                self.mirror[place] = reserved + pending
            if amount > counter.last:
                counter.last = amount
            holds.append((counter, account, amount))
            dirty.add(counter)
        return None

    def _short(
        self, counter: Counter, amount: int, decision: Decision, now: float, *, final: bool
    ) -> Decision | None:
        """What to do where the hold does not cover a call; ``None`` lets it pass."""
        rule, account = counter.rule, counter.account
        if not self.available and rule.strict:
            return self._store_away(counter, amount, now)
        known = self.alone or now - account.heard_at < _FRESH_SECONDS
        exhausted = amount > counter.limit_now or (known and account.remaining < amount)
        if rule.mode is Mode.SHADOW:
            # Nobody waits for the store here; but what is used stays used.
            used = account.total + account.reserved
            if exhausted or account.limit - used < amount:
                decision.might("block", rule.name, counter.series)
                self.crossed[counter] = self.crossed.get(counter, 0) + 1
            return None
        if not exhausted:
            if not final:
                waiting = Decision("wait", rule=rule.name)
                waiting.holds = [(counter, account, amount)]
                return waiting
            return self._store_away(counter, amount, now)
        self.crossed[counter] = self.crossed.get(counter, 0) + 1
        refusal = say.by_limit(counter, amount, now)
        word = "throttle" if refusal.kind == "throttle" else "block"
        return Decision(
            word,
            refusal=refusal,
            rule=rule.name,
            headers=(("x-tokenweir-decision", word), *say.rate_headers(counter, now)),
        )

    def _store_away(self, counter: Counter, amount: int, now: float) -> Decision | None:
        rule, account = counter.rule, counter.account
        if rule.on_store_down == "open":
            return None
        if rule.on_store_down == "share":
            share = counter.limit_now // max(1, self.replicas)
            if account.mine + account.reserved + amount <= share:
                return None
        self.crossed[counter] = self.crossed.get(counter, 0) + 1
        if account.remaining < amount or rule.on_store_down == "share":
            refusal = say.by_limit(counter, amount, now)
        else:
            refusal = say.store_away(counter)
        word = {"unavailable": "unavailable", "throttle": "throttle"}.get(refusal.kind, "block")
        return Decision(
            word, refusal=refusal, rule=rule.name, headers=(("x-tokenweir-decision", word),)
        )

    def extend(self, decision: Decision, tokens: int, now: float) -> Refusal | None:
        """Set more aside for an answer that outgrows its estimate; a refusal ends it."""
        output_rate = decision.estimate.output_rate if decision.estimate is not None else 0
        for i, (counter, account, amount) in enumerate(decision.holds):
            rule = counter.rule
            if rule.metric == "cost":
                more = tokens * output_rate
            elif rule.metric == "tokens":
                more = tokens
            else:
                continue
            fits = account.hold - account.reserved - account.pending >= more
            if not fits and rule.strict and rule.cuts and account.remaining < more:
                self.crossed[counter] = self.crossed.get(counter, 0) + 1
                return say.by_limit(counter, more, now)
            account.reserved += more
            self._note(account)
            decision.holds[i] = (counter, account, amount + more)
            self.dirty.add(counter)
        return None

    def settle(self, decision: Decision, done: Observation) -> None:
        """Replace what was set aside by what was used."""
        status, _, given, _, _, made, _, cost, source = done[13:22]
        tokens = None if given is None and made is None else (given or 0) + (made or 0)
        used = (1, cost, tokens, 0)  # in the order of UNITS
        dirty = self.dirty
        for counter, account, amount in decision.holds:
            actual = used[counter.unit]
            if actual is None:
                # What can't be known is billed as it was estimated.
                sent = source != "unknown" or (status is not None and status < 400)
                actual = amount if sent else 0
            account.reserved = reserved = account.reserved - amount
            account.pending = pending = account.pending + actual
            account.mine += actual
            place = account.place
            if place >= 0:
                self.mirror[place] = reserved + pending
            if account is counter.account:
                dirty.add(counter)
        decision.holds = []

    def give_back(self, decision: Decision) -> None:
        """What was set aside was not used."""
        for counter, account, amount in decision.holds:
            account.reserved -= amount
            self._note(account)
            self.dirty.add(counter)
        decision.holds = []

    def _note(self, account: Account) -> None:
        if account.place >= 0:
            self.mirror[account.place] = account.reserved + account.pending

    # -- periods and waiting ----------------------------------------------------

    def roll(self, counter: Counter, now: float) -> None:
        """Begin a counter's new period."""
        name, end = counter.account_name, counter.end
        old = counter.roll(now, alone=self.alone)
        if old is not None and not self.alone:
            self.retired[name] = (counter, old, end)

    def _retire(self, counter: Counter, account: Account) -> None:
        self.dirty.discard(counter)
        if not self.alone and (account.reserved or account.pending or account.hold):
            self.retired[counter.account_name] = (counter, account, counter.end)

    def names(self, dimension: str, value: str) -> bool:
        """Whether a limit or budget is for this very value."""
        return self._index.names(dimension, value)

    def wait_for(self, holds: Sequence[Hold], ready: Ready) -> None:
        """Call ``ready(answered)`` once the accounts' shares were asked for."""
        for counter, account, amount in holds:
            account.waiting += amount
            self.dirty.add(counter)
        self._waiters.append((tuple(holds), ready))
        self.on_wait()

    def take_waiters(self, most: int | None = None) -> list[Waiter]:
        """Those whom the next exchange with the store asks for; who comes later waits on."""
        waiters, self._waiters = self._waiters[:most], self._waiters[len(self._waiters[:most]) :]
        return waiters

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for a share."""
        return bool(self._waiters)

    def release(self, waiters: list[Waiter], *, answered: bool) -> None:
        """The store answered (or didn't): let those who waited try again, in order."""
        for holds, _ in waiters:
            for _, account, amount in holds:
                account.waiting -= amount
        for _, ready in waiters:
            ready(answered)


def _identity(rule: Rule) -> tuple[object, ...]:
    """What makes two rules count the same thing."""
    return (rule.name, rule.metric, rule.per, rule.by, rule.rolling, str(rule.zone))
