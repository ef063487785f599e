"""One frozen detector of single values: how unlike its own past the last stretch is.

Owns: scores of one series, each from what came before it. Must never: look ahead, or
know a series' name.

The last row, the last 12 and the last 36 are each compared with all stretches of that
length among the last :data:`KEPT` rows: the distance to the nearest few says how new
the stretch is (k nearest neighbours). How rare such a distance is among the series' own
distances so far makes a conformal p-value of it (Laxhammar & Falkman 2014; for time
series Burnaev & Ishimtsev, arXiv 1608.04585), so that one threshold serves all series
whatever their unit, noise or season. Beyond the record the p-value falls on with the
ratio to it, as our judges of counts compare with a series' own record. The three add up
as Fisher's method has it. After an alarm there is silence for :data:`HUSHED_ROWS` rows:
an anomaly is told as it begins, once.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from math import log

import numpy as np

#: Rows to compare with, lengths of the stretches, neighbours whose distance counts.
KEPT, LENGTHS, NEAREST = 4000, (1, 12, 36), 5
LONGEST = max(LENGTHS)
#: Rows before the first score; what sums to a score of one half; rows of silence after an alarm.
WARM_UP, EVIDENCE, ALARM, HUSHED_ROWS = 100, 13.0, 0.5, 200


class Tail:
    """How rare a value is among the last so many.

    >>> tail = Tail(100)
    >>> [round(tail.surprise(x), 2) for x in (1.0, 2.0, 1.5, 8.0)]
    [0.0, 1.39, 0.41, 2.77]
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._ordered: list[float] = []
        self._rows: deque[float] = deque()

    def surprise(self, value: float) -> float:
        """``-log p`` of the value, p its share of equal or greater ones, itself included; take it.

        Beyond the record p falls on as the record over the value.
        """
        ordered = self._ordered
        found = 0.0
        if ordered:
            above = len(ordered) - bisect_left(ordered, value)
            found = log((len(ordered) + 1) / (above + 1))
            if not above and ordered[-1] > 0:
                found += log(value / ordered[-1])
        insort(ordered, value)
        self._rows.append(value)
        if len(self._rows) > self._kept:
            del ordered[bisect_left(ordered, self._rows.popleft())]
        return found


class Scorer:
    """Scores one series, row by row."""

    def __init__(self) -> None:
        self._tails = {length: Tail(KEPT) for length in LENGTHS}
        # Stretches are read from twice the room that is needed, so that rows seldom move.
        self._values = np.zeros(2 * (KEPT + LONGEST))
        self._stretches = np.lib.stride_tricks.sliding_window_view(self._values, LONGEST)
        self._end = 0
        self._row = 0
        self._alarm = -HUSHED_ROWS

    def score(self, value: float) -> float:
        """The anomaly score of the next row, from 0 to 1, one half at :data:`EVIDENCE`."""
        self._take(value)
        self._row += 1
        if self._row <= WARM_UP:
            return 0.0
        evidence = sum(self._tails[n].surprise(d) for n, d in self._distances())
        if self._row - self._alarm <= HUSHED_ROWS:
            return 0.0
        found = evidence / (evidence + EVIDENCE)
        if found >= ALARM:
            self._alarm = self._row
        return found

    def _take(self, value: float) -> None:
        if self._end == len(self._values):
            kept = KEPT + LONGEST
            self._values[:kept] = self._values[-kept:]
            self._end = kept
        self._values[self._end] = value
        self._end += 1

    def _distances(self) -> list[tuple[int, float]]:
        """Of each length the root mean square distance to the nearest stretches before it."""
        last = self._end - LONGEST
        first = max(0, last - KEPT)
        apart = self._stretches[first:last] - self._stretches[last]
        found = []
        for length in LENGTHS:
            # A stretch that shares rows with the last one is no past to compare with.
            part = apart[: len(apart) - length + 1, -length:]
            squares = np.einsum("ij,ij->i", part, part)
            nearest = np.partition(squares, NEAREST - 1)[:NEAREST]
            found.append((length, float(np.sqrt(nearest.mean() / length))))
        return found


def scores(values: Sequence[float]) -> list[float]:
    """The scores of the values of one series."""
    scorer = Scorer()
    return [scorer.score(value) for value in values]
