"""What the pages read from the store, cached for the blink of an eye.

Owns: usage and history questions of the admin port, one at a time per
question. Must never: be on a request's path, or let many open dashboards ask
the store the same thing at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from aiohttp import web

from detection.types import Series
from proxy.admin.bands import Band, expected_band
from proxy.admin.rollup import buckets_of
from proxy.admin.rollups import WINDOWS, Rollups
from proxy.admin.sums import Sums
from proxy.store.cells import Cells, unpack
from proxy.store.counters import PAGE, Bucket, Counters
from proxy.store.errors import StoreError
from proxy.store.series import (
    COUNTS,
    DAY,
    FIVE_MINUTES,
    HOUR,
    TEN_SECONDS,
    WIDTH,
    Counts,
    Resolution,
    series_id,
)

T = TypeVar("T")

_SPARK_POINTS = 30
_MOST_CACHED = 512
_MOST_BANDS = 64
_CHEAP_SECONDS = 0.03
_USEFUL_SECONDS = 30.0
#: Hours that are over change only by counts that come late.
_PAST_SECONDS = 30.0
_ZERO = Counts(*([0] * len(Counts._fields)))


@dataclass(frozen=True, slots=True)
class Curve:
    """One series over time, without gaps: ``counts[i]`` starts at ``times[i]``."""

    times: list[float]
    counts: list[Counts]
    step: int

    def column(self, name: str) -> list[int]:
        """One column's values."""
        return [getattr(counts, name) for counts in self.counts]


class Reader:
    """Reads of the counters, shared by everyone who asks within a moment."""

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._clock = clock
        self._rollups = Rollups(counters, clock)
        self._cache: dict[tuple[Any, ...], _Answer] = {}
        #: Earlier hours rarely change, so a band holds until its curve moves on.
        self._bands: dict[tuple[Any, ...], dict[str, Band | None]] = {}

    async def run(self) -> None:
        """Read ahead what pages will ask, until cancelled."""
        await self._rollups.run()

    def expect(self) -> None:
        """Somebody has opened a page and will ask."""
        self._rollups.expect()

    async def sums(self, by: str, seconds: float) -> Sums:
        """What each value of a dimension used over the last ``seconds``, dearest first.

        Raises
        ------
        aiohttp.web.HTTPServiceUnavailable
            While the store does not answer.
        """
        with told_if_away():
            found = await self._rollups.sums(by, seconds)
        if found is not None:
            return found

        async def ask() -> Sums:
            rows = await self._counters.usage(by, seconds)
            return await asyncio.to_thread(Sums.of_rows, rows)

        return await self._once(("usage", by, seconds), ask)

    async def total(self, seconds: float) -> Counts:
        """Everything over the last ``seconds``."""
        sums = await self.sums("total", seconds)
        return sums.counts(0) if len(sums) else _ZERO

    async def curve(self, series: Series, seconds: float) -> Curve:
        """A series over the last ``seconds`` in buckets fit for a chart."""
        resolution, step = resolution_for(seconds)
        now = self._clock()
        first, last = int((now - seconds) // step) + 1, int(now // step)
        rows = await self._once(
            ("curve", series, step, first, last),
            lambda: self._counters.history(series, resolution, first * step, now),
        )
        known: dict[int, Counts] = {}
        for at, counts in rows:
            bucket = int(at // step)
            known[bucket] = known[bucket].plus(counts) if bucket in known else counts
        buckets = range(first, last + 1)
        return Curve(
            [float(b * step) for b in buckets], [known.get(b, _ZERO) for b in buckets], step
        )

    async def sparks(
        self, by: str, values: Sequence[str], seconds: float
    ) -> dict[str, list[list[int]]]:
        """Cost and calls of a few series over the last ``seconds``, in few points.

        A list of two per value, both of the same length; all are asked for at once.
        """
        resolution = TEN_SECONDS if seconds <= 3600 else HOUR if seconds <= 7 * 86_400 else DAY
        step = max(resolution.seconds, int(seconds) // _SPARK_POINTS)
        now = self._clock()
        start = now - seconds
        # A bucket cut by the window's start would look like a spike.
        first, last = -int(-start // resolution.seconds), int(now // resolution.seconds)
        buckets = [(resolution.letter, bucket) for bucket in range(first, last + 1)]
        points = int(seconds // step)
        found: dict[str, list[list[int]]] = {}
        async for mine, cells in self._cells(by, values, buckets):
            times = (first + cells.bucket) * resolution.seconds
            place = np.minimum(points - 1, ((times - start) // step).astype(np.int64))
            drawn = np.zeros((len(mine), 2, points), np.int64)
            for number, name in enumerate(("cost_nano_usd", "requests")):
                column = cells.counts[:, COUNTS.index(name)]
                np.add.at(drawn[:, number], (cells.series, place), column)
            found |= dict(zip(mine, drawn.tolist(), strict=True))
        return found

    async def some(self, by: str, values: Sequence[str], seconds: float) -> Sums:
        """:meth:`sums` of no more than some values."""
        buckets = sorted(buckets_of(self._clock(), seconds))
        names: list[str] = []
        columns = [np.zeros((WIDTH, 0), np.int64)]
        async for mine, cells in self._cells(by, values, buckets):
            used = np.zeros((len(mine), WIDTH), np.int64)
            np.add.at(used, cells.series, cells.counts)
            names += mine
            columns.append(used.T)
        return Sums.sorted(names, np.concatenate(columns, axis=1))

    async def _cells(
        self, by: str, values: Sequence[str], buckets: Sequence[Bucket]
    ) -> AsyncIterator[tuple[list[str], Cells]]:
        """Buckets of some values, a shard's page of them at a time."""
        by_shard: dict[int, list[str]] = {}
        for value in values:
            by_shard.setdefault(self._counters.shard_of(Series(by, value)), []).append(value)
        for shard, mine in by_shard.items():
            for start in range(0, len(mine), PAGE):
                page = mine[start : start + PAGE]
                ids = [series_id(Series(by, value)).encode() for value in page]
                with told_if_away():
                    reply = await self._counters.cells(shard, by, ids, buckets)
                yield page, unpack(reply)

    async def bands(
        self, series: Series, curve: Curve, columns: Sequence[str]
    ) -> dict[str, Band | None]:
        """The expected band of each column of a curve."""
        if not curve.times:
            return dict.fromkeys(columns)
        hours = await self.hours(series, curve.times[0])
        question = (series, tuple(columns), curve.step, curve.times[0], curve.times[-1], len(hours))
        known = self._bands.get(question)
        if known is not None:
            return known
        first_seen = hours[0][0] if hours else curve.times[-1]
        calls = sum(counts.requests for _, counts in hours) or 1
        made = {
            name: expected_band(
                [(at, float(getattr(counts, name))) for at, counts in hours],
                first_seen,
                curve.times,
                curve.step,
                unit=sum(getattr(counts, name) for _, counts in hours) / calls,
            )
            for name in columns
        }
        if len(self._bands) >= _MOST_BANDS:
            del self._bands[next(iter(self._bands))]
        self._bands[question] = made
        return made

    async def hours(self, series: Series, before: float) -> list[tuple[float, Counts]]:
        """Up to 28 days of whole hours before a moment, without those of no calls."""
        end = int(before // 3600) * 3600
        return await self._once(
            ("hours", series, end),
            lambda: self._counters.history(series, HOUR, end - 28 * 86_400, end - 1),
            keep_seconds=_PAST_SECONDS,
        )

    async def days(self, series: Series, start: float) -> list[tuple[float, Counts]]:
        """Daily counts of a series since the start of a UTC day, today's so far included."""
        return await self._once(
            ("days", series, start),
            lambda: self._counters.history(series, DAY, start, self._clock()),
        )

    async def last_seen(self, by: str, limit: int = 10_000) -> dict[str, float]:
        """Value -> epoch seconds of its last activity, for a dimension."""
        rows = await self._once(("seen", by, limit), lambda: self._counters.series_list(by, limit))
        return dict(rows)

    async def _once(
        self,
        question: tuple[Any, ...],
        ask: Callable[[], Awaitable[T]],
        keep_seconds: float = 0.0,
    ) -> T:
        """Ask once for all who want to know at the same time, and shortly after.

        An answer that took a while is kept for a few times as long, and shown for
        half a minute more while a newer one is fetched, so that what is cheap is
        always fresh and what is dear neither loads the store nor keeps a page waiting.
        """
        now = asyncio.get_running_loop().time()
        answer = self._cache.get(question)
        if answer is not None and answer.until <= now < answer.useful_until:
            self._refresh(question, answer, ask, now, keep_seconds)
        elif answer is None or answer.until <= now:
            if len(self._cache) >= _MOST_CACHED:
                self._forget(now)
            answer = self._cache[question] = _Answer(
                asyncio.ensure_future(ask()), now, keep_seconds
            )
        with told_if_away():
            found: T = await asyncio.shield(answer.future)
        return found

    def _refresh(
        self,
        question: tuple[Any, ...],
        old: _Answer,
        ask: Callable[[], Awaitable[Any]],
        now: float,
        keep_seconds: float,
    ) -> None:
        """Ask anew behind an answer that is still of use."""
        old.until = float("inf")
        newer = _Answer(asyncio.ensure_future(ask()), now, keep_seconds)

        def done(future: asyncio.Future[Any]) -> None:
            failed = future.cancelled() or future.exception() is not None
            if failed:
                old.until = old.useful_until = 0.0
            else:
                self._cache[question] = newer

        newer.future.add_done_callback(done)

    def _forget(self, now: float) -> None:
        self._cache = {q: known for q, known in self._cache.items() if known.until > now}
        while len(self._cache) >= _MOST_CACHED:
            del self._cache[next(iter(self._cache))]


class _Answer:
    """A question's answer, running or done, and until when it is good."""

    def __init__(self, future: asyncio.Future[Any], asked_at: float, keep_seconds: float) -> None:
        self.future = future
        self.until = self.useful_until = float("inf")
        self._asked_at = asked_at
        self._keep_seconds = keep_seconds
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        now = future.get_loop().time()
        failed = future.cancelled() or future.exception() is not None
        took = now - self._asked_at
        cheap = failed or took < _CHEAP_SECONDS
        self.until = now if cheap else now + min(30.0, 5.0 * took)
        if not failed:
            self.until = max(self.until, now + self._keep_seconds)
        self.useful_until = now if cheap else self.until + _USEFUL_SECONDS


@contextmanager
def told_if_away() -> Iterator[None]:
    """A store that is away, as whoever asked is told."""
    try:
        yield
    except StoreError as error:
        raise web.HTTPServiceUnavailable(
            text=f"the store does not answer ({type(error).__name__}); "
            "calls are still served, and counted once it is back"
        ) from error


def resolution_for(seconds: float) -> tuple[Resolution, int]:
    """Stored buckets, and how wide a chart's are, for 60 to 750 points a window."""
    if seconds <= 900:
        return TEN_SECONDS, TEN_SECONDS.seconds
    if seconds <= 3600:
        return TEN_SECONDS, 60
    if seconds <= 48 * 3600 - 3600:
        return FIVE_MINUTES, FIVE_MINUTES.seconds
    found = HOUR if seconds <= 34 * 86_400 else DAY
    return found, found.seconds


def window_of(request: web.Request, default: str = "1h") -> tuple[str, int]:
    """The ``window`` parameter as (word, seconds).

    Raises
    ------
    aiohttp.web.HTTPBadRequest
        For a word that is none of :data:`WINDOWS`.
    """
    word = request.query.get("window", default)
    if word not in WINDOWS:
        raise web.HTTPBadRequest(text=f"window must be one of {', '.join(WINDOWS)}")
    return word, WINDOWS[word]
