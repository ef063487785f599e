"""A fire drill: an incident played over one's own traffic, and what was seen of it.

Owns: the replay with and without the incident, and time and money to detection and
to the first stop. Must never: act on anything, or count an alarm as a find that
rings without the incident as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detection.backtest import Backtest
from detection.cells import series_of
from detection.settings import DetectionSettings, PolicySettings
from detection.types import Observation
from proxy.history.incidents import IncidentPlan, plant

_AFTER_SECONDS = 600.0
_TOLD = ("warning", "critical", "emergency")
_STOPPING = ("throttle", "block", "downgrade", "disable_key", "cut_streams")


@dataclass(frozen=True, slots=True)
class Found:
    """What a drill came to. Seconds and nano-USD are from the incident's first call;
    ``None`` where it was never detected, or never stopped."""

    plan: IncidentPlan
    calls: int
    cost_nano_usd: int
    signal: str | None = None
    tier: str | None = None
    detected_seconds: float | None = None
    detected_cost_nano_usd: int | None = None
    action: str | None = None
    stopped_seconds: float | None = None
    stopped_calls: int = 0
    saved_nano_usd: int = 0
    hurt_calls: int = 0


def drill(
    plan: IncidentPlan,
    past: Callable[[], Sequence[Observation]],
    stage: Sequence[Observation],
    begin: float,
    *,
    seed: int,
    detection: DetectionSettings,
    policies: PolicySettings,
) -> Found:
    """Play one incident. ``past`` gives the calls before the stage, which are learned.

    Raises ScenarioError where the stage has no calls to make the incident of.
    """
    played, ids = plant(plan, stage, begin, seed)
    usual = _Replay(past(), detection, policies)
    usual.run(stage, frozenset())
    rings = {_what(line) for line in usual.lines}
    replay = _Replay(past(), detection, policies)
    replay.run(played, ids)
    own = [call for call in played if call.id in ids]
    names = {series for call in own for series in series_of(call)}
    values = {(series.dimension, series.value) for series in names}
    start, end = own[0].ts, own[-1].ts + _AFTER_SECONDS
    heard = [
        line
        for line in replay.lines
        if start <= line["ts"] <= end
        and (line["scope"]["dimension"], line["scope"]["value"]) in values
        and _what(line) not in rings
    ]
    spent = [(call.ts, call.cost_nano_usd or 0) for call in own]
    found = Found(plan=plan, calls=len(own), cost_nano_usd=sum(cost for _, cost in spent))
    first = next((x for x in heard if x["action"] is None and x["tier"] in _TOLD), None)
    if first is not None:
        found = replace(
            found,
            signal=first["signal"],
            tier=first["tier"],
            detected_seconds=first["ts"] - start,
            detected_cost_nano_usd=sum(cost for ts, cost in spent if ts <= first["ts"]),
        )
    stop = next((x for x in heard if x["action"] in _STOPPING), None)
    if stop is not None:
        found = replace(found, action=stop["action"], stopped_seconds=stop["ts"] - start)
    return replace(
        found,
        stopped_calls=replay.stopped_calls,
        saved_nano_usd=replay.saved,
        hurt_calls=max(0, replay.hurt - usual.hurt),
    )


def _what(line: dict[str, Any]) -> tuple[Any, ...]:
    scope = line["scope"]
    return line["signal"], line["tier"], line["action"], scope["dimension"], scope["value"]


class _Replay:
    """A backtest that has learned the past and tells the incident's calls from the others."""

    def __init__(
        self, past: Sequence[Observation], detection: DetectionSettings, policies: PolicySettings
    ) -> None:
        self._test = Backtest(detection, policies)
        for call in past:
            self._test.feed(call)
        self._test.engine.finish_learning()
        self.lines: list[dict[str, Any]] = []
        self.stopped_calls = self.saved = self.hurt = 0

    def run(self, calls: Sequence[Observation], ids: frozenset[str]) -> None:
        summary = self._test.summary
        for call in calls:
            before = summary.throttled.calls + summary.blocked.calls
            self.lines += self._test.feed(call)
            if summary.throttled.calls + summary.blocked.calls > before:
                if call.id in ids:
                    self.stopped_calls += 1
                    self.saved += call.cost_nano_usd or 0
                else:
                    self.hurt += 1
        self.lines += self._test.finish()
