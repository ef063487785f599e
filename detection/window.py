"""Counts of the last hour in 10 s buckets, O(1) per booking.

Owns: the running totals of one series and, per bucket, their value at its end,
so that any window up to an hour is one subtraction. Must never: judge.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

BUCKET_SECONDS = 10
#: Buckets kept: an hour, and a little for late bookings.
SIZE = 384

Ends: TypeAlias = npt.NDArray[np.int64]

_NOTHING = array("q", (0, 0))


class Window:
    """Sliding sums of calls and cost (nano-USD) of one series.

    >>> w = Window(100)
    >>> w.add(100, 3, 5); w.add(103, 2, 5)
    >>> w.calls_in(6), w.calls_in(3), w.cost_in(6)
    (5, 2, 10)
    """

    # ``_ends`` holds calls and cost at the end of each bucket, side by side.
    __slots__ = ("_ends", "bucket", "calls", "cost")

    def __init__(self, bucket: int) -> None:
        self.bucket = bucket
        self.calls = 0
        self.cost = 0
        self._ends = _NOTHING * SIZE

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

    def advance(self, bucket: int) -> None:
        """Close all buckets before ``bucket``."""
        last = self.bucket
        if bucket <= last:
            return
        gap = bucket - last
        ends = self._ends
        place = last % SIZE * 2
        if gap == 1:
            ends[place] = self.calls
            ends[place + 1] = self.cost
        elif gap >= SIZE:
            self._ends = array("q", (self.calls, self.cost)) * SIZE
        else:
            end = bucket % SIZE * 2
            same = array("q", (self.calls, self.cost))
            if place < end:
                ends[place:end] = same * gap
            else:
                ends[place:] = same * (SIZE - place // 2)
                ends[:end] = same * (end // 2)
        self.bucket = bucket

    def calls_in(self, buckets: int) -> int:
        """Calls in the last so many buckets, the running one included."""
        return self.calls - self._ends[(self.bucket - buckets) % SIZE * 2]

    def cost_in(self, buckets: int) -> int:
        """Cost in the last so many buckets, the running one included."""
        return self.cost - self._ends[(self.bucket - buckets) % SIZE * 2 + 1]

    def least(self, buckets: int) -> int:
        """Calls in the emptiest of the last so many buckets, the running one included."""
        least, end = self.calls, self.calls
        for bucket in range(self.bucket - 1, self.bucket - 1 - buckets, -1):
            start = self._ends[bucket % SIZE * 2]
            least, end = min(least, end - start), start
        return least

    def ends(self, buckets: int) -> tuple[Ends, Ends]:
        """Running totals (calls, cost) at the end of the last ``buckets`` + 1 closed buckets."""
        start = (self.bucket - buckets - 1) % SIZE * 2
        end = self.bucket % SIZE * 2
        ends = self._ends
        part = ends[start:end] if start < end else ends[start:] + ends[:end]
        both = np.frombuffer(part, np.int64)
        return both[::2], both[1::2]

    def dump(self) -> dict[str, Any]:
        """The window as plain values."""
        calls, cost = self.ends(SIZE - 2)
        more_calls, more_cost = np.diff(calls), np.diff(cost)
        # Each series is written each minute, and most of its buckets are empty.
        (places,) = np.nonzero(more_calls | more_cost)
        first = self.bucket - SIZE + 2
        rows = [
            [first + place, int(more_calls[place]), int(more_cost[place])]
            for place in places.tolist()
        ]
        rows.append([self.bucket, self.calls - int(calls[-1]), self.cost - int(cost[-1])])
        return {"calls": self.calls, "cost": self.cost, "rows": rows}

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
