"""Counts of the last hour in 10 s buckets, O(1) per booking.

Owns: the running totals of one series and, per bucket, their value at its end,
so that any window up to an hour is one subtraction. Must never: judge.

Most series are of callers that come now and then. Their windows hold only the
buckets in which something came, until those are too many.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

BUCKET_SECONDS = 10
#: Buckets kept: an hour, and a little for late bookings.
SIZE = 384

Ends: TypeAlias = npt.NDArray[np.int64]

#: Changes in the hour up to which they are kept one by one, in a quarter of the memory.
FEW = 64
#: No bucket is later, none earlier than as much before 1970.
FAR = 2**62

_NOTHING = array("q", (0, 0))
_NO_ENDS = array("q")


class Window:
    """Sliding sums of calls and cost (nano-USD) of one series.

    >>> w = Window(100)
    >>> w.add(100, 3, 5); w.add(103, 2, 5)
    >>> w.calls_in(6), w.calls_in(3), w.cost_in(6)
    (5, 2, 10)
    """

    # ``_ends`` holds calls and cost at the end of each bucket, side by side. While ``_few``
    # is there it stands in for them: bucket, calls and cost at the end of those buckets
    # alone in which something changed.
    __slots__ = ("_ends", "_few", "bucket", "calls", "cost")

    def __init__(self, bucket: int) -> None:
        self.bucket = bucket
        self.calls = 0
        self.cost = 0
        self._ends = _NO_ENDS
        self._few: array[int] | None = array("q")

    def add(self, bucket: int, calls: int, cost: int) -> None:
        """Book calls and cost to a bucket; one older than an hour counts as an hour old."""
        if bucket > self.bucket:
            self.advance(bucket)
        elif bucket < self.bucket:
            self.add_late(((bucket, calls, cost),))
            return
        self.calls += calls
        self.cost += cost

    def add_late(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """Book (bucket, calls, cost) rows, in order, none after the running bucket.

        >>> w = Window(100)
        >>> w.advance(103)
        >>> w.add_late(((100, 3, 5), (102, 1, 1), (103, 1, 1)))
        >>> w.calls_in(1), w.calls_in(2), w.calls_in(4)
        (1, 2, 5)
        """
        if rows[0][0] >= self.bucket:
            self.calls += sum(row[1] for row in rows)
            self.cost += sum(row[2] for row in rows)
            return
        calls = cost = place = 0
        if self._few is not None:
            self._add_late_few(self._few, rows)
            return
        ends = self._ends
        for bucket in range(max(rows[0][0], self.bucket - SIZE + 1), self.bucket):
            while place < len(rows) and rows[place][0] <= bucket:
                calls += rows[place][1]
                cost += rows[place][2]
                place += 1
            ends[bucket % SIZE * 2] += calls
            ends[bucket % SIZE * 2 + 1] += cost
        self.calls += calls + sum(row[1] for row in rows[place:])
        self.cost += cost + sum(row[2] for row in rows[place:])

    def _add_late_few(self, few: array[int], rows: Sequence[tuple[int, int, int]]) -> None:
        oldest = self.bucket - SIZE + 1
        came: dict[int, tuple[int, int]] = {b: (calls, cost) for b, calls, cost in _came(few)}
        for bucket, calls, cost in rows:
            self.calls += calls
            self.cost += cost
            if bucket < self.bucket:
                bucket = max(bucket, oldest)
                before = came.get(bucket, (0, 0))
                came[bucket] = before[0] + calls, before[1] + cost
        del few[:]
        calls = cost = 0
        for bucket in sorted(came):
            calls += came[bucket][0]
            cost += came[bucket][1]
            few.extend((_near(bucket), calls, cost))
        self._bound_few(few)

    def advance(self, bucket: int) -> None:
        """Close all buckets before ``bucket``."""
        last = self.bucket
        if bucket <= last:
            return
        few = self._few
        if few is not None:
            self.bucket = bucket
            if self.calls != (few[-2] if few else 0) or self.cost != (few[-1] if few else 0):
                few.extend((_near(max(last, bucket - SIZE)), self.calls, self.cost))
                if len(few) > 3 * FEW:
                    self._bound_few(few)
            return
        gap = bucket - last
        ends = self._ends
        place = last % SIZE * 2
        if gap == 1:
            ends[place] = self.calls
            ends[place + 1] = self.cost
        elif gap >= SIZE:
            self._ends = _NO_ENDS
            self._few = array("q", (_near(bucket - SIZE), self.calls, self.cost))
        else:
            _fill(ends, place, bucket % SIZE * 2, gap, self.calls, self.cost)
        self.bucket = bucket

    def _bound_few(self, few: array[int]) -> None:
        """Drop what is over an hour old; where too many changes are left, keep every bucket."""
        # The last of the old ones stays: it says what there was before the hour.
        old = bisect_right(range(0, len(few), 3), self.bucket - SIZE, key=few.__getitem__)
        if old > 1:
            del few[: 3 * (old - 1)]
        if len(few) > 3 * FEW:
            self._ends = self._all_ends(few)
            self._few = None

    def _all_ends(self, few: array[int]) -> array[int]:
        ends = _NOTHING * SIZE
        first = self.bucket - SIZE
        last, calls, cost = first, 0, 0
        for place in range(0, len(few), 3):
            bucket = max(few[place], first)
            if bucket > last:
                _fill(ends, last % SIZE * 2, bucket % SIZE * 2, bucket - last, calls, cost)
            last, calls, cost = bucket, few[place + 1], few[place + 2]
        end = self.bucket % SIZE * 2
        _fill(ends, last % SIZE * 2, end, self.bucket - last, calls, cost)
        return ends

    def _total(self, bucket: int, column: int) -> int:
        """Calls (1) or cost (2) up to the end of a closed bucket."""
        few = self._few
        if few is None:
            return self._ends[bucket % SIZE * 2 + column - 1]
        place = bisect_right(range(0, len(few), 3), bucket, key=few.__getitem__)
        return few[3 * place - 3 + column] if place else 0

    @property
    def dense(self) -> bool:
        """Whether every bucket of the hour has its place."""
        return self._few is None

    def calls_in(self, buckets: int) -> int:
        """Calls in the last so many buckets, the running one included."""
        return self.calls - self._total(self.bucket - buckets, 1)

    def cost_in(self, buckets: int) -> int:
        """Cost in the last so many buckets, the running one included."""
        return self.cost - self._total(self.bucket - buckets, 2)

    def least(self, buckets: int) -> int:
        """Calls in the emptiest of the last so many buckets, the running one included."""
        least, end = self.calls, self.calls
        for bucket in range(self.bucket - 1, self.bucket - 1 - buckets, -1):
            start = self._total(bucket, 1)
            least, end = min(least, end - start), start
        return least

    def ends(self, buckets: int) -> tuple[Ends, Ends]:
        """Running totals (calls, cost) at the end of the last ``buckets`` + 1 closed buckets."""
        start = (self.bucket - buckets - 1) % SIZE * 2
        end = self.bucket % SIZE * 2
        ends = self._ends if self._few is None else self._all_ends(self._few)
        part = ends[start:end] if start < end else ends[start:] + ends[:end]
        both = np.frombuffer(part, np.int64)
        return both[::2], both[1::2]

    def dump(self) -> dict[str, Any]:
        """The window as plain values."""
        first = self.bucket - SIZE + 2
        few = self._few
        rows = self._dense_rows(first) if few is None else _came(few)
        kept = [[bucket, calls, cost] for bucket, calls, cost in rows if bucket >= first]
        calls, cost = self.calls_in(1), self.cost_in(1)
        return {"calls": self.calls, "cost": self.cost, "rows": [*kept, [self.bucket, calls, cost]]}

    def _dense_rows(self, first: int) -> Iterable[tuple[int, int, int]]:
        calls, cost = self.ends(SIZE - 2)
        more_calls, more_cost = np.diff(calls), np.diff(cost)
        # Most buckets are empty.
        (places,) = np.nonzero(more_calls | more_cost)
        for place in places.tolist():
            yield first + place, int(more_calls[place]), int(more_cost[place])

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Window:
        """Undo :meth:`dump`."""
        rows = saved["rows"]
        window = cls(int(rows[-1][0]) - SIZE)
        window.calls = int(saved["calls"]) - sum(int(r[1]) for r in rows)
        window.cost = int(saved["cost"]) - sum(int(r[2]) for r in rows)
        for bucket, calls, cost in rows:
            window.advance(int(bucket))
            window.add(int(bucket), int(calls), int(cost))
        return window


def _near(bucket: int) -> int:
    """A bucket that fits into 64 bits, also where a clock has gone mad."""
    return min(max(bucket, -FAR), FAR)


def _came(few: array[int]) -> Iterator[tuple[int, int, int]]:
    """What came in each bucket of a window's few: bucket, calls, cost."""
    calls = cost = 0
    for place in range(0, len(few), 3):
        yield few[place], few[place + 1] - calls, few[place + 2] - cost
        calls, cost = few[place + 1], few[place + 2]


def _fill(ends: array[int], place: int, end: int, buckets: int, calls: int, cost: int) -> None:
    """Write the same totals at so many buckets, from a place in the ring up to another."""
    same = array("q", (calls, cost))
    if place < end:
        ends[place:end] = same * buckets
    else:
        ends[place:] = same * (SIZE - place // 2)
        ends[:end] = same * (end // 2)
