"""The mix of finish reasons: more truncations, refusals or filters than usual.

Owns: a χ² test of the last calls of an owner against its usual mix. Must never:
judge a handful of calls, or a change too small to matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detection.detectors.base import Detector, Occasion
from detection.settings import DetectionSettings
from detection.state import View
from detection.stats import chi_square_tail
from detection.types import Family, Observation, Score, Signal, Tier

RECENT_CALLS = 200
USUAL_CALLS = 500
#: Least change of one reason's share worth telling.
SHARE = 0.10


class FinishReasonMix:
    """Compares the mix since the last look with the mix before."""

    signal = Signal.FINISH_REASON_MIX
    family = Family.SHAPE
    occasion = Occasion.SWEEP
    dimensions: frozenset[str] = frozenset()

    def __init__(self, settings: DetectionSettings) -> None:
        self._p_value = settings.shape.finish_p_value

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Judge the owner's mix and take it into the usual one."""
        owner = view.owner
        if owner is None:
            return None
        mix = owner.finish
        recent = sum(mix.recent.values())
        if recent < RECENT_CALLS:
            return None
        score = (
            self._judge(mix.usual, mix.recent) if sum(mix.usual.values()) >= USUAL_CALLS else None
        )
        mix.settle()
        return score

    def _judge(self, usual: Mapping[str, float], recent: Mapping[str, int]) -> Score | None:
        before, now = sum(usual.values()), sum(recent.values())
        names = sorted(set(usual) | set(recent))
        statistic, worst, moved = 0.0, "", 0.0
        for name in names:
            a, b = usual.get(name, 0.0), float(recent.get(name, 0))
            pooled = (a + b) / (before + now)
            statistic += (a - before * pooled) ** 2 / (before * pooled)
            statistic += (b - now * pooled) ** 2 / (now * pooled)
            change = b / now - a / before
            if change > moved:
                worst, moved = name, change
        p_value = chi_square_tail(statistic, max(1, len(names) - 1))
        if p_value > self._p_value or moved < SHARE:
            return None
        return Score(
            self.signal,
            self.family,
            Tier.WARNING,
            recent.get(worst, 0) / now,
            baseline=usual.get(worst, 0.0) / before,
            p_value=p_value,
            ceiling=Tier.WARNING,
            detail={"reason": worst, "calls": now},
        )


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The judge of finish reasons."""
    return (FinishReasonMix(settings),)
