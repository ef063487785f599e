"""A fire drill: an incident played over one's own traffic, and what was seen of it.

Owns: the replay with and without the incident, and time and money to detection and
to the first stop. Must never: act on anything, or count an alarm as a find that
rings without the incident as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detection.backtest import Backtest
from detection.cells import series_of
from detection.settings import DetectionSettings, PolicySettings
from detection.types import Observation, Series
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
    usual = Replay(_learned(past(), detection, policies))
    for call in stage:
        usual.feed(call)
    usual.finish()
    replay = Replay(_learned(past(), detection, policies))
    for call in played:
        replay.feed(call, own=call.id in ids)
    replay.finish()
    return found_by(plan, replay, usual)


def found_by(plan: IncidentPlan, replay: Replay, usual: Replay) -> Found:
    """What a replay with the incident tells that one without it does not."""
    rings = {_what(line) for line in usual.lines}
    values = {(series.dimension, series.value) for series in replay.names}
    spent = replay.spent
    found = Found(plan=plan, calls=len(spent), cost_nano_usd=sum(cost for _, cost in spent))
    if not spent:
        return found
    start, end = spent[0][0], spent[-1][0] + _AFTER_SECONDS
    heard = [
        line
        for line in replay.lines
        if start <= line["ts"] <= end
        and (line["scope"]["dimension"], line["scope"]["value"]) in values
        and _what(line) not in rings
    ]
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


def as_plain(found: Found) -> dict[str, object]:
    """The findings as JSON takes them."""
    shown = {name: getattr(found, name) for name in Found.__slots__ if name != "plan"}
    return {**found.plan.model_dump(), **shown}


def of_plain(shown: Mapping[str, Any]) -> Found:
    """The findings of :func:`as_plain` again."""
    plan = IncidentPlan.model_validate({n: shown[n] for n in IncidentPlan.model_fields})
    rest = {n: shown[n] for n in Found.__slots__ if n != "plan"}
    return Found(plan, **rest)


def _what(line: dict[str, Any]) -> tuple[Any, ...]:
    scope = line["scope"]
    return line["signal"], line["tier"], line["action"], scope["dimension"], scope["value"]


def _learned(
    past: Sequence[Observation], detection: DetectionSettings, policies: PolicySettings
) -> Backtest:
    test = Backtest(detection, policies)
    for call in past:
        test.feed(call)
    test.engine.finish_learning()
    return test


class Replay:
    """A backtest that has learned, and tells the incident's own calls from the others.

    ``names`` are the series of its own calls, ``spent`` their times and nano-USD.
    """

    def __init__(self, learned: Backtest) -> None:
        self._test = learned
        self.lines: list[dict[str, Any]] = []
        self.names: set[Series] = set()
        self.spent: list[tuple[float, int]] = []
        self.stopped_calls = self.saved = self.hurt = 0

    def feed(self, call: Observation, *, own: bool = False) -> None:
        """Judge the next call."""
        summary = self._test.summary
        before = summary.throttled.calls + summary.blocked.calls
        self.lines += self._test.feed(call)
        if own:
            self.names.update(series_of(call))
            self.spent.append((call.ts, call.cost_nano_usd or 0))
        if summary.throttled.calls + summary.blocked.calls > before:
            if own:
                self.stopped_calls += 1
                self.saved += call.cost_nano_usd or 0
            else:
                self.hurt += 1

    def finish(self) -> None:
        """Hear what the end of the time tells."""
        self.lines += self._test.finish()
