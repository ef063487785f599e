"""Where spend is going: to the end of the period, and until a budget is gone.

Owns: a plain seasonal forecast with an honest interval. Must never: read a
clock, or forecast from less than a day (``None`` then).

The level is an exponentially weighted mean of the days (simple exponential
smoothing; Hyndman & Athanasopoulos, "Forecasting: principles and practice",
3rd ed., chapter 8), spread over the hours of the week as the past was spread
where there are three weeks of it, else over the hours of the day. The interval
comes from the spread of day totals about the level, widened for the level's
own uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

_Line = NDArray[np.float64]

HOUR = 3_600
_DAY_HOURS = 24
_WEEK_HOURS = 168
_HALF_LIFE_DAYS = 7.0
#: Two-sided normal quantile of the interval below.
_QUANTILE = 1.2816
INTERVAL = 0.8


@dataclass(frozen=True, slots=True)
class Forecast:
    """Spend in nano-USD at ``period_end``, with an interval that holds 80 % of the time.

    ``exhausted_at`` is when ``budget`` runs out at this rate, ``None`` where it
    lasts (or none was given).
    """

    spent: int
    expected: int
    low: int
    high: int
    per_day: int
    period_end: float
    days_of_history: float
    budget: int | None = None
    exhausted_at: float | None = None


def forecast(
    hourly: Sequence[tuple[float, int]],
    *,
    now: float,
    period_start: float,
    period_end: float,
    budget: int | None = None,
) -> Forecast | None:
    """Forecast spend.

    Parameters
    ----------
    hourly
        (start of the hour in epoch seconds, nano-USD); hours without spend may be left out.
    now, period_start, period_end
        Epoch seconds.
    budget
        Nano-USD for the period.

    Examples
    --------
    >>> hours = [(h * 3600.0, 100) for h in range(240)]
    >>> f = forecast(hours, now=240 * 3600.0, period_start=0.0, period_end=480 * 3600.0)
    >>> f.spent, f.expected, f.low == f.high
    (24000, 48000, True)
    >>> forecast(hours[:5], now=5 * 3600.0, period_start=0.0, period_end=480 * 3600.0) is None
    True
    """
    known = [(int(ts // HOUR), cost) for ts, cost in hourly if ts < now]
    if not known:
        return None
    first, last = min(hour for hour, _ in known), int(now // HOUR)
    if last - first < _DAY_HOURS:
        return None
    line = np.zeros(last - first)
    spent = 0
    for hour, cost in known:
        if hour < last:
            line[hour - first] += cost
        if period_start <= hour * HOUR:
            spent += cost
    days = _day_totals(line)
    weights = 0.5 ** (np.arange(len(days))[::-1] / _HALF_LIFE_DAYS)
    weights /= weights.sum()
    level = float(weights @ days)
    shape = _shape(line, first)
    hours = np.arange(last, max(last, ceil(period_end / HOUR)))
    expected = level * shape[hours % len(shape)]
    expected[:1] *= 1.0 - (now % HOUR) / HOUR
    ahead = float(expected.sum())
    remaining_days = max(0.0, (period_end - now) / (HOUR * _DAY_HOURS))
    effective = 1.0 / float(weights @ weights)
    spread = float(sqrt(weights @ (days - level) ** 2 * len(days) / max(1, len(days) - 1)))
    error = _QUANTILE * spread * sqrt(remaining_days + remaining_days**2 / effective)
    return Forecast(
        spent=spent,
        expected=spent + round(ahead),
        low=spent + round(max(0.0, ahead - error)),
        high=spent + round(ahead + error),
        per_day=round(level),
        period_end=period_end,
        days_of_history=len(line) / _DAY_HOURS,
        budget=budget,
        exhausted_at=_exhausted(budget, spent, level, shape, now),
    )


def _day_totals(line: _Line) -> _Line:
    """Totals of whole days, counted back from now."""
    whole = len(line) // _DAY_HOURS
    days: _Line = line[len(line) - whole * _DAY_HOURS :].reshape(whole, _DAY_HOURS).sum(axis=1)
    return days


def _shape(line: _Line, first: int) -> _Line:
    """The share of a mean day that each hour of the day (or week) takes, indexed by hour."""
    period = _WEEK_HOURS if len(line) >= 3 * _WEEK_HOURS else _DAY_HOURS
    sums = np.zeros(period)
    counts = np.zeros(period)
    places = (first + np.arange(len(line))) % period
    np.add.at(sums, places, line)
    np.add.at(counts, places, 1)
    means = sums / np.maximum(counts, 1)
    total = means.sum()
    if total <= 0:
        return np.full(period, 1.0 / _DAY_HOURS)
    shape: _Line = means / total * (period / _DAY_HOURS)
    return shape


def _exhausted(
    budget: int | None, spent: int, level: float, shape: _Line, now: float
) -> float | None:
    """When the budget is gone, looked for over 400 days."""
    if budget is None:
        return None
    if spent >= budget:
        return now
    if level <= 0:
        return None
    left = float(budget - spent)
    hour = int(now // HOUR)
    for step in range(400 * _DAY_HOURS):
        start = max(now, (hour + step) * HOUR)
        rate = level * float(shape[(hour + step) % len(shape)])
        part = rate * ((hour + step + 1) * HOUR - start) / HOUR
        if part >= left:
            return start + left / rate * HOUR
        left -= part
    return None
