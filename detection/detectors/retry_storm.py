"""One request that fails and is sent again and again.

Owns: failing repeats of one fingerprint. Must never: judge errors that differ;
those are the error rate's.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.detectors.base import Detector, Occasion
from detection.detectors.error_rate import outage
from detection.repeats import Repeat
from detection.settings import DetectionSettings
from detection.state import View
from detection.types import Family, Observation, Score, Signal, Tier


class RetryStorm:
    """Counts failing repeats of the call at hand."""

    signal = Signal.RETRY_STORM
    family = Family.ERRORS
    occasion = Occasion.REPEAT
    dimensions: frozenset[str] = frozenset()

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Judge the fingerprint that came again."""
        entry = view.repeat
        if not isinstance(entry, Repeat):
            return None
        fails = entry.fails + entry.fails_before
        most = self._settings.errors.retries
        if fails < most:
            return None
        return Score(
            self.signal,
            self.family,
            Tier.CRITICAL if fails >= 2 * most else Tier.WARNING,
            float(fails),
            baseline=float(most),
            ratio=fails / most,
            window_seconds=float(self._settings.repetition.window_seconds),
            since=entry.first,
            ceiling=Tier.CRITICAL
            if outage(view, self._settings.errors.threshold)
            else Tier.EMERGENCY,
            detail={"fingerprint": observation.fingerprint if observation else None},
        )


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The judge of retries."""
    return (RetryStorm(settings),)
