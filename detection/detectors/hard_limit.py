"""Limits of rate that a person set: crossing one is an emergency at once.

Owns: sliding windows up to an hour and the running day of calls, tokens or
dollars. Must never: learn, or wait for other evidence.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.detectors.base import Detector, Occasion
from detection.settings import PERIOD_SECONDS, DetectionSettings, LimitSettings, Metric, Period
from detection.settings import matches_value as matches
from detection.state import SeriesState, View
from detection.types import Family, Observation, Score, Signal, Tier

NANO = 1_000_000_000
DAY_BUCKETS = 8640


class HardLimit:
    """All hard limits of the settings."""

    signal = Signal.HARD_LIMIT
    family = Family.LIMIT
    occasion = Occasion.COUNT

    def __init__(self, settings: DetectionSettings) -> None:
        self._limits = settings.limits
        self.dimensions = frozenset(limit.dimension for limit in settings.limits)

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """The limit exceeded the most, if any is."""
        worst: Score | None = None
        series = view.state.series
        for limit in self._limits:
            if limit.dimension != series.dimension:
                continue
            if limit.values and not any(matches(v, series.value) for v in limit.values):
                continue
            score = self._judge(limit, view)
            if score and (worst is None or (score.ratio or 0) > (worst.ratio or 0)):
                worst = score
        return worst

    def _judge(self, limit: LimitSettings, view: View) -> Score | None:
        observed = _observed(limit, view.state, view.bucket)
        scale = NANO if limit.metric is Metric.COST else 1
        most = limit.limit * scale
        room = max(1, int(most - observed)) if observed <= most else max(1, int(observed * 0.05))
        if limit.metric is Metric.COST:
            view.room_cost = min(view.room_cost, room)
        elif limit.metric is Metric.REQUESTS:
            view.room_calls = min(view.room_calls, room)
        else:
            view.room_calls = 1
        if observed <= most:
            return None
        return Score(
            self.signal,
            self.family,
            Tier.EMERGENCY,
            observed / scale,
            baseline=limit.limit,
            ratio=observed / most,
            window_seconds=float(PERIOD_SECONDS[limit.per]),
            since=view.now - PERIOD_SECONDS[limit.per],
            detail={"limit": limit.name or f"{limit.metric} per {limit.per}"},
        )


def _observed(limit: LimitSettings, state: SeriesState, bucket: int) -> float:
    window = state.tokens if limit.metric is Metric.TOKENS else state.window
    if window is None:
        return 0.0
    window.advance(bucket)
    paid = limit.metric is Metric.COST
    if limit.per is Period.DAY:
        return float(state.today(bucket // DAY_BUCKETS, paid, window is state.tokens))
    buckets = PERIOD_SECONDS[limit.per] // 10
    return float(window.cost_in(buckets) if paid else window.calls_in(buckets))


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The judge of limits, where any is set."""
    return [HardLimit(settings)] if settings.limits else []
