"""From observations to what is done about them.

Owns: the way from a verdict to actions, incidents and counters, in this process.
Must never: raise into traffic, await, or decide what engine and policy decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from detection.engine import Engine
from detection.policy import Policy
from detection.types import Action, FleetBucket, Observation, Series, Verdict
from proxy.metrics import RuntimeMetrics

_log = structlog.get_logger("tokenweir.judge")


class Enforces(Protocol):
    """Puts actions in force here and everywhere."""

    def put_in_force(self, actions: Sequence[Action]) -> Sequence[Action]: ...


class Tells(Protocol):
    """Keeps the incidents."""

    def on_verdict(self, verdict: Verdict) -> None: ...
    def on_action(self, action: Action) -> None: ...


class Judge:
    """Detection and policy of one worker."""

    def __init__(
        self,
        *,
        engine: Engine,
        policy: Policy,
        enforcement: Enforces,
        incidents: Tells,
        runtime: RuntimeMetrics,
        now: Callable[[], float],
    ) -> None:
        self.engine = engine
        self.policy = policy
        self._enforcement = enforcement
        self._incidents = incidents
        self._runtime = runtime
        self._now = now
        self._failing: set[str] = set()

    def observe(self, observation: Observation) -> None:
        """Judge one finished call."""
        verdicts = self.engine.observe(observation)
        if verdicts:
            self.act(verdicts)

    def fleet(self, series: Series, buckets: Sequence[FleetBucket]) -> None:
        """Judge what other replicas counted."""
        verdicts = self.engine.merge_fleet(series, buckets, self._now())
        if verdicts:
            self.act(verdicts)

    def sweep(self) -> None:
        """End what is over, and judge what only time shows."""
        self.act(self.engine.sweep(self._now()))
        for name, count in self.engine.faults.items():
            self._runtime.detector_failures[name] = count

    def act(self, verdicts: Iterable[Verdict]) -> None:
        """Do what policy says of each verdict, and tell it."""
        for verdict in verdicts:
            self._runtime.verdicts[(str(verdict.signal), verdict.tier.label)] += 1
            try:
                self._incidents.on_verdict(verdict)
                actions = self.policy.decide(verdict, self._now())
                for action in self._enforcement.put_in_force(actions):
                    self._incidents.on_action(action)
            except Exception:
                self._runtime.detector_failures["policy"] += 1
                _log.exception("verdict_not_acted_on", signal=str(verdict.signal))
