"""The judges of counts that users know by name, chosen per rule.

Owns: static, moving average, z-score, MAD and seasonal judges over half-hours,
and the choice among them. Must never: decide a verdict.

All compare the last half-hour (or ``window_seconds``, scaled to a half-hour) with
the last day of half-hours, or with this hour's usual level for ``seasonal``.
Bands of the excess over the usual: 25 to 50 % info, 50 to 200 % warning, 200 % and
more critical; each needs the sensitivity's standard deviations as well.
"""

from __future__ import annotations

from math import sqrt
from typing import Protocol

from detection.settings import DetectionSettings
from detection.settings_rules import Method
from detection.state import View
from detection.stats import median_deviation
from detection.surge import NANO, SequentialJudge
from detection.types import Family, Score, Signal, Tier

#: Half-hours needed before a named method says anything: two hours.
LEAST_SAMPLES = 4


class Judge(Protocol):
    """A judge of one series' counts."""

    def judge(self, view: View) -> Score | None:
        """The score now, having left the room to the next alarm in the view."""
        ...


def band(excess: float) -> Tier:
    """The tier of an excess over the usual, 0.25 meaning 25 % more.

    >>> band(0.3).label, band(1.0).label, band(3.0).label, band(6.0).label
    ('info', 'warning', 'critical', 'emergency')
    """
    for least, tier in (
        (5.0, Tier.EMERGENCY),
        (2.0, Tier.CRITICAL),
        (0.5, Tier.WARNING),
        (0.25, Tier.INFO),
    ):
        if excess >= least:
            return tier
    return Tier.NONE


class NamedJudge:
    """Judges by one of the textbook methods."""

    def __init__(self, signal: Signal, settings: DetectionSettings, *, paid: bool) -> None:
        self.signal = signal
        self.settings = settings
        self.paid = paid
        self.rule = settings.rule(signal)
        self.buckets = (self.rule.window_seconds or 1800) // 10
        floors = settings.floors
        self.floor = (
            floors.dollars_in_5_minutes * NANO if paid else float(floors.calls_in_60_seconds)
        )

    def judge(self, view: View) -> Score | None:
        """Judge the window; looks again after at most a twentieth more."""
        window = view.state.window
        observed = window.cost_in(self.buckets) if self.paid else window.calls_in(self.buckets)
        room = int(max(self.floor - observed, observed * 0.05)) + 1
        if self.paid:
            view.room_cost = min(view.room_cost, room)
        else:
            view.room_calls = min(view.room_calls, room)
        if observed < self.floor:
            return None
        if self.rule.method is Method.STATIC:
            return self._static(view, float(observed))
        normal = self._normal(view)
        if normal is None:
            return None
        scale = self.buckets / 180
        centre, spread = normal[0] * scale, normal[1] * sqrt(scale)
        centre *= view.expected
        # A count can't be surer than Poisson; a flat history must not divide by zero.
        spread = max(spread, sqrt(max(centre, 1.0)) if not self.paid else 0.05 * centre + 1.0)
        sigmas = (observed - centre) / spread
        if sigmas < self.rule.sigmas():
            return None
        tier = band(observed / centre - 1.0 if centre > 0 else 10.0)
        if tier is Tier.NONE:
            return None
        return self._score(view, tier, float(observed), centre, {"sigmas": round(sigmas, 2)})

    def _normal(self, view: View) -> tuple[float, float] | None:
        profile = view.state.profile
        if profile is None:
            return None
        if self.rule.method is Method.SEASONAL:
            usual = profile.usual(view.bucket)
            return None if usual is None else (usual[0], sqrt(usual[1]))
        values = [float(pair[self.paid]) for pair in profile.recent]
        if len(values) < LEAST_SAMPLES:
            return None
        if self.rule.method is Method.MAD:
            return median_deviation(values)
        if self.rule.method is Method.MOVING_AVERAGE:
            values = values[-12:]
        mean = sum(values) / len(values)
        return mean, sqrt(sum((v - mean) ** 2 for v in values) / len(values))

    def _static(self, view: View, observed: float) -> Score | None:
        threshold = (self.rule.threshold or 0.0) * (NANO if self.paid else 1)
        if observed < threshold:
            return None
        return self._score(view, Tier.CRITICAL, observed, threshold, {})

    def _score(
        self, view: View, tier: Tier, observed: float, centre: float, detail: dict[str, float]
    ) -> Score:
        scale = NANO if self.paid else 1
        return Score(
            self.signal,
            Family.VOLUME,
            tier,
            observed / scale,
            baseline=centre / scale,
            ratio=observed / centre if centre > 0 else None,
            window_seconds=self.buckets * 10.0,
            since=view.now - self.buckets * 10.0,
            ceiling=Tier.CRITICAL,
            detail={"method": str(self.rule.method), **detail},
        )


def judge_for(signal: Signal, settings: DetectionSettings, *, paid: bool) -> Judge:
    """The judge that a rule's method names."""
    method = settings.rule(signal).method
    if method is Method.SEQUENTIAL:
        return SequentialJudge(signal, settings, paid=paid)
    if method is Method.ISOLATION_FOREST:
        from detection.forest import ForestJudge

        forest: Judge = ForestJudge(signal, settings, paid=paid)
        return forest
    return NamedJudge(signal, settings, paid=paid)
