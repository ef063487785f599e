"""Sums per series of a dimension, kept in memory and renewed by what changed.

Owns: the buckets behind the pages' windows, for every series of one dimension. Must
never: count anything itself (the store does), or work on the loop for longer than it
takes to hand bytes to a thread.

A window's sum over ten thousand series is a second's work for the store. Buckets that
are over don't change, so they are read once; after that only series with new counts
are read, and only in the buckets that may have changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from proxy.admin.sums import Sums
from proxy.store.cells import Ints, unpack
from proxy.store.counters import Bucket, Counters, Index, window_spans
from proxy.store.series import (
    BY_LETTER,
    ID_LENGTH,
    LATE_KEPT_SECONDS,
    LATE_SECONDS,
    WIDTH,
)

#: What is counted no later than this after its time is found without being told of.
_OPEN_SECONDS = LATE_SECONDS + 15.0
#: The store's clock and ours may differ by so much.
_SKEW_SECONDS = 5.0
_PAGE = 200
_MOST_SERIES = 50_000


_FEW_SERIES = 2_000
T = TypeVar("T")


class TooManySeriesError(Exception):
    """More than memory should be spent on; the store has to sum by itself."""


class Block(NamedTuple):
    """One bucket: which series hold something, and each column in the least that fits it."""

    series: np.ndarray
    columns: tuple[np.ndarray | None, ...]


@dataclass(frozen=True, slots=True)
class _State:
    """What is known as of a moment: names are added, the rest is never changed.

    ``by_name`` is the order of the names that were there when it was made.
    """

    read_at: float = 0.0
    size: int = 0
    names: list[str] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    number_of: dict[bytes, int] = field(default_factory=dict)
    seen: list[float] = field(default_factory=list)
    blocks: dict[Bucket, Block] = field(default_factory=dict)
    by_name: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    sums: dict[object, Sums] = field(default_factory=dict)


class _Job(NamedTuple):
    """Series to be read, the latest active first, in which buckets."""

    numbers: list[int]
    buckets: list[Bucket]


#: Numbers of series, the buckets asked for, and the store's reply.
_Page = tuple[list[int], list[Bucket], list[bytes]]


class Rollup:
    """One dimension in one shard of the store.

    Parameters
    ----------
    counters
        Where the buckets are.
    """

    def __init__(self, counters: Counters, dimension: str, shard: int) -> None:
        self._counters = counters
        self._dimension = dimension
        self._shard = shard
        self._state = _State()
        self._reading = asyncio.Lock()
        #: How long the last reading took, and how many calls of the store.
        self.took_seconds = 0.0
        self.took_calls = 0

    def age(self, now: float) -> float:
        """Seconds since the last reading."""
        return now - self._state.read_at

    def holds(self, wanted: Iterable[Bucket]) -> bool:
        """Whether these buckets have been read."""
        return all(bucket in self._state.blocks for bucket in wanted)

    @property
    def held(self) -> set[Bucket]:
        """The buckets that have been read."""
        return set(self._state.blocks)

    async def read(self, now: float, wanted: set[Bucket]) -> None:
        """Bring the wanted buckets up to date as of ``now``, and let go of others.

        Raises
        ------
        TooManySeriesError
            Nothing is kept then.
        StoreError
            What was known stays.
        """
        async with self._reading:
            state = self._state
            if state.read_at >= now and wanted <= state.blocks.keys():
                return
            if now - state.read_at > LATE_KEPT_SECONDS - _OPEN_SECONDS:
                state = _State()
            since = state.read_at - _OPEN_SECONDS
            started = time.monotonic()
            index = await self._index(state, since)
            if state.read_at and _is_broken(state, index):
                state, since = _State(), 0.0
                index = await self._index(state, since)
            state = replace(state, read_at=now, size=index.size)
            jobs = await beside(len(index.active), _plan, state, index, wanted, since)
            pages = [page for job in jobs for page in await self._fetch(state, job)]
            if pages or wanted != state.blocks.keys():
                state = await beside(len(state.names), _follow, state, wanted, jobs, pages)
            self._state = state
            self.took_seconds, self.took_calls = time.monotonic() - started, len(pages)

    async def _index(self, state: _State, since: float) -> Index:
        late_since = state.read_at - _SKEW_SECONDS
        index = await self._counters.index(self._shard, self._dimension, since, late_since)
        if index.size > _MOST_SERIES:
            self._state = _State()
            raise TooManySeriesError
        return index

    async def _fetch(self, state: _State, job: _Job) -> list[_Page]:
        """The job's buckets; a call of the store is kept to a few milliseconds."""
        found = []
        for start in range(0, len(job.numbers), _PAGE):
            numbers = job.numbers[start : start + _PAGE]
            newest = state.seen[numbers[0]]
            buckets = [bucket for bucket in job.buckets if _start(bucket) <= newest]
            if buckets:
                ids = [state.ids[number] for number in numbers]
                reply = await self._counters.cells(self._shard, self._dimension, ids, buckets)
                found.append((numbers, buckets, reply))
        return found

    @property
    def size(self) -> int:
        """How many series are known."""
        return len(self._state.names)

    def sums(self, now: float, seconds: float) -> Sums:
        """A window's sums over what was read last."""
        state = self._state
        spans, _ = window_spans(now, seconds)
        question = tuple(map(tuple, spans))
        found = state.sums.get(question)
        if found is None:
            found = state.sums[question] = _sum(state, spans)
        return found


async def beside(size: int, work: Callable[..., T], *given: Any) -> T:
    """Do it in a thread where it is long enough to be worth the way there."""
    return work(*given) if size < _FEW_SERIES else await asyncio.to_thread(work, *given)


def buckets_of(now: float, seconds: float) -> set[Bucket]:
    """The buckets of a window that ends now."""
    spans, _ = window_spans(now, seconds)
    return {
        (letter, bucket) for letter, _, first, last in spans for bucket in range(first, last + 1)
    }


def _start(bucket: Bucket) -> int:
    return bucket[1] * BY_LETTER[bucket[0]].seconds


def _end(bucket: Bucket) -> int:
    return (bucket[1] + 1) * BY_LETTER[bucket[0]].seconds


def _is_broken(state: _State, index: Index) -> bool:
    """Whether something was removed, or has a past that was never seen."""
    unknown = set(index.late).difference(state.number_of)
    if unknown:
        unknown.difference_update(member[:ID_LENGTH] for member in index.active[::2])
    return index.size < state.size or bool(unknown)


def _plan(state: _State, index: Index, wanted: set[Bucket], since: float) -> list[_Job]:
    """Note the series that are new, and tell what has to be read."""
    active = []
    for member, score in zip(index.active[::2], index.active[1::2], strict=True):
        number = state.number_of.setdefault(member[:ID_LENGTH], len(state.names))
        if number == len(state.names):
            state.names.append(member[ID_LENGTH:].decode("utf-8", "replace"))
            state.ids.append(member[:ID_LENGTH])
            state.seen.append(0.0)
        state.seen[number] = float(score)
        active.append(number)
    known, missing = wanted & state.blocks.keys(), wanted - state.blocks.keys()
    oldest = min(map(_start, missing), default=0)
    late = [state.number_of[name] for name in index.late if name in state.number_of]
    for number in late:  # it may have been active since, at a time that is past by now
        state.seen[number] = state.read_at
    jobs = (
        (np.flatnonzero(np.array(state.seen) >= oldest).tolist(), missing),
        (active, {bucket for bucket in known if _end(bucket) > since}),
        (late, known),
    )
    return [
        _Job(sorted(numbers, key=state.seen.__getitem__, reverse=True), sorted(buckets))
        for numbers, buckets in jobs
        if buckets
    ]


def _follow(
    state: _State, wanted: set[Bucket], jobs: Sequence[_Job], pages: Sequence[_Page]
) -> _State:
    """The state after these jobs; what a job read replaces what was known of its series."""
    blocks = {bucket: block for bucket, block in state.blocks.items() if bucket in wanted}
    read = _cells_by_bucket(pages)
    for job in jobs:
        mine = np.zeros(len(state.names), bool)
        mine[job.numbers] = True
        for bucket in job.buckets:
            series, counts = read.get(bucket, _NOTHING)
            chosen = mine[series]
            blocks[bucket] = _block(blocks.get(bucket), mine, series[chosen], counts[chosen])
    by_name = state.by_name
    if len(by_name) != len(state.names):
        by_name = np.argsort(np.array(state.names, dtype=object), kind="stable")
    return replace(state, blocks=blocks, by_name=by_name, sums={})


_NOTHING = np.zeros(0, np.int64), np.zeros((0, WIDTH), np.int64)


def _cells_by_bucket(pages: Sequence[_Page]) -> dict[Bucket, tuple[Ints, Ints]]:
    """Replies sorted by bucket; a series that was read twice counts as it was read last."""
    parts: dict[Bucket, list[tuple[Ints, Ints]]] = {}
    for numbers, buckets, reply in pages:
        cells = unpack(reply)
        series = np.array(numbers, np.int64)[cells.series]
        order = np.argsort(cells.bucket, kind="stable")
        edges = np.flatnonzero(np.diff(cells.bucket[order])) + 1
        for rows in np.split(order, edges) if len(order) else ():
            bucket = buckets[cells.bucket[rows[0]]]
            parts.setdefault(bucket, []).append((series[rows], cells.counts[rows]))
    found = {}
    for bucket, pieces in parts.items():
        series = np.concatenate([piece[0] for piece in pieces])
        counts = np.concatenate([piece[1] for piece in pieces])
        last = len(series) - 1 - np.unique(series[::-1], return_index=True)[1]
        found[bucket] = series[last], counts[last]
    return found


def _block(old: Block | None, mine: np.ndarray, series: Ints, counts: Ints) -> Block:
    """A bucket in which the rows of some series are others now."""
    if old is not None and len(old.series):
        kept = ~mine[old.series]
        before = np.zeros((int(kept.sum()), WIDTH), np.int64)
        for number, column in enumerate(old.columns):
            if column is not None:
                before[:, number] = column[kept]
        series = np.concatenate([old.series[kept], series])
        counts = np.concatenate([before, counts])
    return Block(series.astype(np.int32), tuple(_least(counts[:, n]) for n in range(WIDTH)))


def _least(column: Ints) -> np.ndarray | None:
    """A column in the narrowest type that holds it; ``None`` where all is zero."""
    if not column.any():
        return None
    low, high = int(column.min()), int(column.max())
    narrow = low >= 0 and high < 1 << 32
    return column.astype(np.min_scalar_type(high) if narrow else np.int64)


def _sum(state: _State, spans: Sequence[Sequence[object]]) -> Sums:
    """A window's sums, the dearest first."""
    total = np.zeros((WIDTH, len(state.by_name)), np.int64)
    for letter, _, first, last in spans:
        for bucket in range(int(first), int(last) + 1):  # type: ignore[call-overload]
            block = state.blocks.get((str(letter), bucket))
            if block is None:
                continue
            for number, column in enumerate(block.columns):
                if column is not None:
                    total[number][block.series] += column
    return Sums.of(state.names, total, state.by_name)
