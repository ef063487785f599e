"""Verdicts of enforcement's own: thresholds passed, burn rates, limits that refused.

Owns: when a budget, a limit or the blast radius is worth an incident, and when
that is over. Must never: refuse anything; the gate does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from detection.budget import BURN_PAIRS, burn_rate, exhausted_in
from detection.types import TOTAL, Action, Family, Score, Series, Signal, Tier, Verdict
from proxy.gate_counters import Counters
from proxy.gate_refusals import scope_of
from proxy.gate_rules import Counter

_SAMPLE_SECONDS = 30.0
_LONGEST_WINDOW = 21_600.0
_QUIET_SECONDS = 60.0
_PERIOD_SECONDS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_592_000.0}


class _Course:
    """What a budget's total was over the last six hours."""

    __slots__ = ("alerted", "burning", "samples", "span")

    def __init__(self) -> None:
        self.samples: deque[tuple[float, int]] = deque()
        self.span = ""
        self.alerted = 0.0
        self.burning = Tier.NONE

    def add(self, now: float, total: int) -> None:
        samples = self.samples
        if samples and now - samples[-1][0] < _SAMPLE_SECONDS:
            return
        samples.append((now, total))
        while samples[0][0] < now - _LONGEST_WINDOW - _SAMPLE_SECONDS:
            samples.popleft()

    def spent_in(self, now: float, total: int, seconds: float) -> int:
        """What was spent in the last so many seconds, as far back as is known."""
        start = now - seconds
        for at, then in self.samples:
            if at >= start:
                return max(0, total - then)
        return 0


class MoneyAlerts:
    """Looks at all budgets and limits once in a while."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._courses: dict[Counter, _Course] = {}
        self._crossed: dict[Counter, float] = {}
        self._softened: Action | None = None
        self._softened_at: float | None = None

    def softened(self, action: Action) -> None:
        """A block became a throttle, since it would have stopped too much."""
        self._softened = action

    def burning(self) -> Iterator[tuple[Series, Score]]:
        """The budgets that burn too fast, as evidence beside other families.

        Of tier NONE: this is told by :meth:`look`, detection only adds it up.
        """
        for counter, course in self._courses.items():
            if course.burning is not Tier.NONE:
                yield (
                    counter.series,
                    Score(
                        Signal.BUDGET_BURN,
                        Family.BUDGET,
                        Tier.NONE,
                        float(counter.used_now),
                        float(counter.rule.limit),
                        detail=_facts(counter),
                    ),
                )

    def look(self, now: float) -> Iterator[Verdict]:
        """The verdicts that are new since the last look."""
        yield from self._limits(now)
        yield from self._blast_radius(now)
        live = set()
        for counter in self._counters:
            if counter.rule.kind == "budget" and counter.span.name:
                live.add(counter)
                yield from self._budget(counter, now)
        for counter in [c for c in self._courses if c not in live]:
            del self._courses[counter]

    def spent(self, counter: Counter, now: float, seconds: float) -> int:
        """What was spent of a budget in the last so many seconds."""
        course = self._courses.get(counter)
        return 0 if course is None else course.spent_in(now, counter.used_now, seconds)

    def _limits(self, now: float) -> Iterator[Verdict]:
        crossed, self._counters.crossed = self._counters.crossed, {}
        for counter, refused in crossed.items():
            if counter not in self._crossed:
                rule = counter.rule
                yield Verdict(
                    ts=now,
                    signal=Signal.HARD_LIMIT,
                    tier=rule.tier,
                    series=counter.series,
                    families=frozenset((Family.LIMIT,)),
                    observed=float(counter.used_now),
                    baseline=float(rule.limit),
                    since=now,
                    blockable=False,
                    detail={**_facts(counter), "refused_calls": refused},
                )
            self._crossed[counter] = now
        for counter, at in list(self._crossed.items()):
            if now - at > _QUIET_SECONDS:
                del self._crossed[counter]
                yield _over(now, Signal.HARD_LIMIT, Family.LIMIT, counter)

    def _blast_radius(self, now: float) -> Iterator[Verdict]:
        action, self._softened = self._softened, None
        verdict = Verdict(
            ts=now,
            signal=Signal.HARD_LIMIT,
            tier=Tier.EMERGENCY,
            series=TOTAL,
            families=frozenset((Family.LIMIT,)),
            observed=1.0,
            since=now,
            blockable=False,
            detail={"rule": "blast_radius", "kind": "blast radius", "scope": "all calls"},
        )
        if action is not None:
            if self._softened_at is None:
                instead = {"instead_of_blocking": scope_of(action.series), "why": action.reason}
                yield replace(verdict, detail={**verdict.detail, **instead})
            self._softened_at = now
        elif self._softened_at is not None and now - self._softened_at > _QUIET_SECONDS:
            self._softened_at = None
            yield replace(verdict, tier=Tier.NONE)

    def _budget(self, counter: Counter, now: float) -> Iterator[Verdict]:
        course = self._courses.setdefault(counter, _Course())
        total, limit = counter.used_now, counter.rule.limit
        if course.span != counter.span.name:
            if course.alerted and not counter.rule.rolling:
                yield _over(now, Signal.BUDGET_BURN, Family.BUDGET, counter)
            course.span, course.alerted = counter.span.name, 0.0
            if not counter.rule.rolling:
                course.samples.clear()
        course.add(now, total)
        passed = [share for share in counter.rule.alert_at if total >= share * limit]
        top = max(passed, default=0.0)
        if top > course.alerted:
            course.alerted = top
            tier = Tier.CRITICAL if top >= 1 else Tier.WARNING if top >= 0.75 else Tier.INFO
            yield self._verdict(counter, course, tier, now, top)
        burning = self._burning(counter, course, now) if counter.rule.burn_alerts else Tier.NONE
        if burning > course.burning:
            yield self._verdict(counter, course, burning, now, None)
        elif burning is Tier.NONE and course.burning is not Tier.NONE and not course.alerted:
            yield _over(now, Signal.BUDGET_BURN, Family.BUDGET, counter)
        course.burning = burning

    def _burning(self, counter: Counter, course: _Course, now: float) -> Tier:
        """The tier of the fastest pair of windows that both burn too fast."""
        period = _PERIOD_SECONDS[counter.rule.per]
        total, limit = counter.used_now, counter.rule.limit
        for (rate, long, short), tier in zip(
            BURN_PAIRS, (Tier.CRITICAL, Tier.WARNING), strict=True
        ):
            if long >= period:
                continue
            both = (course.spent_in(now, total, long), course.spent_in(now, total, short))
            if (
                burn_rate(both[0], limit, long, period)
                >= rate
                <= burn_rate(both[1], limit, short, period)
            ):
                return tier
        return Tier.NONE

    def _verdict(
        self, counter: Counter, course: _Course, tier: Tier, now: float, share: float | None
    ) -> Verdict:
        total, limit = counter.used_now, counter.rule.limit
        hour = course.spent_in(now, total, 3600.0)
        return Verdict(
            ts=now,
            signal=Signal.BUDGET_BURN,
            tier=tier,
            series=counter.series,
            families=frozenset((Family.BUDGET,)),
            observed=float(total),
            baseline=float(limit),
            ratio=total / limit,
            since=now,
            blockable=False,
            detail={
                **_facts(counter),
                "threshold": share,
                "spent_last_hour_nano_usd": hour,
                "exhausted_in_seconds": exhausted_in(max(0, limit - total), hour, 3600.0),
            },
        )


def _facts(counter: Counter) -> dict[str, object]:
    rule = counter.rule
    return {
        "rule": rule.name,
        "kind": rule.kind,
        "metric": rule.metric,
        "scope": counter.scope,
        "per": rule.per,
        "used": counter.used_now,
        "limit": rule.limit,
        "resets_at": counter.end if counter.end < float("inf") else None,
    }


def _over(now: float, signal: Signal, family: Family, counter: Counter) -> Verdict:
    return Verdict(
        ts=now,
        signal=signal,
        tier=Tier.NONE,
        series=counter.series,
        families=frozenset((family,)),
        observed=float(counter.used_now),
        baseline=float(counter.rule.limit),
        detail=_facts(counter),
    )
