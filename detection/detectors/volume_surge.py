"""Calls against the series' own normal: 60 s, 5 min, 15 min.

Owns: which judge a rule's method names for counts of calls. Must never: block by
itself; volume alone stays at critical.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.detectors.base import Detector, Occasion
from detection.methods import Judge, judge_for
from detection.settings import DetectionSettings
from detection.state import PROFILED, View
from detection.types import Family, Observation, Score, Signal


class Surge:
    """A judge of counts, asked when a series may have crossed its room."""

    family = Family.VOLUME
    occasion = Occasion.COUNT

    def __init__(self, signal: Signal, judge: Judge, settings: DetectionSettings) -> None:
        self.signal = signal
        self._judge = judge
        self.dimensions = frozenset(settings.rule(signal).dimensions or PROFILED)

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Judge the counts of the view's series."""
        return self._judge.judge(view)


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The surge of calls."""
    signal = Signal.VOLUME_SURGE
    return (Surge(signal, judge_for(signal, settings, paid=False), settings),)
