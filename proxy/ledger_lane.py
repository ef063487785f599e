"""One shard's lane: getting every record counted exactly once.

Owns: what of the journal the shard has confirmed, the batch under way, and
going back to the journal when the two don't meet. Must never: send a batch
that overlaps another, or change one whose fate is unknown.

The store keeps, per replica, the number of the last record counted. A batch
says which records it holds, ``(after, to]``, and is counted only if ``after``
is that number. A lane whose batch got no answer sends the very same again; a
lane that finds the store elsewhere (restart, lost data, failover) goes back to
the journal.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from detection.types import Observation
from proxy.journal import Journal
from proxy.journal_segments import SegmentReader
from proxy.store.counters import Batch, BatchReply, Counters, Delta
from proxy.store.series import Place

Deltas = dict[tuple[Place, int], list[int]]
"""What calls add to the series of a place in a 10 s bucket."""

PENDING_CELLS = 20_000
#: The store adds up each series of a batch in one go, and answers nobody meanwhile.
BATCH_SERIES = 1_000
REPLAY_RECORDS = 64
ADVANCE_RECORDS = 5_000
PROBE_SECONDS = 5.0
_PROBE_TO = 2**53


def merge(into: Deltas, deltas: Deltas) -> None:
    """Add all of the second to the first."""
    for cell, counts in deltas.items():
        row = into.get(cell)
        into[cell] = counts if row is None else [a + b for a, b in zip(row, counts, strict=True)]


class _Waiting:
    """What is to be sent: the records up to ``to``."""

    __slots__ = ("_places", "_series", "deltas", "to")

    def __init__(self, to: int) -> None:
        self.to = to
        self.deltas: Deltas = {}
        self._places: set[Place] = set()
        self._series: set[str] = set()

    def take(self, to: int, deltas: Deltas, most: float = BATCH_SERIES) -> bool:
        """Grow by what comes next, unless a batch would have more than ``most`` series."""
        places = {place for place, _ in deltas} - self._places
        if places:
            fresh = set().union(*[place.ids for place in places]) - self._series
            if self.deltas and len(self._series) + len(fresh) > most:
                return False
            self._places |= places
            self._series |= fresh
        if self.deltas:
            merge(self.deltas, deltas)
        else:
            self.deltas = deltas
        self.to = to
        return True

    @property
    def half_full(self) -> bool:
        """Does it add to half as many series as a batch may?"""
        return len(self._series) >= BATCH_SERIES // 2


class Lane:
    """The state of one shard. All methods belong to one task but :meth:`offer`, which is sync."""

    def __init__(
        self,
        shard: int,
        journal: Journal,
        counters: Counters,
        fold: Callable[[Iterable[Observation]], Sequence[Deltas]],
        monotonic: Callable[[], float],
    ) -> None:
        self.shard = shard
        self._journal = journal
        self._counters = counters
        self._fold = fold
        self._monotonic = monotonic
        self._fresh = False
        self._pending: deque[_Waiting] = deque()
        self._inflight: Batch | None = None
        self._reader: SegmentReader | None = None
        self._sent_at = monotonic()
        self._behind = False
        self.acked: int | None = None
        self.offered = journal.last
        self.duplicates = self.rewinds = self.alarms = 0
        #: Rows sent, until somebody asks.
        self.rows = 0

    # ---- from the cut ----

    def offer(self, deltas: Deltas, to: int) -> None:
        """Take what the records up to ``to`` add to this shard's series."""
        self.offered = to
        if self.acked is None or self._behind:
            self._behind = True
            return
        if not self._pending or not self._pending[-1].take(to, deltas):
            self._pending.append(_Waiting(to))
            self._pending[-1].take(to, deltas)
        if sum(len(waiting.deltas) for waiting in self._pending) > PENDING_CELLS:
            self._fall_behind()

    def _fall_behind(self) -> None:
        """Forget the sums: they are in the journal."""
        self._pending.clear()
        self._behind = True

    # ---- to the store ----

    @property
    def settled(self) -> bool:
        """Whether everything offered is confirmed."""
        return (
            self.acked is not None
            and not self._behind
            and self._inflight is None
            and not any(waiting.deltas for waiting in self._pending)
        )

    @property
    def confirmed(self) -> int:
        """The last record that the store surely counted, as far as this shard goes."""
        return self.offered if self.settled else (self.acked or 0)

    async def step(self, fleet_buckets: int = 0) -> BatchReply | None:
        """Send one batch if there is something to send; its reply if it was counted.

        Raises
        ------
        StoreError
            The batch stays as it is and goes out again at the next step.
        """
        if self._inflight is None:
            self._inflight = await self._next_batch()
        batch = self._inflight
        if batch is None:
            return None
        reply = await self._counters.apply(batch, fleet_buckets)
        self._sent_at = self._monotonic()
        self._inflight = None
        self.alarms += len(reply.alarms)
        self.rows += len(batch.deltas)
        if reply.applied or (reply.duplicate and reply.last == batch.to):
            self.duplicates += reply.duplicate
            self.acked, self._fresh = batch.to, False
            return reply if reply.applied else None
        self._meet(reply.last)
        return None

    async def _next_batch(self) -> Batch | None:
        if self.acked is None:
            return self._probe()
        if self._behind:
            return await self._replay(self.acked)
        while self._pending:
            to, deltas = self._pending[0].to, self._pending[0].deltas
            if not deltas and len(self._pending) == 1 and to - self.acked < ADVANCE_RECORDS:
                break
            self._pending.popleft()
            if deltas or not self._pending:
                return self._batch(self.acked, to, deltas)
        if self._monotonic() - self._sent_at > PROBE_SECONDS:
            return self._probe()
        return None

    def _probe(self) -> Batch:
        """Asks for the last number; no store is ever there, so it is never counted."""
        return Batch(self.shard, self._journal.replica, -1, _PROBE_TO, ())

    def _batch(self, after: int, to: int, deltas: Deltas) -> Batch:
        rows = tuple(Delta(place, bucket, c) for (place, bucket), c in deltas.items())
        return Batch(self.shard, self._journal.replica, after, to, rows, self._fresh)

    def _meet(self, last: int) -> None:
        """Find the place to go on from, given what the store says it has."""
        if last > self._journal.last:
            self._journal.renew_identity(self._journal.opened_at)
            last = -1
        unknown = last < 0
        if unknown:
            last = max(self._journal.base, self._journal.first - 1)
        if last == self.acked and unknown == self._fresh:
            return
        if self.acked is not None:
            self.rewinds += 1
        self.acked, self._fresh = last, unknown
        self._pending.clear()
        self._behind = last < self.offered
        self._close_reader()

    # ---- from the journal ----

    async def _replay(self, acked: int) -> Batch | None:
        """The next batch of old records; the lane is live again when it reaches the cut."""
        if self._reader is None or self._reader.position != acked:
            self._close_reader()
            self._reader = self._journal.reader(acked)
        found = _Waiting(acked)
        reader = self._reader
        while reader.position < self.offered and not found.half_full:
            records = reader.take(REPLAY_RECORDS, self.offered)
            if not records:
                break
            found.take(reader.position, self._fold(o for _, o in records)[self.shard], math.inf)
            await asyncio.sleep(0)
        to = reader.position
        if to == acked and self._journal.waiting_for_disk:
            return None
        if to == acked or to >= self.offered:
            to = self.offered
            self._behind = False
            self._close_reader()
        return self._batch(acked, to, found.deltas)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
