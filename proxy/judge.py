"""From observations to what is done about them.

Owns: the way from a verdict to actions, incidents and counters, in this process.
Must never: raise into traffic, await, or decide what engine and policy decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import structlog

from detection.engine import Engine
from detection.fleet import RepeatShare
from detection.policy import Policy
from detection.settings import DetectionSettings, PolicySettings
from detection.types import Action, FleetBucket, Observation, Score, Series, Signal, Verdict
from proxy.common_tags import CommonTags
from proxy.incidents_model import Incident
from proxy.metrics import RuntimeMetrics

_log = structlog.get_logger("tokenweir.judge")
_HALF_HOUR_SECONDS = 1800.0


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
        self._tags = CommonTags()
        self._look_at_tags()

    def _look_at_tags(self) -> None:
        self._tagged = any(rule.match.tags for rule in self.policy.settings.rules)

    def observe(self, observation: Observation) -> None:
        """Judge one finished call."""
        if self._tagged:
            self._tags.observe(observation)
        verdicts = self.engine.observe(observation)
        if verdicts:
            self.act(verdicts)

    def fleet(self, series: Series, buckets: Sequence[FleetBucket]) -> None:
        """Judge what other replicas counted."""
        verdicts = self.engine.merge_fleet(series, buckets, self._now())
        if verdicts:
            self.act(verdicts)

    def evidence(self, series: Series, score: Score) -> None:
        """Take evidence that others found, such as a budget that burns."""
        self.act(self.engine.submit(series, score, self._now()))

    def tell(self, verdict: Verdict) -> None:
        """Tell of a verdict that calls for no action."""
        self._runtime.verdicts[(str(verdict.signal), verdict.tier.label)] += 1
        self._incidents.on_verdict(verdict)

    def repeats(self) -> list[RepeatShare]:
        """The calls that came again here, for the other replicas."""
        return self.engine.repeats_to_share(self._now())

    def repeated(self, replica: str, repeats: Sequence[RepeatShare]) -> None:
        """Judge the calls that came again elsewhere together with those here."""
        self.act(self.engine.merge_repeats(replica, repeats, self._now()))

    def sweep(self, *, lead: bool = True) -> None:
        """End what is over, and judge what only time shows; the latter where it leads."""
        for _ in self.sweep_in_parts(lead=lead):
            pass

    def sweep_in_parts(self, *, lead: bool) -> Iterator[None]:
        """The same some milliseconds at a time; calls may be judged in between."""
        for verdicts in self.engine.sweep_in_parts(self._now(), lead=lead):
            if verdicts:
                self.act(verdicts)
            yield
        for name, count in self.engine.faults.items():
            self._runtime.detector_failures[name] = count
        if self.policy.faults:
            self._runtime.detector_failures["policy"] = self.policy.faults

    def climb(self) -> None:
        """Go up the ladders whose evidence is renewed, and open what a block closed."""
        self._enforce(self.policy.tick(self._now(), self.engine.renewed))

    def dismissed(self, incident: Incident) -> None:
        """A person called an incident a false alarm: trust its signals less on that series."""
        looped = incident.detail.get("fingerprint")
        for signal in incident.signals:
            self.engine.dismiss(
                Signal(signal),
                incident.series,
                self._now(),
                fingerprint=looped if signal == Signal.AGENT_LOOP else None,
                count=incident.observed,
            )

    def configure(self, detection: DetectionSettings, policies: PolicySettings) -> None:
        """Take new settings; what was learned and what is in force stay."""
        if detection != self.engine.settings:
            engine = Engine(detection)
            engine.take_over(self.engine)
            self.engine = engine
        self.policy.settings = policies
        self._look_at_tags()

    def act(self, verdicts: Iterable[Verdict]) -> None:
        """Do what policy says of each verdict, and tell it."""
        for verdict in verdicts:
            try:
                self.tell(verdict)
                tags = self._tags.of(verdict.series)
                usual = self._usual_per_second(verdict.series)
                self._enforce(self.policy.decide(verdict, self._now(), tags, usual))
            except Exception:
                self.policy.faults += 1
                _log.exception("verdict_not_acted_on", signal=str(verdict.signal))

    def _usual_per_second(self, series: Series) -> float | None:
        view = self.engine.view(series, self._now())
        usual = view.usual_calls_half_hour if view is not None else None
        return None if usual is None else usual / _HALF_HOUR_SECONDS

    def _enforce(self, actions: Sequence[Action]) -> None:
        for action in self._enforcement.put_in_force(actions):
            self._incidents.on_action(action)
