"""The isolation forest, for those who ask for it by name.

Owns: features of half-hours and one small forest per look. Must never: be imported
without the extra ``forest`` (scikit-learn), or use randomness that isn't seeded.

Isolation forest: Liu, Ting & Zhou 2008, *Isolation Forest*, ICDM; a score of 0.5 is
ordinary, towards 1 is isolated.
"""

from __future__ import annotations

from math import log1p

import numpy as np
from sklearn.ensemble import IsolationForest

from detection.methods import band
from detection.settings import DetectionSettings
from detection.state import View
from detection.surge import NANO
from detection.types import Family, Score, Signal, Tier

#: Half-hours needed to grow a forest: eight hours.
LEAST_SAMPLES = 16
TREES = 64
#: Forests kept, the oldest given up first.
MOST_FORESTS = 64
#: Isolation that 2, 3 and 4 standard deviations stand for.
SCORE_AT = {2.0: 0.60, 3.0: 0.65, 4.0: 0.70}

#: Calls and cost of half-hours, the oldest first.
Recent = tuple[tuple[float, float], ...]


class ForestJudge:
    """Judges the last half-hour against the day before it, calls and cost together."""

    def __init__(self, signal: Signal, settings: DetectionSettings, *, paid: bool) -> None:
        self.signal = signal
        self.paid = paid
        sigmas = settings.rule(signal).sigmas()
        self._least = float(np.interp(sigmas, list(SCORE_AT), list(SCORE_AT.values())))
        floors = settings.floors
        self.floor = floors.dollars_in_5_minutes * NANO if paid else floors.calls_in_60_seconds
        self._grown: dict[Recent, IsolationForest] = {}

    def judge(self, view: View) -> Score | None:
        """Judge the running half-hour; looks again after a quarter more."""
        window, profile = view.state.window, view.state.profile
        calls, cost = window.calls_in(180), window.cost_in(180)
        observed = cost if self.paid else calls
        room = int(max(self.floor - observed, observed * 0.25)) + 1
        if self.paid:
            view.room_cost = min(view.room_cost, room)
        else:
            view.room_calls = min(view.room_calls, room)
        if profile is None or observed < self.floor or len(profile.recent) < LEAST_SAMPLES:
            return None
        usual = sorted(float(pair[self.paid]) for pair in profile.recent)
        centre = usual[len(usual) // 2]
        if observed <= centre * view.expected:
            return None
        tier = band(observed / centre - 1.0 if centre > 0 else 10.0)
        if not tier:
            return None
        forest = self._forest(tuple((c, d) for c, d in profile.recent))
        isolation = -float(forest.score_samples([[log1p(calls), log1p(cost)]])[0])
        if isolation < self._least:
            return None
        scale = NANO if self.paid else 1
        return Score(
            self.signal,
            Family.VOLUME,
            tier,
            observed / scale,
            baseline=centre / scale,
            ratio=observed / centre if centre > 0 else None,
            window_seconds=1800.0,
            since=view.now - 1800.0,
            ceiling=Tier.CRITICAL,
            detail={"method": "isolation_forest", "isolation": round(isolation, 3)},
        )

    def _forest(self, recent: Recent) -> IsolationForest:
        """The forest of these half-hours; it grows anew only when one is added."""
        forest = self._grown.get(recent)
        if forest is None:
            history = np.array([[log1p(c), log1p(d)] for c, d in recent])
            forest = IsolationForest(n_estimators=TREES, random_state=0).fit(history)
            if len(self._grown) >= MOST_FORESTS:
                self._grown.pop(next(iter(self._grown)))
            self._grown[recent] = forest
        return forest
