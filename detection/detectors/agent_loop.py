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
from detection.repeats import DAY_SECONDS, Repeats
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
        if count < limit:
            if count >= 0.5 * limit:
                score = self._ping_pong(view, table, limit)
                if score is not None:
                    return score
            table.learn(fingerprint, count, view.now)
            return None
        if table.accustom(fingerprint, entry, count, view.now):
            return None
        table.maxima.pop(int(view.now / DAY_SECONDS), None)
        return self._score(view, entry.kind, count, limit, record, entry.first, 1)

    def _score(
        self,
        view: View,
        kind: str,
        count: float,
        limit: float,
        record: float,
        since: float,
        period: int,
    ) -> Score:
        window = view.state.window
        share = count / max(1.0, window.calls_in(12), count)
        known = view.state.profile is not None and view.state.profile.known(view.bucket)
        strong = kind == "tool" and (share >= SHARE or (known and record > 0))
        if kind == "tool":
            critical = strong and count >= CRITICAL_RATIO * limit
        else:
            critical = count >= max(self._settings.text_repeats, limit)
        tier = Tier.CRITICAL if critical else Tier.WARNING
        return Score(
            self.signal,
            self.family,
            tier,
            count,
            baseline=limit,
            ratio=count / limit,
            window_seconds=float(self._settings.window_seconds),
            since=since,
            ceiling=Tier.EMERGENCY if strong else Tier.CRITICAL,
            detail={
                "kind": kind,
                "strong": strong,
                "share": round(share, 3),
                "own_volume": strong and share >= SHARE and self._is_volume(view),
                "record": record,
                "period": period,
                "fingerprint": view.fingerprint,
            },
        )

    def _is_volume(self, view: View) -> bool:
        """Whether the repeated call alone passes the floor of a series without history."""
        owner, entry = view.owner, view.repeat
        if owner is None or entry is None:
            return False
        half = owner.repeats.half
        minute = entry.now + entry.before * (1.0 - (view.now / half - entry.epoch))
        return minute * 60.0 / half >= self._floor

    def _ping_pong(self, view: View, table: Repeats, limit: float) -> Score | None:
        """Two to four calls in turn, each half the limit, together most of the calls."""
        busiest = table.busiest(view.now, 4)
        calls = view.state.window.calls_in(12)
        total, since, kinds = 0.0, view.now, []
        for period, (count, _, entry) in enumerate(busiest, 1):
            if count < 0.5 * limit:
                return None
            total, since = total + count, min(since, entry.first)
            kinds.append(entry.kind)
            if period >= 2 and total >= 1.5 * limit and total >= PING_PONG_SHARE * calls:
                kind = "tool" if all(k == "tool" for k in kinds) else "text"
                return self._score(view, kind, total, 1.5 * limit, 0.0, since, period)
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
