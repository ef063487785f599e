"""A day that is out of line with the series' own days, or with its peers.

Owns: the last complete day's spend against the series' median day and the peers'
median. Must never: blame a series for being large every day.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from detection.detectors.base import Detector, Occasion
from detection.settings import DetectionSettings
from detection.state import SeriesState, View
from detection.stats import median
from detection.types import Dimension, Family, Observation, Score, Signal, Tier

NANO = 1_000_000_000
LEAST_DAYS = 7


class PeerOutlier:
    """Three times its own usual day, or five times the peers' and more than usual."""

    signal = Signal.PEER_OUTLIER
    family = Family.SHAPE
    occasion = Occasion.SWEEP

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings.drift
        self._peers: Sequence[SeriesState] = ()
        self._spent_by: dict[int, list[float]] = {}
        self._floor = 10 * settings.floors.dollars_in_5_minutes * NANO
        self.dimensions = frozenset(
            settings.rule(self.signal).dimensions
            or (Dimension.KEY, Dimension.AGENT, Dimension.PROJECT, Dimension.USER)
        )

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Judge yesterday."""
        profile = view.state.profile
        if profile is None or len(profile.days) < LEAST_DAYS + 2:
            return None
        spent = float(profile.days[-2][2])
        usual = median(sorted(float(row[2]) for row in profile.days[:-2]))
        if spent < self._floor or usual <= 0:
            return None
        day = profile.days[-2][0]
        known = self._spent_that(day, view.peers)
        others = len(known) - 1
        peers = _median_without(known, spent) if others >= self._settings.least_peers else None
        own = spent / usual
        beside = spent / peers if peers else 0.0
        odd = own >= self._settings.own_ratio
        out = beside >= self._settings.peer_ratio and own >= self._settings.own_ratio / 2
        if not odd and not out:
            return None
        return Score(
            self.signal,
            self.family,
            Tier.WARNING if odd and out else Tier.INFO,
            spent / NANO,
            baseline=usual / NANO,
            ratio=own,
            window_seconds=86400.0,
            ceiling=Tier.WARNING,
            detail={"unit": "usd", "peer_median": peers / NANO if peers else None},
        )

    def _spent_that(self, day: int, peers: Sequence[SeriesState]) -> list[float]:
        """What each peer spent that day, in order; worked out once for all that are asked of."""
        if self._peers is not peers:
            self._peers, self._spent_by = peers, {}
        known = self._spent_by.get(day)
        if known is None:
            found = (_spent(peer, day) for peer in peers)
            known = self._spent_by[day] = sorted(v for v in found if v is not None)
        return known


def _median_without(ordered: Sequence[float], one: float) -> float:
    """The median of the others; ``one`` is among the ordered values.

    >>> _median_without([1.0, 2.0, 3.0, 9.0], 9.0), _median_without([1.0, 2.0, 4.0], 1.0)
    (2.0, 3.0)
    """
    at, middle = bisect_left(ordered, one), (len(ordered) - 1) // 2

    def other(place: int) -> float:
        return ordered[place + (place >= at)]

    if len(ordered) % 2:
        return (other(middle - 1) + other(middle)) / 2.0
    return other(middle)


def _spent(state: SeriesState, day: int) -> float | None:
    if state.profile is None:
        return None
    return next((float(row[2]) for row in reversed(state.profile.days) if row[0] == day), None)


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The judge of outlying days."""
    return (PeerOutlier(settings),)
