"""One frozen detector of single values, after our own judges of counts.

Owns: scores of one series, each from what came before it. Must never: look ahead, or
know a series' name.

As for calls and dollars, what counts is by how much a value beats its own record. Five
quantities of a series are watched: the distance from its two-day median, from its own
median at this time of day, the jump from the last value, the hour's mean against the
day's, the last hour's median against the two before. Each is compared with its own
greatest value so far; the score is one less than what it beats it by, ``1 - record /
value``. Since a record that was beaten is the new record, an anomaly alarms as it
begins and not with every row of it; after an alarm further scores are hushed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from detection.stats import median_deviation

DAY_SECONDS = 86400.0
#: Times of day are told apart by half-hours.
SLOT_SECONDS = 1800.0
#: Rows for which a record is kept, rows before the first score, and rows until a record
#: of a young series counts in full.
KEPT, WARM_UP, RAMP = 4500, 100, 1000
ALARM, HUSHED_ROWS, HUSH = 0.10, 100, 0.3
WEIGHTS = {"far": 0.9, "season": 1.0, "jump": 1.0, "lift": 1.0, "shift": 0.5}
SMOOTHING = 0.3


class Record:
    """The greatest of the last :data:`KEPT` values.

    >>> record = Record()
    >>> [record.beaten_by(x) for x in (1.0, 2.0, 1.5, 4.0)]
    [0.0, 0.5, 0.0, 0.5]
    """

    def __init__(self) -> None:
        self._row = 0
        self._greatest: deque[tuple[int, float]] = deque()

    def beaten_by(self, value: float) -> float:
        """``1 - record / value`` where the value beats the record, else 0; and take it."""
        best = self._greatest
        old = best[0][1] if best else 0.0
        while best and best[-1][1] <= value:
            best.pop()
        best.append((self._row, value))
        self._row += 1
        if best[0][0] <= self._row - 1 - KEPT:
            best.popleft()
        return 1.0 - old / value if 0.0 < old < value else 0.0


class Scorer:
    """Scores one series, row by row.

    ``step_seconds`` is the usual distance of its rows.
    """

    def __init__(self, step_seconds: float) -> None:
        step = max(step_seconds, 1.0)
        self._day = max(24, round(DAY_SECONDS / step))
        self._slot = max(step, SLOT_SECONDS)
        self._per_slot = max(1, int(self._slot // step))
        self._values: deque[float] = deque(maxlen=2 * self._day)
        self._slots: dict[int, deque[float]] = {}
        self._records = {name: Record() for name in WEIGHTS}
        self._usual = (0.0, 1.0)
        self._off_season = 0.0
        self._row = 0
        self._alarm = -HUSHED_ROWS

    def score(self, seconds: float, value: float) -> float:
        """The anomaly score of the next row, from 0 to 1."""
        best = 0.0
        for name, size in self._quantities(seconds, value):
            best = max(best, WEIGHTS[name] * self._records[name].beaten_by(size))
        best *= min(1.0, self._row / RAMP) if self._row >= WARM_UP else 0.0
        if self._row - self._alarm < HUSHED_ROWS:
            best *= HUSH
        elif best >= ALARM:
            self._alarm = self._row
        self._row += 1
        return best

    def _quantities(self, seconds: float, value: float) -> Iterator[tuple[str, float]]:
        values = self._values
        slot = self._slots.setdefault(
            int(seconds % DAY_SECONDS // self._slot), deque(maxlen=7 * self._per_slot)
        )
        if len(values) >= 20:
            if self._row % 12 == 0:
                middle, spread = median_deviation(list(values))
                self._usual = (middle, max(spread, 0.05 * float(np.std(values)), 1e-9))
            yield "far", abs(value - self._usual[0]) / self._usual[1]
            yield "jump", abs(value - values[-1])
        if len(slot) >= 2 * self._per_slot:
            off = value - float(np.median(slot))
            self._off_season += SMOOTHING * (off - self._off_season)
            yield "season", abs(self._off_season)
        slot.append(value)
        values.append(value)
        if len(values) >= 60:
            recent = np.fromiter(values, float)
            yield "shift", abs(float(np.median(recent[-12:]) - np.median(recent[-36:-12])))
            if len(values) == 2 * self._day:
                yield "lift", abs(float(recent[-12:].mean() - recent[-self._day - 12 : -12].mean()))


def scores(rows: Sequence[tuple[float, float]]) -> list[float]:
    """The scores of (seconds, value) rows; the step is taken from the first two."""
    step = rows[1][0] - rows[0][0] if len(rows) > 1 else DAY_SECONDS
    scorer = Scorer(step)
    return [scorer.score(seconds, value) for seconds, value in rows]
