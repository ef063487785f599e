"""Blocks, throttles and downgrades in force.

Owns: which actions touch a call, token buckets, half-open probes, protected
callers and the ceiling on what automation may stop. Must never: do I/O, or
read a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from detection.types import Action, ActionKind, Mode, Series, unpair
from proxy.context import RequestContext
from proxy.gate_rules import Match, mildest
from proxy.providers.base import Refusal
from proxy.settings import BlastRadiusSettings, ProtectSettings

#: Strongest first: what is looked at first decides.
_ORDER = (
    ActionKind.DISABLE_KEY,
    ActionKind.BLOCK,
    ActionKind.THROTTLE,
    ActionKind.DOWNGRADE,
)
_STOPS = (ActionKind.DISABLE_KEY, ActionKind.BLOCK)
_PAIRED = {"key_model": ("key", "model"), "agent_model": ("agent", "model")}


class ActiveAction:
    """An action in force, with its bucket or its probes."""

    __slots__ = (
        "action",
        "allowance",
        "failed",
        "healthy",
        "last",
        "mode",
        "probes",
        "rate",
        "refusal",
        "running",
    )

    def __init__(self, action: Action, mode: Mode) -> None:
        self.action = action
        self.mode = mode
        self.rate = action.rate_per_second or 0.0
        self.allowance = max(1.0, self.rate)
        self.last = action.since
        #: After a block: calls that must stay healthy before all may pass again.
        self.probes = int(action.detail.get("probes", 0)) if action.detail.get("half_open") else 0
        #: What its calls are told, once it was put into words.
        self.refusal: Refusal | None = None
        self.running = 0
        self.healthy = 0
        self.failed = False

    @property
    def automatic(self) -> bool:
        """Whether policy took it, rather than a person."""
        return self.action.origin == "policy"

    def over(self, now: float) -> bool:
        """Whether it has run out, or its probes have all stayed healthy."""
        until = self.action.until
        if until is not None and now >= until:
            return True
        return 0 < self.probes <= self.healthy

    def take_probe(self) -> bool:
        """Let one call through as a probe, if one is still wanted."""
        if self.failed or self.running + self.healthy >= self.probes:
            return False
        self.running += 1
        return True

    def probed(self, *, healthy: bool) -> None:
        """A probe ended. After one that failed no more pass until the action runs out."""
        self.running -= 1
        self.healthy += healthy
        self.failed = self.failed or not healthy

    def take(self, now: float, replicas: int) -> float:
        """Let one call through a throttle: 0.0, or the seconds to wait for the next."""
        rate = self.rate / replicas
        if rate <= 0:
            return 60.0
        burst = max(1.0, rate)
        self.allowance = min(burst, self.allowance + (now - self.last) * rate)
        self.last = now
        if self.allowance >= 1.0:
            self.allowance -= 1.0
            return 0.0
        return min(60.0, (1.0 - self.allowance) / rate)

    def model_for(self, model: str | None) -> str | None:
        """The model given instead of the one asked for; the longest pattern wins."""
        if model is None:
            return None
        models = self.action.models
        if model in models:
            return models[model]
        found = [p for p in models if p.endswith("*") and model.startswith(p[:-1])]
        given = models[max(found, key=len)] if found else None
        return None if given == model else given


class Actions:
    """All actions in force, by series."""

    def __init__(
        self, master: Mode, protect: Iterable[ProtectSettings], blast: BlastRadiusSettings
    ) -> None:
        self.configure(master, protect, blast)
        self._by_id: dict[str, ActiveAction] = {}
        self._by_series: dict[Series, list[ActiveAction]] = {}

    def configure(
        self, master: Mode, protect: Iterable[ProtectSettings], blast: BlastRadiusSettings
    ) -> None:
        """Take new settings; actions in force stay."""
        self.master = master
        self.blast = blast
        self._protected = [Match(p.match) for p in protect]

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[ActiveAction]:
        return iter(self._by_id.values())

    @property
    def dimensions(self) -> set[str]:
        """What has to be known of a call."""
        found: set[str] = {d for m in self._protected for d in m.dimensions}
        for dimension, value in self._by_series:
            if dimension == "tag":
                found.add(f"tag:{value.partition('=')[0]}")
            else:
                found.update(_PAIRED.get(dimension, (dimension,)))
        return found

    def get(self, action_id: str) -> Action | None:
        """An action in force."""
        found = self._by_id.get(action_id)
        return None if found is None else found.action

    def put(self, action: Action) -> ActiveAction | None:
        """Put an action in force; it replaces one with its id, or of its rule, kind and series."""
        if action.kind not in _ORDER:
            return None
        mode = action.mode if action.origin != "policy" else mildest(self.master, action.mode)
        for other in list(self._by_series.get(action.series, ())):
            same = other.action
            if same.id == action.id or (
                same.kind is action.kind
                and same.origin == action.origin
                and same.rule == action.rule
            ):
                self.remove(same.id)
        active = ActiveAction(action, mode)
        self._by_id[action.id] = active
        self._by_series.setdefault(action.series, []).append(active)
        return active

    def remove(self, action_id: str) -> Action | None:
        """Take an action back."""
        active = self._by_id.pop(action_id, None)
        if active is None:
            return None
        series = active.action.series
        left = [a for a in self._by_series[series] if a is not active]
        if left:
            self._by_series[series] = left
        else:
            del self._by_series[series]
        return active.action

    def expire(self, now: float) -> list[Action]:
        """Remove what has run out."""
        gone = [a.action.id for a in self if a.over(now)]
        return [action for i in gone if (action := self.remove(i)) is not None]

    def of(self, ctx: RequestContext) -> tuple[ActiveAction, ...]:
        """The actions that touch a call, strongest first."""
        if not self._by_series:
            return ()
        found = [a for s in ctx.series for a in self._by_series.get(s, ())]
        if ctx.client is not None:
            found += self._by_series.get(Series("client", ctx.client), ())
        if found and self.is_protected(ctx):
            found = [a for a in found if not a.automatic]
        return tuple(
            sorted(
                (a for a in found if a.mode is not Mode.OBSERVE),
                key=lambda a: (_ORDER.index(a.action.kind), a.mode is not Mode.ENFORCE),
            )
        )

    def names(self, dimension: str, value: str) -> bool:
        """Whether an action in force is of this very value, alone or in a pair."""
        series = (
            Series("tag", f"{dimension[4:]}={value}")
            if dimension.startswith("tag:")
            else Series(dimension, value)
        )
        if series in self._by_series:
            return True
        return any(
            value in unpair(found.value)
            for found in self._by_series
            if dimension in _PAIRED.get(found.dimension, ())
        )

    def is_protected(self, ctx: RequestContext) -> bool:
        """Whether no automatic action may touch the call."""
        return any(match.matches(ctx) for match in self._protected)

    def protects(self, series: Series) -> bool:
        """Whether no automatic action may be taken on the series."""
        return any(match.matches_series(series) for match in self._protected)

    def within_blast_radius(self, action: Action, callers: Iterable[RequestContext]) -> bool:
        """Whether automation may also stop this, given the callers seen lately."""
        stopping = {
            a.action.series
            for a in self
            if a.automatic and a.action.kind in _STOPS and a.mode is Mode.ENFORCE
        }
        stopping.add(action.series)
        seen: set[tuple[str | None, str | None]] = set()
        stopped: set[tuple[str | None, str | None]] = set()
        for ctx in callers:
            caller = (ctx.key, ctx.agent)
            seen.add(caller)
            if any(series in stopping for series in ctx.series):
                stopped.add(caller)
        return len(stopped) <= max(self.blast.at_least, int(self.blast.share * len(seen)))

    def softened(self, action: Action) -> Action:
        """The throttle that is taken where a block would stop too much."""
        return replace(
            action,
            kind=ActionKind.THROTTLE,
            rate_per_second=self.blast.throttle_rate_per_second,
            cut=False,
            reason=f"{action.reason}; throttled only: a block would stop more than "
            f"{self.blast.share:.0%} of all callers".removeprefix("; "),
        )

    def stops(self, action: Action) -> bool:
        """Whether an action counts against the blast radius."""
        return (
            action.origin == "policy"
            and action.kind in _STOPS
            and mildest(self.master, action.mode) is Mode.ENFORCE
        )
