"""The root cause of an incident, looked up where this replica remembers it.

Owns: which metric a signal is about, and putting an explanation into an
incident. Must never: work on the event loop for long: the explaining runs in
a thread, over a snapshot that nobody changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from detection.contrib import Recorder
from detection.explain import Explanation, explain
from detection.story import next_step, tell
from detection.types import Series, Signal
from proxy import incidents_life as life
from proxy.incidents_model import Incident
from proxy.store.counters import Counters
from proxy.store.series import FIVE_MINUTES, TEN_SECONDS

Spent = Callable[[Series, float, float], Awaitable[int | None]]

#: What a signal's change is measured in; cost, where it isn't named.
_METRICS: Mapping[Signal, str] = {
    Signal.VOLUME_SURGE: "requests",
    Signal.AGENT_LOOP: "requests",
    Signal.ERROR_RATE: "errors",
    Signal.RETRY_STORM: "errors",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """What was found: this replica's explanation, and the fleet's spend since (nano-USD)."""

    explanation: Explanation
    fleet_cost_nano_usd: int | None


class Causes:
    """Finds causes in a recorder; ``spent`` asks the whole fleet's cost."""

    def __init__(self, recorder: Recorder | None, spent: Spent | None) -> None:
        self._recorder = recorder
        self._spent = spent

    async def find(
        self, signal: Signal, series: Series, since: float | None, now: float
    ) -> Cause | None:
        """The cause as known now; ``None`` where this replica saw too little of it."""
        if self._recorder is None:
            return None
        snapshot = self._recorder.snapshot()
        metric = _METRICS.get(signal, "cost")

        def work() -> Explanation | None:
            cells = list(snapshot.cells(series))
            return explain(cells, now=now, since=since, metric=metric, series=series)

        found = await asyncio.to_thread(work)
        if found is None:
            return None
        fleet = await self._spent(series, found.since, now) if self._spent else None
        return Cause(found, fleet)


def with_cause(incident: Incident, cause: Cause | None, now: float) -> Incident:
    """The incident with its story; what was known before stays where nothing new is."""
    explanation = cause.explanation if cause is not None else None
    kind = "tool" if incident.detail.get("strong") else ""
    story = tell(incident.signal, incident.series, explanation, kind=kind)
    advice = next_step(incident.signal, explanation)
    if cause is None:
        if incident.story:
            return incident
        return life.told(incident, story, advice, now)
    found = cause.explanation.as_dict()
    if cause.fleet_cost_nano_usd is not None:
        found["cost_so_far_nano_usd"] = cause.fleet_cost_nano_usd
    return life.explained(life.told(incident, story, advice, now), found)


def fleet_spend(counters: Counters) -> Spent:
    """Asks the store what a series cost the whole fleet between two times."""

    async def spent(series: Series, since: float, until: float) -> int | None:
        fine = until - since <= TEN_SECONDS.keep_seconds
        resolution = TEN_SECONDS if fine else FIVE_MINUTES
        found = await counters.history(series, resolution, since, until)
        return sum(counts.cost_nano_usd for _, counts in found) if found else None

    return spent
