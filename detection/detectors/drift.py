"""Cost per call that creeps up over weeks: longer prompts, dearer models, more retries.

Owns: seven days against the thirty before, and the Theil–Sen slope of six weeks. Must
never: call growth of the number of calls a drift; that is success.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log

from detection.detectors.base import Detector, Occasion
from detection.settings import DetectionSettings
from detection.state import PROFILED, View
from detection.stats import theil_sen
from detection.types import Family, Observation, Score, Signal, Tier

NANO = 1_000_000_000
WEEKS = 6
#: Calls a week below which its mean cost is noise.
LEAST_CALLS = 100


class Drift:
    """The slow trend of a series' cost per call."""

    signal = Signal.DRIFT
    family = Family.SHAPE
    occasion = Occasion.SWEEP

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings.drift
        self.dimensions = frozenset(settings.rule(self.signal).dimensions or PROFILED)

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Judge the days that are complete."""
        profile = view.state.profile
        if profile is None or len(profile.days) < 15:
            return None
        today = profile.days[-1][0]
        recent = _per_call(profile.days, today - 7, today)
        before = _per_call(profile.days, today - 37, today - 7)
        if recent is None or before is None or before <= 0:
            return None
        slope = self._slope(profile.days, today)
        ratio = recent / before
        if slope is not None and slope >= self._settings.weekly_growth:
            tier, growth = Tier.WARNING, slope
        elif ratio >= self._settings.ratio:
            tier, growth = Tier.INFO, slope if slope is not None else 0.0
        else:
            return None
        return Score(
            self.signal,
            self.family,
            tier,
            recent / NANO,
            baseline=before / NANO,
            ratio=ratio,
            window_seconds=7 * 86400.0,
            ceiling=Tier.WARNING,
            detail={"unit": "usd_per_call", "weekly_growth": round(growth, 4)},
        )

    def _slope(self, days: Sequence[Sequence[int]], today: int) -> float | None:
        """Growth a week over six weeks, if nearly every week was dearer than the last."""
        weeks = [
            _per_call(days, today - 7 * (w + 1), today - 7 * w) for w in reversed(range(WEEKS))
        ]
        known = [w for w in weeks if w]
        if len(known) < WEEKS:
            return None
        rises = sum(b > a for a, b in pairwise(known))
        if rises < WEEKS - 2:
            return None
        return exp(theil_sen([log(w) for w in known])) - 1.0


def _per_call(days: Sequence[Sequence[int]], start: int, end: int) -> float | None:
    """Mean nano-USD per call from day ``start`` to before ``end``; ``None`` if too few calls."""
    calls = cost = 0
    for row in days:
        if start <= row[0] < end:
            calls, cost = calls + row[1], cost + row[2]
    return cost / calls if calls >= LEAST_CALLS else None


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The judge of drift."""
    return (Drift(settings),)
