"""The expected band behind a curve, from the same hours of earlier days.

Owns: arithmetic over hourly history. Must never: do I/O, or draw a band from
too little history (that is ``None``).

A point's expectation is the median of the same hour of the day over the days
given (weekdays and weekends apart once each has three of its own), its band the
10th to 90th percentile, as long as at least three days are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DAY = 86_400
_HOUR = 3_600
_WEEKEND = (2, 3)  # of days since the epoch, modulo 7: that began with a Thursday
_LEAST_DAYS = 3
_Q90 = 1.2816  # the normal law's 90th percentile


@dataclass(frozen=True, slots=True)
class Band:
    """Low, expected and high per point, in the unit of the curve's buckets."""

    low: list[float]
    expected: list[float]
    high: list[float]


def expected_band(
    hours: Sequence[tuple[float, float]],
    first_seen: float,
    times: Sequence[float],
    step: float,
    unit: float = 0.0,
) -> Band | None:
    """The band of a curve.

    Parameters
    ----------
    hours
        (start in epoch seconds, amount) of hourly buckets before the curve, in
        any order; hours left out count as zero from ``first_seen`` on.
    first_seen
        Epoch seconds of the first known activity.
    times
        Start of each bucket of the curve, epoch seconds, oldest first.
    step
        Width of the curve's buckets in seconds.
    unit
        What one call adds, so that the band of buckets shorter than an hour is
        wider by the chance of fewer or more calls falling into one; 0 for no
        such widening.

    Returns
    -------
    Band or None
        ``None`` where fewer than three whole days precede the curve.
    """
    if not times:
        return None
    end = int(times[0] // _HOUR) * _HOUR
    start = -(-int(first_seen) // _HOUR) * _HOUR
    start = max(start, end - 28 * _DAY)
    days = (end - start) // _DAY
    if days < _LEAST_DAYS:
        return None
    start = end - days * _DAY
    grid = np.zeros(days * 24)
    for at, amount in hours:
        place = int(at - start) // _HOUR
        if 0 <= place < len(grid):
            grid[place] += amount
    by_day = grid.reshape(days, 24)
    phase = (start // _HOUR) % 24
    # A row begins at the curve's hour of the day, so it may hold hours of two days.
    weekend = np.isin((start // _HOUR + np.arange(days * 24)) // 24 % 7, _WEEKEND).reshape(days, 24)
    scale = step / _HOUR
    found = {}
    for at in times:
        slot = (int(at // _HOUR) % 24, _is_weekend(at))
        if slot not in found:
            column = (slot[0] - phase) % 24
            alike = weekend[:, column] == slot[1]
            values = by_day[alike if alike.sum() >= _LEAST_DAYS else slice(None), column]
            low, middle, high = np.percentile(values, (10, 50, 90)) * scale
            chance = _Q90 * math.sqrt(max(0.0, middle * unit * (1.0 - scale)))
            found[slot] = (max(0.0, low - chance), middle, high + chance)
    curve = np.array([found[(int(at // _HOUR) % 24, _is_weekend(at))] for at in times])
    low, expected, high = np.round(curve, 3).T.tolist()
    return Band(low, expected, high)


def _is_weekend(at: float) -> bool:
    return int(at // _DAY) % 7 in _WEEKEND
