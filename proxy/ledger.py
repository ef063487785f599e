"""The ledger: every finished call journalled, summed, and counted fleet-wide.

Owns: the path of a call's numbers from the request to the journal, to the
totals of this process and, once a tick, to the store. Must never: wait on the
request path, raise because of the disk or the store, or count a call twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from operator import add, itemgetter
from pathlib import Path
from typing import Any

import structlog

from detection.types import FleetBucket, Observation, Series
from proxy.bounded import make_room
from proxy.clock import Clock
from proxy.journal import Journal, JournalBusyError, JournalSettings
from proxy.ledger_lane import Deltas, Lane
from proxy.ledger_totals import Totals, summed
from proxy.store.counters import BatchReply, Counters
from proxy.store.errors import StoreError
from proxy.store.series import Counts, Place, series_of
from proxy.store.tasks import cancel

BUCKET_SECONDS = 10
FLEET_BUCKETS = 13
CUT_CALLS = 64
STEPS_A_TICK = 4
#: Combinations of names whose place in the store is known: about 1 kB each.
KNOWN_IDENTITIES = 120_000
#: Batches a second at most, whatever the load: ticks grow longer instead.
BATCHES_A_SECOND = 12
#: Callers that a lone replica tells the store of each second, if it can: the more there
#: are, the longer it waits for them to call again, since their calls share a row then.
ROWS_A_SECOND = 1_000
LONGEST_TICK_SECONDS = 1.0

log = structlog.get_logger(__name__)

FleetCallback = Callable[[Series, Sequence[FleetBucket]], None]
#: Start of the bucket (epoch seconds), one of the calls, and what they sum up to.
SumsCallback = Callable[[float, Observation, Sequence[int]], None]
Identity = tuple[Any, ...]
"""(client, provider, model, key, agent, project, endpoint, user, *tags): who calls what."""
Known = tuple[tuple[Place, ...], list[int] | None]
"""Where the calls of an identity count in the store, and in the totals once one did."""

_WHO = ("client", "provider", "model", "key", "agent", "project", "endpoint", "user")
_who = itemgetter(*map(Observation._fields.index, _WHO))  # by place: thrice as fast as by name


def identity_of(o: Observation) -> Identity:
    """Calls of one identity, but for the client, count in the same series."""
    return (*_who(o), *tags.items()) if (tags := o[7]) else _who(o)


class Ledger:
    """Counts what one worker's calls used.

    ``replicas`` tells how many replicas count into the same store; a lone one
    needn't hear what others counted.
    """

    def __init__(
        self,
        journal: Journal,
        counters: Counters,
        clock: Clock,
        *,
        tick_seconds: float = 0.1,
        max_label_sets: int = 2000,
        replicas: Callable[[], int] = lambda: 2,
    ) -> None:
        self.journal = journal
        self._counters = counters
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._replicas = replicas
        self._totals = Totals(max_label_sets)
        self._calls: list[Observation] = []
        self._known: dict[Identity, Known] = {}
        self._own: dict[Series, dict[int, list[int]]] = {}
        self._own_from: int | None = None
        self._callbacks: list[FleetCallback] = []
        self._sums: list[SumsCallback] = []
        self._lanes = [
            Lane(shard, journal, counters, self._fold, clock.monotonic)
            for shard in range(counters.shards)
        ]
        self._task: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._settled_at = self._forgot_at = self._synced_at = clock.monotonic()
        self.failures: dict[str, int] = {}

    # ---- the request path ----

    def record(self, observation: Observation) -> int:
        """Journal one finished call and count it; gives its record number."""
        number = self.journal.append(observation)
        self._calls.append(observation)
        if len(self._calls) >= CUT_CALLS:
            self._cut(number)
        return number

    def totals(self) -> Totals:
        """Everything counted in this process since it started, up to this moment."""
        self._cut(self.journal.last)
        return self._totals

    def on_fleet(self, callback: FleetCallback) -> None:
        """Call back with what *other* replicas counted in recent 10 s buckets of a series."""
        self._callbacks.append(callback)
        self._mind_company()

    def on_sums(self, callback: SumsCallback) -> None:
        """Call back with what calls of one identity in one 10 s bucket sum up to."""
        self._sums.append(callback)

    # ---- the cut: calls become series ----

    def _cut(self, to: int) -> None:
        """Sum up what came since the last cut and hand it to the lanes."""
        if not self._calls:
            return
        self.journal.flush()  # what isn't there must not be counted
        calls, self._calls = self._calls, []
        self._totals.detail(calls)
        for lane, deltas in zip(self._lanes, self._fold(calls, live=True), strict=True):
            if self._own_from is not None:
                self._keep_own(deltas)
            lane.offer(deltas, to)

    def _fold(self, calls: Iterable[Observation], *, live: bool = False) -> list[Deltas]:
        """What calls add, per shard; to the totals too, unless they are old records."""
        buckets: dict[int, dict[Identity, list[Observation]]] = {}
        running, cells = -1, {}  # type: tuple[int, dict[Identity, list[Observation]]]
        for o in calls:
            bucket = int(o[0]) // BUCKET_SECONDS
            if bucket != running:
                running, cells = bucket, buckets.setdefault(bucket, {})
            identity = identity_of(o)
            same = cells.get(identity)
            if same is None:
                cells[identity] = [o]
            else:
                same.append(o)
        shards: list[Deltas] = [{} for _ in range(self._counters.shards)]
        known = self._known
        for bucket, cells in buckets.items():
            for identity, same in cells.items():
                counts = summed(same)
                places, total = known.get(identity) or self._learn(identity, same[0])
                if live:
                    if total is None:
                        total = self._totals.row_of(same[0])
                        known[identity] = places, total
                    total[:] = map(add, total, counts)
                    self._tell_sums(bucket, same[0], counts)
                row = list(counts)
                for place in places:
                    shard, name = shards[place.shard], (place, bucket)
                    other = shard.get(name)
                    shard[name] = row if other is None else list(map(add, other, row))
        return shards

    def _tell_sums(self, bucket: int, sample: Observation, counts: Sequence[int]) -> None:
        for callback in self._sums:
            try:
                callback(float(bucket * BUCKET_SECONDS), sample, counts)
            except Exception:
                self._failed("sums")
                log.exception("a listener to the ledger's sums failed")

    def _learn(self, identity: Identity, sample: Observation) -> Known:
        """Where the calls of an identity count, worked out once."""
        shards: dict[int, list[Series]] = {}
        for series in series_of(sample):
            shards.setdefault(self._counters.shard_of(series), []).append(series)
        make_room(self._known, KNOWN_IDENTITIES)
        places = tuple(Place(series, shard) for shard, series in shards.items())
        known = self._known[identity] = places, None
        return known

    def _keep_own(self, deltas: Deltas) -> None:
        """Remember our own counts, to take them from the fleet's."""
        for (place, bucket), counts in deltas.items():
            for series in place.series:
                ring = self._own.setdefault(series, {})
                mine = ring.get(bucket)
                ring[bucket] = counts if mine is None else list(map(add, mine, counts))

    # ---- the tick ----

    async def start(self) -> None:
        """Begin ticking."""
        self._task = asyncio.create_task(self._run(), name="ledger")

    async def stop(self, timeout_seconds: float = 1.0) -> None:
        """Stop ticking; send what is left within the time, the rest stays in the journal."""
        await cancel([self._task])
        await self.flush(timeout_seconds)
        self.journal.close()

    async def flush(self, timeout_seconds: float = 1.0) -> bool:
        """Send until the store has everything or the time is over; whether it has."""
        deadline = self._clock.monotonic() + timeout_seconds
        while True:
            await self.tick()
            if self.settled or self._clock.monotonic() > deadline:
                return self.settled
            await asyncio.sleep(0.005)

    @property
    def settled(self) -> bool:
        """Whether the store confirmed every record up to the last cut."""
        return all(lane.settled for lane in self._lanes)

    async def _run(self) -> None:
        while True:
            started, sent = self._clock.monotonic(), 0
            try:
                sent = await self.tick()
            except Exception:
                self._failed("internal")
                log.exception("a tick of the ledger failed")
            spent = self._clock.monotonic() - started
            pause = max(self._tick_seconds, sent / len(self._lanes) / BATCHES_A_SECOND)
            pause = max(pause, self._gather(sent)) - spent
            await asyncio.sleep(max(self._tick_seconds / 10, pause))

    def _gather(self, sent: int) -> float:
        """How many seconds a lone replica may wait, that had no more than ``sent`` batches."""
        rows = 0
        for lane in self._lanes:
            rows, lane.rows = rows + lane.rows, 0
        if self._replicas() > 1 or sent >= STEPS_A_TICK:
            return 0.0
        return min(LONGEST_TICK_SECONDS, rows / ROWS_A_SECOND)

    async def tick(self) -> int:
        """Cut, send to every shard what it lacks, and tell what others counted.

        Gives how many batches were sent.
        """
        async with self._sending:
            self._mind_company()
            self.journal.retry()
            self._cut(self.journal.last)
            sent = sum(await asyncio.gather(*(self._advance(lane) for lane in self._lanes)))
        self.journal.acknowledge(min(lane.confirmed for lane in self._lanes))
        now = self._clock.monotonic()
        if self.settled:
            self._settled_at = now
        if now - self._forgot_at >= BUCKET_SECONDS:
            self._forgot_at = now
            self._forget_old()
        every = self.journal.settings.sync_seconds
        if every and now - self._synced_at >= every:
            self._synced_at = now
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.journal.sync)
        return sent

    def _mind_company(self) -> None:
        """Keep own counts only while there are others; what came before can't be told apart."""
        accompanied = bool(self._callbacks) and self._replicas() > 1
        if not accompanied:
            self._own_from = None
            self._own.clear()
        elif self._own_from is None:
            counted_before = self.journal.last > self.journal.opened_at
            self._own_from = int(self._clock() // BUCKET_SECONDS) + 1 if counted_before else 0

    async def _advance(self, lane: Lane) -> int:
        """Send what a lane has, a few batches at most; how many were counted."""
        fleet = 0 if self._own_from is None else FLEET_BUCKETS
        sent = 0
        while sent < STEPS_A_TICK and not (sent and lane.settled):
            try:
                reply = await lane.step(fleet)
            except StoreError as error:
                self._failed(type(error).__name__)
                break
            sent += 1
            if reply is not None:
                if reply.alarms:
                    log.error("store keys of a wrong type were set aside", keys=reply.alarms)
                self._tell(lane, reply)
        return sent

    def _failed(self, reason: str) -> None:
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def _tell(self, lane: Lane, reply: BatchReply) -> None:
        """Give each callback what others counted: the fleet's sums less our own.

        Only when nothing of ours is on its way, or the difference would be off.
        """
        first = self._own_from
        if not lane.settled or first is None:
            return
        for series, buckets in reply.fleet:
            own = self._own.get(series, {})
            others = [_less(b, fleet, own.get(b)) for b, fleet in buckets if b >= first]
            others = [bucket for bucket in others if any(bucket[1:])]
            if others:
                for callback in self._callbacks:
                    callback(series, others)

    def _forget_old(self) -> None:
        """Drop own buckets that no fleet reply can name any more."""
        oldest = int(self._clock() // BUCKET_SECONDS) - FLEET_BUCKETS - 1
        for series, ring in list(self._own.items()):
            for bucket in [b for b in ring if b < oldest]:
                del ring[bucket]
            if not ring:
                del self._own[series]

    # ---- facts ----

    @property
    def pending_records(self) -> int:
        """Records journalled and not yet confirmed by the store."""
        return self.journal.last - min(lane.confirmed for lane in self._lanes)

    @property
    def lag_seconds(self) -> float:
        """How long ago the store last had everything; 0 while it has."""
        return 0.0 if self.settled else self._clock.monotonic() - self._settled_at

    def health(self) -> dict[str, Any]:
        """Facts for the health page."""
        return {
            "settled": self.settled,
            "pending_records": self.pending_records,
            "lag_seconds": round(self.lag_seconds, 3),
            "duplicates_ignored": sum(lane.duplicates for lane in self._lanes),
            "rewinds": sum(lane.rewinds for lane in self._lanes),
            "wrong_type_keys": sum(lane.alarms for lane in self._lanes),
            "failures": dict(self.failures),
            "journal": self.journal.health(),
        }


def _less(bucket: int, fleet: Counts, own: list[int] | None) -> FleetBucket:
    mine = Counts.of(own) if own else Counts()
    return FleetBucket(
        bucket,
        max(0, fleet.requests - mine.requests),
        max(0, fleet.errors - mine.errors),
        max(0, fleet.tokens - mine.tokens),
        max(0, fleet.cost_nano_usd - mine.cost_nano_usd),
    )


async def count_left_behind(
    root: Path, counters: Counters, clock: Clock, settings: JournalSettings
) -> int:
    """Send what journals of workers that no longer run still hold; how many were looked at.

    ``root`` is the folder of all workers' journals. Those in use are left alone.
    """
    seen = 0
    for directory in sorted(path for path in root.iterdir() if path.is_dir()):
        try:
            journal = Journal(directory, settings, clock=clock, monotonic=clock.monotonic)
        except JournalBusyError:
            continue
        try:
            await Ledger(journal, counters, clock).flush(timeout_seconds=30.0)
            seen += 1
        finally:
            journal.close()
    return seen
