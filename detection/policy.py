"""What is done about a verdict: a table of policies, each with a ladder.

Owns: which policy answers, on which rung each verdict stands, and for how long an
action lasts. Must never: read a clock, enforce anything, or stop a series for
everyone (total, provider, model, endpoint) unless a limit or the policy names it.

The ladder climbs while evidence is renewed: throttle, cheaper model, block. Each
action expires by itself, and is taken again if evidence comes after its end; after
a block comes a half-open stretch in which a few calls pass, and a block that comes
back lasts longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2s

from detection.settings import LadderStep, PolicyRule, PolicySettings, matches_value
from detection.state import WIDE
from detection.types import Action, ActionKind, Dimension, Series, Signal, Tier, Verdict

_HOLDING = frozenset((ActionKind.THROTTLE, ActionKind.DOWNGRADE, ActionKind.BLOCK))
_TELLING = frozenset((ActionKind.NOTIFY, ActionKind.WEBHOOK))
#: Never done on weak evidence.
HARSH = frozenset((ActionKind.BLOCK, ActionKind.DISABLE_KEY, ActionKind.CUT_STREAMS))
HALF_OPEN_SECONDS = 30.0
#: The half-open stretch is in place before the block ends, so that no gap is between.
AHEAD_SECONDS = 2.0
FORGET_SECONDS = 3600.0
FALLBACK_SECONDS = 60.0
DEFAULT_RATE = 1.0

Renewed = Callable[[Series, Signal], float | None]


@dataclass(slots=True)
class Rung:
    """Where one verdict stands on its policy's ladder.

    ``held`` is the last rung that holds traffic back, -1 for none yet.
    """

    rule: PolicyRule
    verdict: Verdict
    steps: tuple[LadderStep, ...]
    step: int
    since: float
    until: float
    usual_per_second: float | None = None
    held: int = -1
    blocked_until: float | None = None
    open: bool = True


@dataclass(slots=True)
class Blocks:
    """How often a series was blocked of late, and until when."""

    times: int = 0
    until: float = 0.0


@dataclass(slots=True)
class Policy:
    """The table of policies and the ladders that are being climbed."""

    settings: PolicySettings = field(default_factory=PolicySettings)
    #: Policies that could not be evaluated, and fell to their ``on_error``.
    faults: int = 0
    _rungs: dict[str, Rung] = field(default_factory=dict)
    _blocks: dict[Series, Blocks] = field(default_factory=dict)

    def decide(
        self,
        verdict: Verdict,
        now: float,
        tags: Mapping[str, str] | None = None,
        usual_per_second: float | None = None,
    ) -> list[Action]:
        """The actions a verdict calls for at once.

        ``tags`` are those that all calls behind it carried, ``usual_per_second`` the
        series' own usual rate. A verdict on a series that is still learned, or that is
        over, calls for none.
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
        try:
            return self._climb_on(rule, verdict, now, usual_per_second)
        except Exception:
            self.faults += 1
            step = LadderStep(rule.on_error, FALLBACK_SECONDS)
            rung = Rung(rule, verdict, (step,), 0, now, now + FALLBACK_SECONDS)
            return [self._action(rung, step.action, now, rung.until, DEFAULT_RATE)]

    def _climb_on(
        self, rule: PolicyRule, verdict: Verdict, now: float, usual_per_second: float | None
    ) -> list[Action]:
        steps = tuple(s for s in rule.ladder if _fits(s.action, verdict))
        if not self._may_stop(rule, verdict):
            steps = tuple(s for s in steps if s.action in _TELLING)
        if not steps:
            return []
        start = self._first_step(verdict, steps, now)
        rung = Rung(rule, verdict, steps, start, now, 0.0, usual_per_second)
        self._rungs[verdict.fingerprint] = rung
        return [self._act(rung, now)]

    def tick(self, now: float, renewed: Renewed) -> list[Action]:
        """Climb ladders whose evidence goes on, and open what a block has closed.

        ``renewed`` tells when a signal of a series was last seen (Engine.renewed).
        """
        actions = []
        for fingerprint, rung in list(self._rungs.items()):
            if self._block_over(rung, now):
                actions.append(self._half_open(rung, now))
                rung.blocked_until = None
                continue
            last = renewed(rung.verdict.series, rung.verdict.signal) if rung.open else None
            if last is not None and last > rung.since:
                due = now - rung.since >= rung.steps[rung.step].escalate_after_seconds
                if due and rung.step + 1 < len(rung.steps):
                    rung.step, rung.since = rung.step + 1, now
                    actions.append(self._act(rung, now))
                elif last >= rung.until:
                    rung.step, rung.since = max(rung.held, 0), now
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
            # A limit or budget refuses by itself: more is done only where a policy names it.
            if not match.signals and _refuses_itself(verdict):
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
        passed = verdict.signal is Signal.HARD_LIMIT and verdict.blockable
        if dimension not in WIDE or passed:
            return True
        return dimension in rule.match.dimensions

    def _first_step(self, verdict: Verdict, steps: tuple[LadderStep, ...], now: float) -> int:
        """The block where the series was blocked of late; past the throttle where it is slowed."""
        blocks = self._blocks.get(verdict.series)
        if blocks is not None and now < blocks.until + FORGET_SECONDS:
            for place, step in enumerate(steps):
                if step.action is ActionKind.BLOCK:
                    return place
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
        until = rung.blocked_until
        return (
            until is not None
            and until - AHEAD_SECONDS <= now < until + HALF_OPEN_SECONDS
            and rung.rule.half_open_probes > 0
        )

    def _act(self, rung: Rung, now: float) -> Action:
        step, verdict = rung.steps[rung.step], rung.verdict
        seconds = step.for_seconds
        rate = None
        if step.action is ActionKind.BLOCK:
            blocks = self._blocks.setdefault(verdict.series, Blocks())
            seconds *= rung.rule.repeat_factor**blocks.times
            seconds = min(seconds, rung.rule.longest_seconds)
            blocks.times += 1
            blocks.until = rung.blocked_until = now + seconds
        elif step.action is ActionKind.THROTTLE:
            rate = _rate(step, rung)
        seconds = min(seconds, rung.rule.longest_seconds)
        if step.action in _HOLDING:
            rung.held, rung.until = rung.step, now + seconds
        elif rung.held < 0:
            rung.until = now + seconds
        until = None if step.action is ActionKind.DISABLE_KEY else now + seconds
        return self._action(rung, step.action, now, until, rate)

    def _half_open(self, rung: Rung, now: float) -> Action:
        rate = rung.rule.half_open_probes / HALF_OPEN_SECONDS
        until = (rung.blocked_until or now) + HALF_OPEN_SECONDS
        return self._action(rung, ActionKind.THROTTLE, now, until, rate, half_open=True)

    def _action(
        self,
        rung: Rung,
        kind: ActionKind,
        now: float,
        until: float | None,
        rate: float | None,
        *,
        half_open: bool = False,
    ) -> Action:
        verdict, step = rung.verdict, rung.steps[rung.step]
        detail: dict[str, object] = {}
        if half_open:
            detail = {"half_open": True, "probes": rung.rule.half_open_probes}
        elif kind is ActionKind.WEBHOOK:
            detail = {"receiver": step.webhook}
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
            detail=detail,
        )


def _rate(step: LadderStep, rung: Rung) -> float:
    """Calls a second that a throttle lets through."""
    if step.share_of_normal is not None and rung.usual_per_second:
        return step.share_of_normal * rung.usual_per_second
    rate = step.rate_per_second or DEFAULT_RATE
    cap = rung.verdict.detail.get("soft_cap_per_second")
    return max(rate, float(cap)) if isinstance(cap, int | float) else rate


def _fits(kind: ActionKind, verdict: Verdict) -> bool:
    """Whether a kind of action may be taken on such a verdict."""
    if kind is ActionKind.DISABLE_KEY and verdict.series.dimension != Dimension.KEY:
        return False
    return verdict.blockable or kind not in HARSH or _refuses_itself(verdict)


def _refuses_itself(verdict: Verdict) -> bool:
    """Whether a limit or budget is told of, which refuses what is beyond it by itself."""
    own = (Signal.BUDGET_BURN, Signal.HARD_LIMIT)
    return verdict.signal in own and not verdict.blockable


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
