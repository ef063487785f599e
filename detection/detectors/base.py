"""The contract of a detector, and how detectors are found.

Owns: the protocol, the occasions on which a detector is asked, and discovery.
Must never: know what any single detector judges.

A detector is one file in this package with a function
``detectors(settings) -> Sequence[Detector]``. It keeps no state of its own: all
that it remembers stands in the view's series and owner, so that it dumps, loads
and is bounded with them. It may raise; the engine counts that and turns it off
for that series.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Set
from enum import StrEnum
from typing import Protocol

from detection.settings import DetectionSettings
from detection.state import View
from detection.types import Family, Observation, Score, Signal


class Occasion(StrEnum):
    """When a detector is asked.

    ``COUNT``: a series' count or cost may have crossed the room its judges left.
    ``FAILURE``: a call failed. ``REPEAT``: a fingerprint came again, or a session
    grew steadily. ``EXCESS``: a call went past its owner's upper bound. ``MEMBER``:
    a model, agent or client was seen for the first time. ``SWEEP``: once a minute.
    """

    COUNT = "count"
    FAILURE = "failure"
    REPEAT = "repeat"
    EXCESS = "excess"
    MEMBER = "member"
    SWEEP = "sweep"


class Detector(Protocol):
    """One judge of one signal."""

    @property
    def signal(self) -> Signal:
        """The signal it judges."""
        ...

    @property
    def family(self) -> Family:
        """The family of evidence it brings."""
        ...

    @property
    def occasion(self) -> Occasion:
        """When it is asked."""
        ...

    @property
    def dimensions(self) -> Set[str]:
        """Dimensions it judges; empty: all that have what it needs."""
        ...

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Judge now; ``None`` where there is nothing to say or too little data.

        ``observation`` is the call at hand, ``None`` in the sweep and when only
        counts of other replicas came in.
        """
        ...


def discover(settings: DetectionSettings) -> list[Detector]:
    """All detectors of this package that the settings leave enabled, in name order."""
    package = importlib.import_module(__package__ or "detection.detectors")
    found: list[Detector] = []
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        make = getattr(module, "detectors", None)
        if make is not None:
            found.extend(d for d in make(settings) if settings.rule(d.signal).enabled)
    return found
