"""A stream of observations through the same engine and policy as live traffic.

Owns: the replay's clock (the observations' own), what would have been stopped, and
the summary. Must never: read a file, or hold more than the engine's own state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from detection.cells import series_of
from detection.engine import Engine
from detection.policy import Policy
from detection.settings import DetectionSettings, PolicySettings
from detection.types import Action, ActionKind, Mode, Observation, Series, Tier, Verdict

SWEEP_SECONDS = 60.0
TICK_SECONDS = 1.0
IDLE_SECONDS = 7200.0
HALF_HOUR_SECONDS = 1800.0
WEEK_SECONDS = 7 * 86400.0
#: Alarms of one series within this are one episode.
EPISODE_SECONDS = 900.0

_FIELDS = Observation._fields
_ALL = itemgetter(*_FIELDS)
#: ``Observation._make`` less its count of the fields, which the getter has taken.
_new = tuple.__new__


def observation_of(row: dict[str, Any]) -> Observation:
    """An observation from one decoded JSON line, which it may change; absent fields are unknown.

    Raises KeyError or TypeError where ``ts`` is missing or no number.

    >>> observation_of({"ts": 5, "id": "x", "tags": None}).ts
    5.0
    """
    try:
        row["finish_reasons"] = tuple(row["finish_reasons"] or ())
        if row["tags"] is None:
            row["tags"] = {}
        found = _new(Observation, _ALL(row))
    except KeyError:
        known = {k: v for k, v in row.items() if k in _FIELDS and v is not None}
        known["finish_reasons"] = tuple(known.get("finish_reasons") or ())
        found = Observation(**{"id": "", **known})
    return found if found.ts.__class__ is float else found._replace(ts=float(found.ts))


@dataclass(slots=True)
class Stops:
    """Calls and nano-USD that one kind of action would have stopped."""

    calls: int = 0
    cost_nano_usd: int = 0


@dataclass(slots=True)
class Summary:
    """What a replay came to; ``alarms`` counts episodes of narrow series by tier."""

    observations: int = 0
    first: float = 0.0
    last: float = 0.0
    keys: set[str] = field(default_factory=set)
    cost_nano_usd: int = 0
    alarms: dict[str, int] = field(default_factory=dict)
    learning: int = 0
    actions: dict[str, int] = field(default_factory=dict)
    throttled: Stops = field(default_factory=Stops)
    blocked: Stops = field(default_factory=Stops)

    def key_weeks(self) -> float:
        """Keys times weeks, at least one day each."""
        return max(1, len(self.keys)) * max(86400.0, self.last - self.first) / WEEK_SECONDS

    def rows(self) -> list[tuple[str, str]]:
        """Label and value pairs for a person."""
        weeks = self.key_weeks()
        stopped = self.throttled.cost_nano_usd + self.blocked.cost_nano_usd
        rows = [
            ("observations", f"{self.observations:,}"),
            ("key-weeks", f"{weeks:.2f}"),
        ]
        for tier in ("info", "warning", "critical", "emergency"):
            count = self.alarms.get(tier, 0)
            rows.append((f"{tier} alarms", f"{count} ({count / weeks:.3f} per key-week)"))
        return [
            *rows,
            ("alarms while learning", str(self.learning)),
            ("actions", ", ".join(f"{k} {n}" for k, n in sorted(self.actions.items())) or "none"),
            ("calls throttled", f"{self.throttled.calls:,}"),
            ("calls blocked", f"{self.blocked.calls:,}"),
            ("dollars let through", f"{(self.cost_nano_usd - stopped) / 1e9:,.2f}"),
            ("dollars stopped", f"{stopped / 1e9:,.2f}"),
        ]


class Backtest:
    """Feeds observations in order; each call returns the lines it gives rise to.

    Every recorded call is judged, also one that would have been stopped: what a
    client would have done instead nobody knows.
    """

    def __init__(
        self, detection: DetectionSettings | None = None, policies: PolicySettings | None = None
    ) -> None:
        self.engine = Engine(detection)
        self.policy = Policy(policies or PolicySettings())
        self.summary = Summary()
        self._active: dict[Series, list[Action]] = {}
        self._tokens: dict[str, tuple[float, float]] = {}
        self._swept = 0.0
        self._ticked = 0.0
        self._called = 0.0
        self._last: dict[tuple[Series, Tier], float] = {}

    def feed(self, o: Observation) -> list[dict[str, Any]]:
        """Judge one call; returns its verdicts and actions as lines, mostly none."""
        summary, ts, cost = self.summary, o.ts, o.cost_nano_usd
        summary.observations += 1
        if ts > summary.last:
            if not summary.first:
                summary.first = self._swept = self._ticked = self._called = ts
            summary.last = ts
        if o.key is not None:
            summary.keys.add(o.key)
        if cost:
            summary.cost_nano_usd += cost
        lines: list[dict[str, Any]] = []
        if ts - self._ticked >= TICK_SECONDS:
            self._tick(ts, lines)
        self._called = ts
        if self._active:
            self._stop(o)
        told = self.engine.observe(o)
        if told:
            self._take(told, ts, lines)
        return lines

    def _tick(self, ts: float, lines: list[dict[str, Any]]) -> None:
        """What a proxy does as time goes by: sweep each minute, climb ladders each second.

        In a silence of more than two hours nothing is under way but what lasts for
        days: there a sweep each half-hour, in which the silence is learned, is enough.
        """
        while ts - self._swept >= SWEEP_SECONDS:
            idle = self._swept - self._called >= IDLE_SECONDS
            step = HALF_HOUR_SECONDS if idle else SWEEP_SECONDS
            now = self._swept = min(self._swept + step, ts)
            self._take(self.engine.sweep(now), now, lines)
            self._enforce(self.policy.tick(now, self.engine.renewed), lines)
        self._ticked = ts
        self._enforce(self.policy.tick(ts, self.engine.renewed), lines)

    def finish(self) -> list[dict[str, Any]]:
        """A last sweep at the end of the stream."""
        lines: list[dict[str, Any]] = []
        self._take(self.engine.sweep(self.summary.last), self.summary.last, lines)
        return lines

    def _take(self, told: list[Verdict], now: float, lines: list[dict[str, Any]]) -> None:
        for verdict in told:
            lines.append(line_of(verdict))
            self._count(verdict, now)
            self._enforce(self.policy.decide(verdict, now), lines, verdict)

    def _count(self, verdict: Verdict, now: float) -> None:
        tier = verdict.tier
        if tier is Tier.NONE:
            return
        if verdict.learning:
            self.summary.learning += 1
            return
        seen = (verdict.series, tier)
        if now - self._last.get(seen, -1e18) > EPISODE_SECONDS:
            self.summary.alarms[tier.label] = self.summary.alarms.get(tier.label, 0) + 1
        self._last[seen] = now

    def _enforce(
        self, actions: list[Action], lines: list[dict[str, Any]], verdict: Verdict | None = None
    ) -> None:
        for action in actions:
            lines.append(line_of_action(action, verdict))
            kinds = self.summary.actions
            kinds[str(action.kind)] = kinds.get(str(action.kind), 0) + 1
            if action.mode is Mode.ENFORCE and action.kind in (
                ActionKind.THROTTLE,
                ActionKind.BLOCK,
            ):
                self._active.setdefault(action.series, []).append(action)

    def _stop(self, o: Observation) -> None:
        """Count a call that the actions in force would have stopped."""
        for series, actions in list(self._active.items()):
            live = [a for a in actions if a.until is None or a.until > o.ts]
            if live:
                self._active[series] = live
            else:
                del self._active[series]
        hit = [a for s in series_of(o) for a in self._active.get(s, ())]
        if any(a.kind is ActionKind.BLOCK for a in hit):
            stops = self.summary.blocked
        elif any(self._is_throttled(a, o.ts) for a in hit):
            stops = self.summary.throttled
        else:
            return
        stops.calls += 1
        stops.cost_nano_usd += o.cost_nano_usd or 0

    def _is_throttled(self, action: Action, now: float) -> bool:
        """A token bucket one second deep, as the throttle's rate says."""
        rate = action.rate_per_second or 1.0
        left, when = self._tokens.get(action.id, (max(1.0, rate), now))
        left = min(max(1.0, rate), left + (now - when) * rate)
        passes = left >= 1.0
        self._tokens[action.id] = (left - 1.0 if passes else left, now)
        return not passes


def line_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict as one line of the output; tier ``none`` means that it is over."""
    return {
        "ts": verdict.ts,
        "signal": str(verdict.signal),
        "tier": verdict.tier.label,
        "scope": {
            "dimension": str(verdict.series.dimension),
            "value": verdict.series.value,
        },
        "observed": verdict.observed,
        "baseline": verdict.baseline,
        "evidence": sorted(str(f) for f in verdict.families),
        "learning": verdict.learning,
        "action": None,
        "until": None,
    }


def line_of_action(action: Action, verdict: Verdict | None) -> dict[str, Any]:
    """An action as one line of the output, with the evidence that called for it."""
    return {
        "ts": action.since,
        "signal": action.signal,
        "tier": action.tier.label,
        "scope": {"dimension": str(action.series.dimension), "value": action.series.value},
        "observed": verdict.observed if verdict else None,
        "baseline": verdict.baseline if verdict else None,
        "evidence": sorted(str(f) for f in verdict.families) if verdict else [],
        "learning": False,
        "action": str(action.kind),
        "until": action.until,
    }
