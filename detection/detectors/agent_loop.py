"""An agent that does the same thing again and again.

Owns: identical calls, ping-pong of two to four calls, slow growth by the same
step. Must never: call a repeated plain prompt more than weak evidence, or an
owner's habit (a poller, a cron job) evidence at all.

A loop must pass 12 repeats in two minutes and, once the owner is known, two and a
half times the most it ever repeated on earlier days. In 200 recorded agent runs no
call with its arguments came three times in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.detectors.base import Detector, Occasion
from detection.repeats import DAY_SECONDS, Repeat, Repeats
from detection.settings import DetectionSettings, matches_value
from detection.state import View
from detection.types import Family, Observation, Score, Signal, Tier

#: Times its own record of repeats that an owner must pass.
RECORD_RATIO = 2.5
#: Times the threshold at which a repeated tool call is critical without more evidence;
#: a poller that asks every ten seconds stays below.
CRITICAL_RATIO = 2.0
#: Share of an unknown owner's calls that must be the repeated one.
SHARE = 0.25
#: Share of an owner's calls that a ping-pong must make up.
PING_PONG_SHARE = 0.8


class AgentLoop:
    """Judges the fingerprint that came again, and its company."""

    signal = Signal.AGENT_LOOP
    family = Family.REPETITION
    occasion = Occasion.REPEAT
    dimensions: frozenset[str] = frozenset()

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings.repetition
        self._floor = settings.floors.calls_in_60_seconds
        self._allowed = frozenset(settings.repetition.allow)

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Judge the repeat at hand, or the growth of the session at hand."""
        if view.growth:
            return self._growing(observation, view)
        owner, entry, fingerprint = view.owner, view.repeat, view.fingerprint
        if owner is None or entry is None or fingerprint in self._allowed:
            return None
        agents = self._settings.allow_agents
        if agents and any(matches_value(p, view.state.series.value) for p in agents):
            return None
        table = owner.repeats
        count = entry.count(view.now, table.half) + table.elsewhere(fingerprint, view.now)
        record = table.record(view.now)
        limit = max(self._settings.repeats, RECORD_RATIO * record)
        pong = self._ping_pong(view, table, limit) if count >= 0.5 * limit else None
        if count < limit:
            if pong is None:
                table.learn(fingerprint, count, view.now)
            return pong
        if table.accustom(fingerprint, entry, count, view.now):
            return None
        table.maxima.pop(int(view.now / DAY_SECONDS), None)
        score = self._score(view, (entry,), count, limit, record)
        return pong if pong is not None and (pong.ratio or 0.0) > (score.ratio or 0.0) else score

    def _score(
        self, view: View, entries: Sequence[Repeat], count: float, limit: float, record: float
    ) -> Score:
        """What a number of calls, of one fingerprint or of a few in turn, amounts to."""
        kind = "tool" if all(entry.kind == "tool" for entry in entries) else "text"
        share = count / max(1.0, view.state.window.calls_in(12), count)
        known = view.state.profile is not None and view.state.profile.known(view.bucket)
        strong = kind == "tool" and (share >= SHARE or (known and record > 0))
        if kind == "tool":
            critical = strong and count >= CRITICAL_RATIO * limit
        else:
            critical = count >= max(self._settings.text_repeats, limit)
        return Score(
            self.signal,
            self.family,
            Tier.CRITICAL if critical else Tier.WARNING,
            count,
            baseline=limit,
            ratio=count / limit,
            window_seconds=float(self._settings.window_seconds),
            since=min(entry.first for entry in entries),
            ceiling=Tier.EMERGENCY if strong else Tier.CRITICAL,
            detail={
                "kind": kind,
                "strong": strong,
                "share": round(share, 3),
                "own_volume": strong and share >= SHARE and self._is_volume(view, entries),
                "record": record,
                "period": len(entries),
                "fingerprint": view.fingerprint,
            },
        )

    def _is_volume(self, view: View, entries: Sequence[Repeat]) -> bool:
        """Whether the repeated calls alone pass the floor of a series without history."""
        if view.owner is None:
            return False
        half = view.owner.repeats.half
        calls = sum(e.now + e.before * max(0.0, 1.0 - (view.now / half - e.epoch)) for e in entries)
        return calls * 60.0 / half >= self._floor

    def _ping_pong(self, view: View, table: Repeats, limit: float) -> Score | None:
        """Two to four calls in turn, each half the limit, together most of the calls."""
        calls = view.state.window.calls_in(12)
        total, entries = 0.0, []
        for count, _, entry in table.busiest(view.now, 4):
            if count < 0.5 * limit:
                return None
            total += count
            entries.append(entry)
            if len(entries) >= 2 and total >= 1.5 * limit and total >= PING_PONG_SHARE * calls:
                return self._score(view, entries, total, 1.5 * limit, 0.0)
        return None

    def _growing(self, observation: Observation | None, view: View) -> Score | None:
        """A session whose input grows by the same step, call after call."""
        if observation is None or view.growth < self._settings.growing_steps:
            return None
        return Score(
            self.signal,
            self.family,
            Tier.CRITICAL,
            float(view.growth),
            baseline=float(self._settings.growing_steps),
            ratio=view.growth / self._settings.growing_steps,
            since=view.since,
            detail={
                "kind": "growing_context",
                "strong": observation.fingerprint_kind == "tool",
                "session": observation.session,
            },
            ceiling=Tier.EMERGENCY if observation.fingerprint_kind == "tool" else Tier.CRITICAL,
        )


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The judge of loops."""
    return (AgentLoop(settings),)
