"""Shares of limits and budgets: asking the store ahead of need, and telling what was used.

Owns: the reports of this replica, their repetition until they are answered, and
how much is asked for. Must never: count a report twice, or let more be admitted
than the store has set aside.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import orjson

from detection.budget import Account, headroom
from proxy.enforcement_mirror import Mirror, Remains
from proxy.gate_counters import MOST_COUNTERS, Counters
from proxy.gate_rules import Counter, Rule
from proxy.store.scripts import Script, load

#: A replica that has not been heard for this long is taken for dead.
TTL_SECONDS = 10
#: For so long a replica that hears nothing trusts its whole hold.
_TRUSTED_SECONDS = 8.0
_KEEP_SECONDS = 86_400.0
_IDLE_SECONDS = 1.0
_BATCH = 400
_PACE = 0.3
#: A lease that is a small part of what remains may rest: it is kept for so long without a
#: report, so that a caller who comes now and then finds it, and costs nothing meanwhile.
REST_SECONDS = 600
_REST_PART = 16
_REST_IDLE_SECONDS = 300.0
_RENEW_SECONDS = 60.0
#: The store hears of an account a tenth of a second after a call, or as soon as so many
#: a second allow, and at the latest within so long; one that runs short at once. What a
#: resting lease covers anyway can wait longer: nobody else may use it.
_ACCOUNTS_A_SECOND = 2_000
_LATEST_SECONDS = 4.0
_RESTING_A_SECOND = 250
_RESTING_LATEST_SECONDS = 20.0
#: Places in a request, see hold.lua.
_KEEP, _RISK = 3, 9


class Link(Protocol):
    """The store's connection, as far as it is needed here."""

    async def run(self, script: Script, keys: list[str], args: list[Any]) -> Any: ...


@dataclass(slots=True)
class _Item:
    """One account in a report: where it belongs, and the request as it is repeated."""

    counter: Counter | None
    account: Account | None
    name: str
    used: int
    request: list[int | float]
    before: str = ""
    stays_seconds: float = 0.0

    def stay_within_hold(self) -> None:
        """Ask to keep no more than is still held; it may have lapsed since the last try."""
        if self.account is not None and self.counter is not None:
            kept = max(0, self.account.hold - self.used)
            self.request[_KEEP] = min(self.request[_KEEP], kept)


def _recovered(left: Remains, now: float) -> _Item:
    """What an earlier process of this replica left: reported, and held no longer."""
    keep = now + _KEEP_SECONDS
    request = [0, left.at_risk, 0, 0, keep, 0, 1, left.sent_sequence, left.sent_used, 0]
    return _Item(None, None, left.account, left.at_risk, request)


class Holds:
    """One worker's reports.

    Parameters
    ----------
    shards
        Over how many hash slots accounts are spread; the same for all replicas.
    mirror
        What outlives the process; ``None`` where there is no disk for it.
    """

    def __init__(
        self,
        counters: Counters,
        link: Link,
        clock: Callable[[], float],
        *,
        replica: str,
        prefix: str,
        shards: int,
        mirror: Mirror | None,
    ) -> None:
        self._counters = counters
        self._link = link
        self._clock = clock
        self._prefix = prefix
        self._shards = shards
        self._mirror = mirror
        self.replica = replica
        self._sequence = int(clock() * 1e6)
        self._script = load("hold")
        self._unanswered: dict[int, tuple[int, list[_Item]]] = {}
        self._recover: list[_Item] = []
        self._floors: dict[str, int] = {}
        #: Accounts at rest, by when their leases end; the first to end comes first.
        self._resting: dict[Counter, float] = {}
        #: Accounts that the store is to hear of when there is time, by when that began.
        self._later: dict[Counter, float] = {}
        self._looked_at = 0.0
        self._ends = False
        self.reports = 0
        self._one_at_a_time = asyncio.Lock()
        if mirror is not None:
            counters.mirror = mirror.numbers
            self._recover = [_recovered(left, clock()) for left in mirror.left]

    async def report(self, first: Iterable[Counter] = ()) -> None:
        """Tell what was used, and get what is needed next, ``first`` by all means.

        Raises
        ------
        StoreError
            No answer; the same report is repeated next time.
        """
        async with self._one_at_a_time:
            await self._report(first)

    async def _report(self, first: Iterable[Counter]) -> None:
        by_shard: dict[int, list[_Item]] = {
            shard: [] for shard in range(self._shards) if shard not in self._unanswered
        }
        room = len(by_shard) * _BATCH
        for item in self._due(first):
            items = by_shard.get(zlib.crc32(item.name.encode()) % self._shards)
            if items is not None and len(items) < _BATCH:
                items.append(item)
                room -= 1
                if not room:
                    break
        for shard, items in by_shard.items():
            if items:
                self._sequence += 1
                for item in items:
                    self._prepare(item)
                self._unanswered[shard] = (self._sequence, items)
        for shard, (sequence, items) in list(self._unanswered.items()):
            for item in items:
                item.stay_within_hold()
            reply = await self._link.run(
                self._script,
                [f"{self._prefix}:{{hold{shard}}}:{item.name}" for item in items],
                [
                    self.replica,
                    sequence,
                    TTL_SECONDS,
                    orjson.dumps([item.request for item in items]).decode(),
                ],
            )
            del self._unanswered[shard]
            self.reports += 1
            self._answered(items, [int(float(number)) for number in reply])

    # -- what to tell -----------------------------------------------------------

    def _due(self, first: Iterable[Counter]) -> Iterable[_Item]:
        now = self._clock()
        yield from self._recover
        self._wake(now)
        for counter in self._most_urgent(first, now):
            yield _Item(counter, counter.account, counter.account_name, 0, [])
            if counter.rule.rolling:
                for name in counter.before:
                    if counter.checked.get(name, 0.0) < now - _IDLE_SECONDS:
                        yield _Item(counter, None, f"{counter.stem}:{name}", 0, [], before=name)
        for name, (counter, account, _) in list(self._counters.retired.items()):
            yield _Item(counter, account, name, 0, [])

    def _most_urgent(self, first: Iterable[Counter], now: float) -> Iterable[Counter]:
        """Those to be told of now: who is waited for, then who was not heard for longest."""
        dirty = self._counters.dirty
        every = min(_LATEST_SECONDS, len(dirty) / _ACCOUNTS_A_SECOND)
        waited_for, others = dict.fromkeys(first), []
        for counter in [*waited_for, *dirty]:
            if now >= counter.end:
                self._counters.roll(counter, now)
            account = counter.account
            left = account.until - now
            if account.waiting:
                waited_for[counter] = None
            elif account.reserved + account.pending > account.hold // 2:
                others.append(counter)
            elif _RENEW_SECONDS < left <= REST_SECONDS:
                dirty.discard(counter)
                self._later.setdefault(counter, now)
            elif now - account.heard_at >= every or left < _LATEST_SECONDS:
                others.append(counter)
        others += self._no_longer_later(now)
        others.sort(key=lambda counter: counter.account.heard_at)
        return dict.fromkeys([*waited_for, *others])

    def _no_longer_later(self, now: float) -> list[Counter]:
        """Those whose calls a resting lease covers, and who waited long enough to be told of."""
        later, found = self._later, []
        wait = 0.0 if self._ends else min(_RESTING_LATEST_SECONDS, len(later) / _RESTING_A_SECOND)
        for counter in list(islice(later, _BATCH)):
            if now - later[counter] < wait:
                break
            del later[counter]
            if self._counters.know(counter):
                if now >= counter.end:
                    self._counters.roll(counter, now)
                # Until it is answered: there may be no room for it now.
                self._counters.dirty.add(counter)
                found.append(counter)
        return found

    def _wake(self, now: float) -> None:
        """Have the leases that soon end told of again: kept, or given back where idle."""
        if now - self._looked_at < _IDLE_SECONDS:
            return
        self._looked_at = now
        for counter in list(islice(self._resting, _ACCOUNTS_A_SECOND)):
            if self._resting[counter] - now > _RENEW_SECONDS:
                break
            del self._resting[counter]
            if self._counters.know(counter):
                self._counters.dirty.add(counter)

    def rouse(self) -> None:
        """Have all leases told of: the store may have lost them."""
        self._counters.dirty.update(filter(self._counters.know, self._resting))
        self._resting.clear()

    async def give_back(self, seconds: float) -> None:
        """Give all leases back, or as many as the time allows, before this replica ends.

        Raises
        ------
        StoreError
            No answer.
        """
        counters, until = self._counters, self._clock() + seconds
        self._resting.clear()
        self._ends = True
        for counter in counters:
            counter.seen = 0.0
            if counter.account.hold:
                counters.dirty.add(counter)
        left = -1
        while left != (left := len(counters.dirty) + len(self._later)) and self._clock() < until:
            await self.report()

    def _prepare(self, item: _Item) -> None:
        """Fix what is told of an account; from here it is only repeated."""
        account, counter = item.account, item.counter
        if item.request or counter is None:
            return
        rule, now = counter.rule, self._clock()
        charge = int(rule.metric != "in_flight")
        expires = max(now, counter.end if counter.end < now + 40 * _KEEP_SECONDS else now)
        expires += _KEEP_SECONDS
        if account is None:
            item.request = [rule.limit, 0, 0, 0, expires, 0, charge, 0, 0, 0]
            return
        extra = self._headroom(counter, now) if account is counter.account else 0
        rests = extra > 0 and self._may_rest(counter, extra)
        item.stays_seconds = REST_SECONDS if rests else TTL_SECONDS
        report = account.report(extra)
        floor = self._floors.pop(item.name, 0)
        item.used = report.used
        item.request = [account.limit, report.used, report.want, report.keep]
        # One more call may be let through before this replica is heard again.
        risk = account.reserved + account.waiting + min(extra, counter.last)
        account.secured = min(account.secured, risk)
        item.request += [expires, floor, charge, 0, 0, risk, item.stays_seconds]
        if self._mirror is not None:
            if account.place < 0:
                account.place = self._mirror.assign(item.name)
                if account.place >= 0:
                    self._mirror.numbers[account.place] = account.reserved + account.pending
            self._mirror.sent(account.place, self._sequence, report.used)

    def _headroom(self, counter: Counter, now: float) -> int:
        account = counter.account
        used = account.mine - counter.mine_before
        passed = now - counter.paced_at
        if passed > 0:
            pace = used / passed if counter.paced_at else 0.0
            counter.rate += _PACE * (pace - counter.rate)
            counter.paced_at, counter.mine_before = now, account.mine
        idle = now - counter.seen
        if idle <= _REST_IDLE_SECONDS:
            last = int(counter.last * 0.98)
            if not last and _lasts(counter.rule):
                last = counter.last
            extra = headroom(
                per_second=counter.rate,
                largest=max(last, counter.rule.limit // 1000),
                remaining=account.remaining,
                replicas=self._counters.replicas,
            )
            if idle <= _IDLE_SECONDS or self._may_rest(counter, extra):
                counter.last = last
                return extra
        counter.last = 0
        return 0

    def _may_rest(self, counter: Counter, extra: int) -> bool:
        """Whether others hardly miss a lease: it is so small a part of what remains.

        Not where counts end within minutes anyway, or more accounts are known than can be.
        """
        counters = self._counters
        if not _lasts(counter.rule) or len(counters) >= MOST_COUNTERS:
            return False
        return extra * _REST_PART * counters.replicas <= counter.account.remaining

    # -- what was answered ------------------------------------------------------

    def _answered(self, items: Sequence[_Item], numbers: list[int]) -> None:
        now = self._clock()
        for i, item in enumerate(items):
            spent, charged, held, others = numbers[4 * i : 4 * i + 4]
            counter, account = item.counter, item.account
            if counter is None:
                self._recover = [r for r in self._recover if r is not item]
                continue
            if account is None:
                counter.heard_before(item.before, spent + charged + others, now)
                continue
            if spent < account.spent:
                self._floors[item.name] = account.spent + item.used
                self._counters.dirty.add(counter)
            account.acknowledge(
                item.used,
                held=held,
                spent=max(spent, account.spent),
                charged=charged,
                others=others,
            )
            account.heard_at = now
            account.secured = min(held, int(item.request[_RISK]))
            account.until = now + _TRUSTED_SECONDS + item.stays_seconds - TTL_SECONDS
            if self._mirror is not None and account.place >= 0:
                self._mirror.sent(account.place, 0, 0)
                self._mirror.numbers[account.place] = account.reserved + account.pending
            self._settle_down(counter, account, item.name)

    def _settle_down(self, counter: Counter, account: Account, name: str) -> None:
        """Stop telling of what is at rest."""
        if account.reserved or account.pending or account.waiting:
            return
        if account.hold:
            if account.until - self._clock() > 2 * _RENEW_SECONDS and name not in self._floors:
                self._counters.dirty.discard(counter)
                self._resting.pop(counter, None)
                self._resting[counter] = account.until
            return
        if account is counter.account:
            self._resting.pop(counter, None)
            if name not in self._floors and not account.waiting:
                self._counters.dirty.discard(counter)
        else:
            self._counters.retired.pop(name, None)
        if self._mirror is not None:
            self._mirror.release(account.place)
            account.place = -1


def _lasts(rule: Rule) -> bool:
    """Whether what is counted stays counted for longer than some minutes."""
    return not (rule.rolling or rule.metric == "in_flight")
