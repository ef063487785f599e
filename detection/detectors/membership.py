"""A model, agent, key and model, or client network that was never seen before.

Owns: the signals of novelty. Must never: speak during warm-up, where everything
is new.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.detectors.base import Detector, Occasion
from detection.settings import DetectionSettings
from detection.state import View
from detection.types import Family, Observation, Score, Signal, Tier

TIERS = {
    Signal.NEW_MODEL: Tier.INFO,
    Signal.NEW_AGENT: Tier.INFO,
    Signal.NEW_KEY_MODEL: Tier.WARNING,
    Signal.NEW_CLIENT: Tier.WARNING,
}


class NewMember:
    """Tells of one kind of newcomer."""

    family = Family.NOVELTY
    occasion = Occasion.MEMBER
    dimensions: frozenset[str] = frozenset()

    def __init__(self, signal: Signal, settings: DetectionSettings) -> None:
        self.signal = signal
        self._learning = settings.learning

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Tell of the newcomer in the view, unless its series still warms up."""
        state, member = view.state, view.member
        if member is None or member[0] != self.signal:
            return None
        warm = state.window.calls > self._learning.warm_up_requests or (
            state.profile is not None
            and (
                state.profile.learned
                or state.profile.age_days(view.bucket) >= self._learning.warm_up_days
            )
        )
        if not warm:
            return None
        return Score(
            self.signal,
            self.family,
            TIERS[self.signal],
            1.0,
            baseline=0.0,
            since=view.now,
            ceiling=Tier.WARNING,
            detail={"member": member[1]},
        )


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """One judge per kind of newcomer."""
    return tuple(NewMember(signal, settings) for signal in TIERS)
