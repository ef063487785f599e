"""The rollups of every dimension: which there are, and how fresh an answer must be.

Owns: reading ahead, so that no page waits for the store to go through thousands of
series. Must never: keep the store or memory busy for pages that nobody looks at.

A rollup of which little has changed is read for every question. One that takes longer
answers with what it last read, as long as that is no older than
:data:`USEFUL_SECONDS`, and is read again behind the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from proxy.admin.rollup import Rollup, TooManySeriesError, beside, buckets_of
from proxy.admin.sums import Sums
from proxy.store.counters import Bucket, Counters
from proxy.store.errors import StoreError

#: The windows of pages and API, in seconds.
WINDOWS = {
    "15m": 900,
    "1h": 3600,
    "6h": 6 * 3600,
    "24h": 86_400,
    "7d": 7 * 86_400,
    "30d": 30 * 86_400,
    "90d": 90 * 86_400,
}
#: What the pages ask of, those first that are asked of first.
WARM = ("total", "provider", "model", "project", "key", "agent")
USEFUL_SECONDS = 40.0

_CHEAP_CALLS = 5
_WARM_SECONDS = 30.0
#: Nothing is read, and nothing kept, where nobody has asked for so long.
_IDLE_SECONDS = 1800.0
_AHEAD_SECONDS = 60.0
_TOO_MANY_SECONDS = 600.0
#: The window that tables open with.
_FIRST_SECONDS = 86_400
#: Each window, and for comparison the same span before it as well.
_SPANS = tuple(seconds * times for seconds in WINDOWS.values() for times in (1, 2))

log = structlog.get_logger()


class Rollups:
    """Sums per series of a dimension over a window.

    Parameters
    ----------
    counters
        The store's counters.
    clock
        Epoch seconds of the store.
    """

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._clock = clock
        self._parts: dict[str, list[Rollup]] = {}
        self._behind: dict[str, asyncio.Task[None]] = {}
        self._too_many: dict[str, float] = {}
        self._waiting = 0
        self._free = asyncio.Event()
        self._free.set()
        self._expected = asyncio.Event()
        self._expected_at = 0.0
        self._standard: tuple[int, set[Bucket]] = (0, set())

    async def sums(self, by: str, seconds: float) -> Sums | None:
        """The sums, or ``None`` where there are more series than are kept in memory.

        Raises
        ------
        StoreError
            While the store does not answer.
        """
        self.expect()
        now = self._clock()
        if now < self._too_many.get(by, 0.0):
            return None
        parts = self._of(by)
        buckets = buckets_of(now, seconds)
        known = all(part.holds(buckets) for part in parts)
        age = max(part.age(now) for part in parts)
        took = max(part.took_seconds for part in parts)
        cheap = max(part.took_calls for part in parts) <= _CHEAP_CALLS
        self._waiting += 1
        self._free.clear()
        try:
            if not known:
                # No more than this question needs and what it is compared with.
                wanted = buckets | buckets_of(now, 2 * seconds)
                await self._read(by, now, wanted.union(*(part.held for part in parts)))
            elif cheap or age > USEFUL_SECONDS:
                await self._read(by, now, self._wanted(now) | buckets)
            elif age > 5 * took and by not in self._behind:
                self._behind[by] = asyncio.create_task(self._read_behind(by))
        except TooManySeriesError:
            return None
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._free.set()
        return await beside(
            sum(part.size for part in parts),
            lambda: Sums.together([part.sums(now, seconds) for part in parts]),
        )

    def expect(self) -> None:
        """Somebody is there who will ask."""
        self._expected_at = time.monotonic()
        self._expected.set()

    async def run(self) -> None:
        """Read ahead while somebody asks, until cancelled."""
        while True:
            await self._expected.wait()
            # First what a page asks first, of every dimension.
            now = self._clock()
            first = buckets_of(now, _FIRST_SECONDS) | buckets_of(now, 2 * _FIRST_SECONDS)
            for by in WARM:
                await self._nobody_waits()
                await self._read_behind(by, first.union(*(part.held for part in self._of(by))))
            while time.monotonic() - self._expected_at < _IDLE_SECONDS:
                for by in dict.fromkeys((*WARM, *self._parts)):
                    await self._nobody_waits()
                    if by not in self._behind:
                        await self._read_behind(by)
                await asyncio.sleep(_WARM_SECONDS)
            self._expected.clear()
            self._parts.clear()

    async def _nobody_waits(self) -> None:
        """Leave the store to those who wait for an answer."""
        await self._free.wait()

    def _of(self, by: str) -> list[Rollup]:
        if by not in self._parts:
            shards = range(self._counters.shards)
            self._parts[by] = [Rollup(self._counters, by, shard) for shard in shards]
        return self._parts[by]

    async def _read(self, by: str, now: float, wanted: set[Bucket]) -> None:
        try:
            await asyncio.gather(*(part.read(now, wanted) for part in self._of(by)))
        except TooManySeriesError:
            self._too_many[by] = now + _TOO_MANY_SECONDS
            raise

    async def _read_behind(self, by: str, wanted: set[Bucket] | None = None) -> None:
        """For nobody who waits; a store that is away is told of elsewhere."""
        now = self._clock()
        try:
            if now < self._too_many.get(by, 0.0):
                return
            await self._read(by, now, self._wanted(now) if wanted is None else wanted)
        except (StoreError, TooManySeriesError) as error:
            log.debug("rollup_not_read", dimension=by, error=type(error).__name__)
        finally:
            self._behind.pop(by, None)

    def _wanted(self, now: float) -> set[Bucket]:
        """The buckets of every window, now and in a minute."""
        moment = int(now // 10)
        if self._standard[0] != moment:
            found: set[Bucket] = set()
            for seconds in _SPANS:
                found |= buckets_of(now, seconds) | buckets_of(now + _AHEAD_SECONDS, seconds)
            self._standard = moment, found
        return self._standard[1]
