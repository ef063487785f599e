"""Dollars against the series' own normal: 15 min and 1 h.

Owns: which judge a rule's method names for spend. Must never: block by itself;
spend alone stays at critical.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.detectors.base import Detector
from detection.detectors.volume_surge import Surge
from detection.methods import judge_for
from detection.settings import DetectionSettings
from detection.types import Signal


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The spike of spend."""
    signal = Signal.SPEND_SPIKE
    return (Surge(signal, judge_for(signal, settings, paid=True), settings),)
