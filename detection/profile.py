"""A series' own normal: seasonal level, dispersion, and records of busy windows.

Owns: what was learned of one series, by half-hours and days. Must never: judge,
or learn from what is under suspicion (that is held until the suspicion is over).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

from detection.window import SIZE, Ends, Window

HALF_HOUR = 180
DAY = 8640
DAYS_KEPT = 45
RECORD_DAYS = 28
HOURS_OF_WEEK = 168
#: Ten-second buckets of a steady load: three minutes without a pause.
STEADY = 18
#: Half-hours with calls, beyond which old ones fade from the busy level.
BUSY_KEPT = 1000.0
#: Half-hours remembered one by one: a day.
RECENT = 48
#: Below so many calls in a half-hour its total stands for all its maxima.
QUIET = 8

#: What a record is kept of: the name, the window in 10 s buckets, calls or cost.
#: ``steady_60`` is the least ten seconds of the last three minutes, as calls a minute:
#: what went on without a pause. Bursts of people and jobs clump; a runaway flows.
WINDOWS: tuple[tuple[str, int, bool], ...] = (
    ("calls_60", 6, False),
    ("calls_300", 30, False),
    ("calls_900", 90, False),
    ("steady_60", STEADY, False),
    ("cost_300", 30, True),
    ("cost_900", 90, True),
    ("cost_3600", 360, True),
)
INDEX = {name: i for i, (name, _, _) in enumerate(WINDOWS)}


class Profile:
    """What is usual for one series.

    ``records`` holds the greatest value of each window of :data:`WINDOWS` in the
    last 28 days; ``days`` one row ``[day, calls, cost, *maxima]`` a day, the
    running one last, and ``recent`` calls and cost of the last 48 half-hours. All
    times are 10 s bucket numbers.
    """

    __slots__ = (
        "_held",
        "_slots",
        "busy",
        "days",
        "first",
        "learned",
        "offset",
        "recent",
        "records",
        "rolled",
    )

    def __init__(self, bucket: int, offset: int = 0) -> None:
        self.first = bucket
        self.offset = offset
        self.rolled = bucket - bucket % HALF_HOUR
        self.days: list[list[int]] = []
        self.records = [0] * len(WINDOWS)
        self.learned = False
        self.recent: list[list[int]] = []
        self.busy = [0.0, 0.0]
        self._held: list[int] | None = None
        self._slots: array[float] | None = None

    def age_days(self, bucket: int) -> float:
        """Days since the series was first seen."""
        return (bucket - self.first) / DAY

    def due(self, bucket: int) -> bool:
        """Whether a half-hour is complete and not yet learned."""
        return bucket - self.rolled >= HALF_HOUR

    def roll(self, window: Window, bucket: int, *, suspect: bool) -> None:
        """Learn the half-hours that are complete; hold their maxima while suspect."""
        window.advance(bucket)
        bucket = window.bucket
        if bucket - self.rolled > 7 * DAY:
            self.rolled = bucket - bucket % HALF_HOUR - 7 * DAY
        while bucket - self.rolled >= HALF_HOUR:
            self._learn(window, bucket, suspect)
            self.rolled += HALF_HOUR

    def _learn(self, window: Window, bucket: int, suspect: bool) -> None:
        end = self.rolled + HALF_HOUR
        back = bucket - end
        calls = cost = 0
        maxima = [0] * len(WINDOWS)
        if back <= HALF_HOUR:
            # The running bucket counts as one of the last so many.
            calls = window.calls_in(back + 1 + HALF_HOUR) - window.calls_in(back + 1)
            cost = window.cost_in(back + 1 + HALF_HOUR) - window.cost_in(back + 1)
        if calls:
            maxima = _maxima(window, back, calls, cost)
        self._count(self.rolled, calls, cost)
        if calls:
            busy = self.busy
            fade = 0.5 if busy[0] >= BUSY_KEPT else 1.0
            busy[0], busy[1] = busy[0] * fade + 1.0, busy[1] * fade + calls
        self.recent.append([calls, cost])
        if len(self.recent) > RECENT:
            del self.recent[0]
        if suspect:
            self._held = _greater(self._held or [0] * len(WINDOWS), maxima)
        else:
            self._remember(maxima)
        self._season(self.rolled, float(calls))

    def _count(self, bucket: int, calls: int, cost: int) -> None:
        day = (bucket + self.offset) // DAY
        if not self.days or self.days[-1][0] != day:
            self.days.append([day, 0, 0] + [0] * len(WINDOWS))
            while self.days[0][0] <= day - DAYS_KEPT:
                del self.days[0]
            recent = [row[3:] for row in self.days if row[0] > day - RECORD_DAYS]
            self.records = [max(column) for column in zip(*recent, strict=True)]
        today = self.days[-1]
        today[1] += calls
        today[2] += cost

    def _remember(self, maxima: Iterable[int]) -> None:
        today = self.days[-1]
        today[3:] = _greater(today[3:], maxima)
        self.records = _greater(self.records, today[3:])

    def settle(self, *, learn: bool) -> None:
        """End a suspicion: learn what was held meanwhile, or forget it."""
        held, self._held = self._held, None
        if learn and held is not None and self.days:
            self._remember(held)

    def _season(self, bucket: int, calls: float) -> None:
        if self._slots is None:
            self._slots = array("f", bytes(4 * 3 * HOURS_OF_WEEK))
        slots = self._slots
        place = 3 * self._hour(bucket)
        weight = slots[place]
        rate = max(1.0 / (weight + 1.0), 0.15)
        slots[place] = weight + 1.0
        slots[place + 1] += rate * (calls - slots[place + 1])
        slots[place + 2] += rate * (calls * calls - slots[place + 2])

    def _hour(self, bucket: int) -> int:
        # Epoch day 0 was a Thursday; any fixed start of the week will do.
        return (bucket + self.offset) // 360 % HOURS_OF_WEEK

    def usual(self, bucket: int) -> tuple[float, float] | None:
        """Mean and variance of calls per half-hour at this time of day.

        By hour of the week once there are three weeks, by hour of the day before;
        ``None`` where too little is known.
        """
        slots = self._slots
        if slots is None:
            return None
        hour = self._hour(bucket)
        if self.age_days(bucket) >= 21 and slots[3 * hour] >= 4:
            mean = slots[3 * hour + 1]
            return mean, max(0.0, slots[3 * hour + 2] - mean * mean)
        weight = mean = square = 0.0
        for other in range(hour % 24, HOURS_OF_WEEK, 24):
            share = slots[3 * other]
            weight += share
            mean += share * slots[3 * other + 1]
            square += share * slots[3 * other + 2]
        if weight < 2:
            return None
        mean /= weight
        return mean, max(0.0, square / weight - mean * mean)

    def busy_level(self) -> float:
        """Mean calls per 10 s over the half-hours that had any, 0 where unknown."""
        return self.busy[1] / self.busy[0] / HALF_HOUR if self.busy[0] else 0.0

    def usual_cost(self) -> float | None:
        """Mean nano-USD per call over the days kept; ``None`` where no call had a cost."""
        calls = sum(row[1] for row in self.days)
        cost = sum(row[2] for row in self.days)
        return cost / calls if calls and cost else None

    def record(self, name: str) -> int:
        """The greatest value of a window so far, 0 where nothing is known."""
        return self.records[INDEX[name]]

    def record_names(self) -> dict[str, int]:
        """All records by name."""
        return {name: self.records[i] for name, i in INDEX.items()}

    def known(self, bucket: int) -> bool:
        """Whether there is a record to compare with: a day of history or an import."""
        return self.records[0] > 0 and (self.learned or self.age_days(bucket) >= 1.0)

    def dump(self) -> dict[str, Any]:
        """The profile as plain values."""
        return {
            "first": self.first,
            "offset": self.offset,
            "rolled": self.rolled,
            "days": [list(row) for row in self.days],
            "records": list(self.records),
            "learned": self.learned,
            "busy": list(self.busy),
            "recent": [list(pair) for pair in self.recent],
            "held": self._held,
            "slots": None if self._slots is None else self._slots.tolist(),
        }

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Profile:
        """Undo :meth:`dump`."""
        profile = cls(int(saved["first"]), int(saved["offset"]))
        profile.rolled = int(saved["rolled"])
        profile.days = [[int(v) for v in row] for row in saved["days"]]
        profile.records = [int(v) for v in saved["records"]]
        profile.learned = bool(saved["learned"])
        profile.busy = [float(v) for v in saved["busy"]]
        profile.recent = [[int(v) for v in pair] for pair in saved["recent"]]
        held = saved["held"]
        profile._held = None if held is None else [int(v) for v in held]
        profile._slots = None if saved["slots"] is None else array("f", saved["slots"])
        return profile


def _greater(one: Iterable[int], other: Iterable[int]) -> list[int]:
    return [max(a, b) for a, b in zip(one, other, strict=True)]


def _maxima(window: Window, back: int, calls: int, cost: int) -> list[int]:
    if calls < QUIET:
        return [cost if paid else calls for _, _, paid in WINDOWS]
    ends_calls, ends_cost = window.ends(min(back + HALF_HOUR + 360, SIZE - 2))
    if back:
        ends_calls, ends_cost = ends_calls[:-back], ends_cost[:-back]
    maxima = []
    for name, width, paid in WINDOWS:
        ends = ends_cost if paid else ends_calls
        if name == "steady_60":
            maxima.append(_steadiest(ends))
            continue
        first = max(width, len(ends) - HALF_HOUR)
        if first >= len(ends):
            maxima.append(int(ends[-1] - ends[0]))
        else:
            maxima.append(int((ends[first:] - ends[first - width : len(ends) - width]).max()))
    return maxima


def _steadiest(ends: Ends) -> int:
    """The greatest "least of :data:`STEADY` buckets in a row" of the last half-hour, a minute."""
    least = np.diff(ends[-(HALF_HOUR + STEADY) :])
    width = 1
    while width < STEADY and len(least) > STEADY - width:
        step = min(width, STEADY - width)
        least = np.minimum(least[step:], least[:-step])
        width += step
    return 6 * int(least.max()) if width == STEADY else 0
