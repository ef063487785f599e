"""What is done about a verdict: a table of policies, each with a ladder.

Owns: which policy answers, on which rung each verdict stands, and for how long an
action lasts. Must never: read a clock, enforce anything, or stop a series for
everyone (total, provider, model, endpoint) unless a limit or the policy names it.

The ladder climbs while evidence is renewed: throttle, cheaper model, block. Each
action expires by itself; after a block comes a half-open stretch in which a few
calls pass, and a block that comes back lasts longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2s

from detection.settings import LadderStep, PolicyRule, PolicySettings, matches_value
from detection.state import WIDE
from detection.types import Action, ActionKind, Series, Signal, Tier, Verdict

#: Never done on weak evidence.
HARSH = frozenset((ActionKind.BLOCK, ActionKind.DISABLE_KEY, ActionKind.CUT_STREAMS))
HALF_OPEN_SECONDS = 30.0
FORGET_SECONDS = 3600.0
DEFAULT_RATE = 1.0

Renewed = Callable[[Series, Signal], float | None]


@dataclass(slots=True)
class Rung:
    """Where one verdict stands on its policy's ladder."""

    rule: PolicyRule
    verdict: Verdict
    steps: tuple[LadderStep, ...]
    step: int
    since: float
    until: float
    open: bool = True
    probing: bool = False


@dataclass(slots=True)
class Blocks:
    """How often a series was blocked of late, and until when."""

    times: int = 0
    until: float = 0.0


@dataclass(slots=True)
class Policy:
    """The table of policies and the ladders that are being climbed."""

    settings: PolicySettings = field(default_factory=PolicySettings)
    _rungs: dict[str, Rung] = field(default_factory=dict)
    _blocks: dict[Series, Blocks] = field(default_factory=dict)

    def decide(
        self, verdict: Verdict, now: float, tags: Mapping[str, str] | None = None
    ) -> list[Action]:
        """The actions a verdict calls for at once.

        A verdict on a series that is still learned, or that is over, calls for none.
        """
        if verdict.tier is Tier.NONE:
            rung = self._rungs.get(verdict.fingerprint)
            if rung is not None:
                rung.open = False
            return []
        if verdict.learning:
            return []
        rule = self._rule(verdict, tags or {})
        if rule is None:
            return []
        steps = tuple(s for s in rule.ladder if verdict.blockable or s.action not in HARSH)
        if not steps or not self._may_stop(rule, verdict):
            return []
        start = self._first_step(verdict, steps, now)
        rung = Rung(rule, verdict, steps, start, now, 0.0)
        self._rungs[verdict.fingerprint] = rung
        return [self._act(rung, now)]

    def tick(self, now: float, renewed: Renewed) -> list[Action]:
        """Climb ladders whose evidence goes on, and open what a block has closed.

        ``renewed`` tells when a signal of a series was last seen (Engine.renewed).
        """
        actions = []
        for fingerprint, rung in list(self._rungs.items()):
            if self._block_over(rung, now):
                rung.probing = True
                actions.append(self._half_open(rung, now))
                continue
            if rung.open and rung.step + 1 < len(rung.steps):
                last = renewed(rung.verdict.series, rung.verdict.signal)
                due = now - rung.since >= rung.steps[rung.step].escalate_after_seconds
                if due and last is not None and last > rung.since:
                    rung.step, rung.since = rung.step + 1, now
                    actions.append(self._act(rung, now))
            if now > rung.until + FORGET_SECONDS or (not rung.open and now > rung.until + 60.0):
                del self._rungs[fingerprint]
        for series in [s for s, b in self._blocks.items() if now > b.until + FORGET_SECONDS]:
            del self._blocks[series]
        return actions

    def _rule(self, verdict: Verdict, tags: Mapping[str, str]) -> PolicyRule | None:
        for rule in self.settings.rules:
            match = rule.match
            series = verdict.series
            if match.signals and verdict.signal not in match.signals:
                continue
            if verdict.tier < match.tier.tier:
                continue
            if match.dimensions and series.dimension not in match.dimensions:
                continue
            if match.values and not any(matches_value(v, series.value) for v in match.values):
                continue
            if any(tags.get(name) != value for name, value in match.tags.items()):
                continue
            if match.blockable is not None and match.blockable is not verdict.blockable:
                continue
            return rule
        return None

    def _may_stop(self, rule: PolicyRule, verdict: Verdict) -> bool:
        dimension = verdict.series.dimension
        if dimension not in WIDE or verdict.signal is Signal.HARD_LIMIT:
            return True
        return dimension in rule.match.dimensions

    def _first_step(self, verdict: Verdict, steps: tuple[LadderStep, ...], now: float) -> int:
        """Past the throttle, where a throttle is already in force on the series."""
        throttled = any(
            r.verdict.series == verdict.series
            and r.until > now
            and r.steps[r.step].action is ActionKind.THROTTLE
            for r in self._rungs.values()
        )
        if throttled:
            for place, step in enumerate(steps):
                if step.action is not ActionKind.THROTTLE:
                    return place
        return 0

    def _block_over(self, rung: Rung, now: float) -> bool:
        blocked = rung.steps[rung.step].action is ActionKind.BLOCK
        return (
            blocked
            and not rung.probing
            and rung.until <= now < rung.until + HALF_OPEN_SECONDS
            and rung.rule.half_open_probes > 0
        )

    def _act(self, rung: Rung, now: float) -> Action:
        step, verdict = rung.steps[rung.step], rung.verdict
        seconds = step.for_seconds
        if step.action is ActionKind.BLOCK:
            blocks = self._blocks.setdefault(verdict.series, Blocks())
            seconds *= rung.rule.repeat_factor**blocks.times
            seconds = min(seconds, rung.rule.longest_seconds)
            blocks.times += 1
            blocks.until = now + seconds
        seconds = min(seconds, rung.rule.longest_seconds)
        rung.until = now + seconds
        rate = None
        if step.action is ActionKind.THROTTLE:
            cap = verdict.detail.get("soft_cap_per_second")
            rate = step.rate_per_second or DEFAULT_RATE
            if isinstance(cap, int | float):
                rate = max(rate, float(cap))
        return self._action(rung, step.action, now, rung.until, rate)

    def _half_open(self, rung: Rung, now: float) -> Action:
        rate = rung.rule.half_open_probes / HALF_OPEN_SECONDS
        until = now + HALF_OPEN_SECONDS
        return self._action(rung, ActionKind.THROTTLE, now, until, rate, half_open=True)

    def _action(
        self,
        rung: Rung,
        kind: ActionKind,
        now: float,
        until: float,
        rate: float | None,
        *,
        half_open: bool = False,
    ) -> Action:
        verdict, step = rung.verdict, rung.steps[rung.step]
        named = f"{rung.rule.name}|{verdict.fingerprint}|{kind}|{now:.3f}"
        return Action(
            id="act_" + blake2s(named.encode(), digest_size=8).hexdigest(),
            kind=kind,
            series=verdict.series,
            since=now,
            until=until,
            mode=rung.rule.mode or self.settings.mode,
            rule=rung.rule.name,
            signal=str(verdict.signal),
            tier=verdict.tier,
            reason=reason(verdict),
            rate_per_second=rate,
            models=step.models if kind is ActionKind.DOWNGRADE else {},
            cut=step.cut and not half_open,
            incident=verdict.fingerprint,
            detail={"half_open": True, "probes": rung.rule.half_open_probes} if half_open else {},
        )


def reason(verdict: Verdict) -> str:
    """One sentence for a refusal's body, the audit trail and the incident.

    >>> from detection.types import Family
    >>> v = Verdict(0.0, Signal.AGENT_LOOP, Tier.CRITICAL, Series("agent", "a"),
    ...     frozenset((Family.REPETITION,)), 30.0, 12.0)
    >>> reason(v)
    'critical agent_loop on agent a: 30 against 12 (repetition)'
    """
    baseline = "" if verdict.baseline is None else f" against {verdict.baseline:.4g}"
    families = ", ".join(sorted(verdict.families))
    return (
        f"{verdict.tier.label} {verdict.signal} on {verdict.series.dimension} "
        f"{verdict.series.value}: {verdict.observed:.4g}{baseline} ({families})"
    )
