"""The façade of detection: observations in, verdicts out.

Owns: the sweep, what pages show, and dumps. Must never: await, read a clock, or
raise into traffic.

The same observations and sweeps give the same verdicts, live and offline.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from detection.cells import PART
from detection.detectors.base import Occasion
from detection.fleet import Fleet
from detection.lane import LATEST, more
from detection.profile import HALF_HOUR
from detection.state import NEVER, SeriesState, View
from detection.types import Score, Series, Signal, Tier, Verdict

DUMP_VERSION = 1
HOUR = 360
_PARTS = ("version", "now", "swept", "faults", "states", "owners", "cells")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SeriesView:
    """What a page shows of a series.

    ``state`` is ``learning`` (too little known, nothing statistical acts),
    ``tightening`` or ``known``. ``usual_calls_half_hour`` is the mean at this time of
    day, ``None`` where unknown; ``records`` the greatest windows (calls, nano-USD);
    ``alarms`` the tier of each signal under way; ``untrusted`` signals that cried wolf.
    """

    series: Series
    state: str
    age_days: float
    calls_60: int
    calls_300: int
    calls_3600: int
    cost_300_nano_usd: int
    cost_3600_nano_usd: int
    usual_calls_half_hour: float | None
    records: Mapping[str, int]
    errors: int
    alarms: Mapping[str, str]
    untrusted: Mapping[str, float]
    off: tuple[str, ...]


class Engine(Fleet):
    """All detection of one replica."""

    def submit(self, series: Series, score: Score, now: float) -> list[Verdict]:
        """Take evidence from elsewhere, such as a budget's burn rate."""
        self.now = max(self.now, now)
        bucket = int(now) // 10
        told, state = self._state(series, bucket)
        self._registry.marked[series] = state
        return (told or []) + self._combiner.add(View(now, bucket, state), score)

    def sweep(self, now: float, *, lead: bool = True) -> list[Verdict]:
        """Once a minute: end what is over; each half-hour learn, each hour judge the slow lane.

        Each replica ends and learns what is its own. The slow lane (drift, peers, finish
        reasons) judges what all replicas counted together, so that one of them, that
        which leads, does it for all; the others only keep their mixes of reasons fresh.
        """
        return [v for part in self.sweep_in_parts(now, lead=lead) for v in part]

    def sweep_in_parts(self, now: float, *, lead: bool = True) -> Iterator[list[Verdict]]:
        """The sweep, some milliseconds at a time; calls may be observed in between."""
        self.now = max(self.now, now)
        bucket = int(now) // 10
        registry = self._registry
        yield from self._book_waiting(bucket - LATEST)
        yield from self._weigh()
        for states in _parts(list(registry.marked.values())):
            yield self._end(states, now)
        if bucket // HALF_HOUR != self._learned:
            self._learned = bucket // HALF_HOUR
            for states in _parts(list(registry.states.values())):
                yield self._learn(states, bucket)
            if not lead:
                for owners in _parts(list(registry.owners.values())):
                    for owner in owners:
                        owner.finish.freshen()
                    yield []
        if lead and bucket // HOUR != self._slow:
            self._slow = bucket // HOUR
            yield from self._slow_lane(now, bucket)

    def _weigh(self) -> Iterator[list[Verdict]]:
        """See how much memory the series take by now, and make room if it is too much."""
        heavy = 0
        for states in _parts(list(self._registry.states.values()), 32 * PART):
            heavy += sum([state.window.dense for state in states])
            yield []
        registry = self._registry
        registry.heavy, cells = heavy, -1
        while registry.full and cells != len(registry.cells):
            cells = len(registry.cells)
            yield self._make_room() or []

    def _end(self, states: Sequence[SeriesState], now: float) -> list[Verdict]:
        told: list[Verdict] | None = None
        for state in states:
            told = more(told, self._combiner.expire(state, now))
            if not state.evidence and not state.wolf:
                self._registry.marked.pop(state.series, None)
        return told or []

    def _learn(self, states: Sequence[SeriesState], bucket: int) -> list[Verdict]:
        told: list[Verdict] | None = None
        for state in states:
            if state.profile is not None and state.profile.due(bucket):
                told = more(told, self._count(state, None, bucket))
        return told or []

    def _slow_lane(self, now: float, bucket: int) -> Iterator[list[Verdict]]:
        registry = self._registry
        peers: dict[str, list[SeriesState]] = {}
        for state in registry.states.values():
            if state.profile is not None:
                peers.setdefault(state.series.dimension, []).append(state)
        for group in peers.values():
            for states in _parts(group):
                told: list[Verdict] | None = None
                for state in states:
                    view = View(now, bucket, state, registry.owners.get(state.series))
                    view.peers = group
                    told = more(told, self._ask(Occasion.SWEEP, None, view))
                yield told or []

    def _book_waiting(self, latest: int) -> Iterator[list[Verdict]]:
        """Book the cells whose oldest waiting call is from this bucket or before."""
        for identities in _parts(list(self._registry.former)):
            for identity in identities:
                if identity in self._registry.former:
                    self._registry.relink(identity)
            yield []
        for cells in _parts(list(self._registry.cells.values())):
            told: list[Verdict] | None = None
            for cell in cells:
                if cell.calls and cell.start <= latest:
                    told = more(told, self._book(cell, None, int(self.now) // 10))
            yield told or []

    def renewed(self, series: Series, signal: Signal) -> float | None:
        """When a signal of a series was last seen; ``None`` where it is not under way."""
        state = self._registry.states.get(series)
        evidence = state.evidence.get(signal) if state is not None else None
        return evidence.last if evidence is not None else None

    def dismiss(
        self,
        signal: Signal,
        series: Series,
        now: float,
        *,
        fingerprint: str | None = None,
        count: float = 0.0,
    ) -> None:
        """A person called an alarm false: hold the signal at info on that series for a while.

        Of a loop, ``fingerprint`` and how often it was seen in the window make that very
        call a habit of its owner.
        """
        state = self._registry.states.get(series)
        if state is not None:
            self._combiner.cried_wolf(state, signal, now)
            self._registry.marked[series] = state
        owner = self._registry.owners.get(series)
        if owner is not None and fingerprint is not None:
            owner.repeats.allow(fingerprint, count, now)

    def finish_learning(self, series: Series | None = None) -> None:
        """Take what was seen as an imported history: statistical rules act from now on."""
        for state in self._registry.states.values():
            if state.profile is not None and series in (None, state.series):
                state.profile.learned = True

    def view(self, series: Series, now: float) -> SeriesView | None:
        """What is known of a series; ``None`` where it was never seen."""
        state = self._registry.states.get(series)
        if state is None:
            return None
        window, profile = state.window, state.profile
        bucket = max(int(now) // 10, window.bucket)
        window.advance(bucket)
        usual = profile.usual(bucket) if profile is not None else None
        return SeriesView(
            series,
            self._stage(state, bucket),
            profile.age_days(bucket) if profile is not None else 0.0,
            window.calls_in(6),
            window.calls_in(30),
            window.calls_in(360),
            window.cost_in(30),
            window.cost_in(360),
            usual[0] if usual is not None else None,
            profile.record_names() if profile is not None else {},
            state.errors,
            {str(s): e.told.label for s, e in state.evidence.items() if e.told > Tier.NONE},
            {str(s): until for s, until in state.wolf.items()},
            tuple(sorted(state.off or ())),
        )

    def _stage(self, state: SeriesState, bucket: int) -> str:
        profile, learning = state.profile, self.settings.learning
        if profile is None or not profile.known(bucket) or state.learning(learning.days):
            return "learning"
        if profile.learned or profile.age_days(bucket) >= learning.tighten_days:
            return "known"
        return "tightening"

    def health(self) -> dict[str, Any]:
        """Faults by detector, series with a detector off, sizes, and bytes per series."""
        registry = self._registry
        states = list(registry.states.values())
        return {
            "faults": dict(self.faults),
            "detectors_off": sum(len(s.off) for s in states if s.off),
            "series": len(states),
            "heavy": registry.heavy,
            "owners": len(registry.owners),
            "combinations": len(registry.cells),
            "dropped": registry.dropped,
            "bytes_per_series": sum(map(_size, states[:64])) // max(1, len(states[:64])),
        }

    def dump(self) -> dict[str, Any]:
        """All state as plain values, fit for JSON."""
        whole: dict[str, Any] = {"cells": [], "states": [], "owners": []}
        for name, part in self.dump_in_parts():
            if name in whole:
                whole[name] += part
            else:
                whole[name] = part
        return whole

    def dump_in_parts(self) -> Iterator[tuple[str, Any]]:
        """The dump as (name, value); the lists of one name are to be joined.

        Traffic may go on between two parts: each series is told as it then is.
        """
        yield "version", DUMP_VERSION
        for _ in self._book_waiting(NEVER):
            yield "cells", []
        yield "now", self.now
        yield "swept", [self._learned, self._slow]
        yield "faults", dict(self.faults)
        yield from self._registry.parts()

    def load(self, saved: Mapping[str, Any]) -> None:
        """Undo :meth:`dump`.

        Raises
        ------
        ValueError
            It is a dump of another version.
        """
        self.load_parts((name, saved.get(name)) for name in _PARTS)

    def load_parts(self, parts: Iterable[tuple[str, Any]]) -> None:
        """Undo :meth:`dump_in_parts`, in its order; what was known before is forgotten.

        Raises
        ------
        ValueError
            It is a dump of another version; nothing is known then.
        """
        registry, version = self._registry, None
        registry.clear()
        try:
            for name, value in parts:
                if name == "version":
                    version = value
                if version != DUMP_VERSION:
                    break
                if name == "now":
                    self.now = float(value)
                elif name == "swept":
                    self._learned, self._slow = value
                elif name == "faults":
                    self.faults = dict(value)
                else:
                    registry.load(name, value)
            if version != DUMP_VERSION:
                raise ValueError(f"a dump of version {version} can't be read")
        except BaseException:
            registry.clear()
            raise

    def forget(self, owns: Callable[[str, str], bool], kind: str, member: str) -> int:
        """Forget the series for which ``owns(dimension, value)``, and a member of others.

        Gives how many series went.
        """
        return self._registry.forget(owns, kind, member)

    def take_over(self, other: Engine) -> None:
        """Go on with all that another engine knows, by the settings of this one.

        The other must not be used again: both have the same series.
        """
        self.now, self.faults = other.now, other.faults
        self._learned, self._slow = other._learned, other._slow
        self._repeating = other._repeating
        self._registry.take_over(other._registry)


def _parts(rows: list[T], most: int = PART) -> Iterator[list[T]]:
    for at in range(0, len(rows), most):
        yield rows[at : at + most]


def _size(state: SeriesState) -> int:
    total = sys.getsizeof(state)
    for part in (state.window, state.profile):
        if part is not None:
            total += sys.getsizeof(part)
            total += sum(sys.getsizeof(getattr(part, name)) for name in part.__slots__)
    return total
