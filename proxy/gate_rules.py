"""Limits and budgets, compiled: which apply to a call, and what they count.

Owns: rules made of settings, the counter of each rule and value, and the
account of its current period. Must never: decide about a call, or do I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from detection.budget import Account, Span, nano_usd, slots_before, span_of
from detection.types import Dimension, Mode, Series, Tier, pair
from proxy.context import RequestContext
from proxy.pattern import Pattern
from proxy.settings import BudgetSettings, LimitSettings

#: A call that doesn't say the dimension is counted with the others that don't.
UNNAMED = "(none)"
_OPTIONAL = frozenset(("session",))
_PAIRS = {
    ("key", "model"): Dimension.KEY_MODEL,
    ("agent", "model"): Dimension.AGENT_MODEL,
}


def value_of(ctx: RequestContext, dimension: str) -> str | None:
    """A call's value of a dimension (``tag:<name>`` included)."""
    if dimension == "total":
        return ""
    if dimension.startswith("tag:"):
        return ctx.tags.get(dimension[4:])
    value: str | None = getattr(ctx, dimension)
    return value


class Match:
    """A compiled ``match``: every dimension must have one of its values."""

    __slots__ = ("_parts", "exact")

    def __init__(self, match: Mapping[str, Iterable[str]]) -> None:
        parts = [(dimension, [Pattern(v) for v in values]) for dimension, values in match.items()]
        self._parts = parts
        #: A dimension and values that alone can match, for the index; or nothing.
        self.exact: tuple[str, tuple[str, ...]] | None = None
        for dimension, patterns in parts:
            if patterns and all(p.exact for p in patterns):
                self.exact = (dimension, tuple(p.text for p in patterns))
                break

    @property
    def dimensions(self) -> list[str]:
        """What has to be known of a call."""
        return [dimension for dimension, _ in self._parts]

    def matches(self, ctx: RequestContext) -> bool:
        """Whether a call is meant."""
        for dimension, patterns in self._parts:
            value = value_of(ctx, dimension)
            if value is None or not any(p.matches(value) for p in patterns):
                return False
        return True

    def matches_series(self, series: Series) -> bool:
        """Whether a match of this one dimension means the series."""
        return any(
            dimension == series.dimension and any(p.matches(series.value) for p in patterns)
            for dimension, patterns in self._parts
        )


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One thing counted against one limit."""

    name: str
    kind: str
    metric: str
    limit: int
    per: str
    by: tuple[str, ...]
    match: Match
    mode: Mode
    rolling: bool = False
    zone: tzinfo = UTC
    refuses: bool = True
    cuts: bool = True
    on_store_down: str = "share"
    tier: Tier = Tier.WARNING
    alert_at: tuple[float, ...] = ()
    burn_alerts: bool = False

    @property
    def judges(self) -> bool:
        """Whether a call that it doesn't cover is refused, or would be."""
        return self.refuses and self.mode is not Mode.OBSERVE

    @property
    def strict(self) -> bool:
        """Whether a reservation must be held before a call may go."""
        return self.refuses and self.mode is Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class CallCap:
    """The most that one call may cost."""

    name: str
    limit: int
    match: Match
    mode: Mode


#: Metrics by what a call's estimate and its use are told in, see :class:`Counter`.
UNITS = ("requests", "cost", "tokens", "in_flight")


class Counter:
    """A rule for one combination of values, and the account of its period.

    ``unit`` is the place of the rule's metric in :data:`UNITS`.
    """

    __slots__ = (
        "account",
        "before",
        "checked",
        "end",
        "last",
        "mine_before",
        "paced_at",
        "rate",
        "rule",
        "seen",
        "span",
        "stem",
        "unit",
        "values",
    )

    def __init__(self, rule: Rule, values: tuple[str, ...]) -> None:
        self.rule = rule
        self.unit = UNITS.index(rule.metric)
        self.values = values
        text = values[0]
        for value in values[1:]:
            text = pair(text, value)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.stem = f"{rule.name}.{rule.metric}:{digest}"
        self.account = Account(0)
        self.span = Span("", 0.0, 0.0)
        self.end = 0.0
        self.seen = 0.0
        #: The replica's pace (units a second), and the largest recent reservation.
        self.rate = 0.0
        self.last = 0
        self.paced_at = 0.0
        self.mine_before = 0
        #: What the other tenths of a rolling window hold, and when that was heard.
        self.before: dict[str, int] = {}
        self.checked: dict[str, float] = {}

    def roll(self, now: float, *, alone: bool) -> Account | None:
        """Begin the period that ``now`` is in; the old account, where one was in use."""
        rule = self.rule
        old = self.account if self.span.name else None
        if rule.metric == "in_flight":
            self.span = Span("now", 0.0, float("inf"))
        else:
            previous = self.span.name
            self.span = span_of(rule.per, now, rule.zone, rolling=rule.rolling)
            if rule.rolling:
                if old is not None:
                    self.before[previous] = old.total + old.charged + old.others + old.reserved
                wanted = slots_before(self.span, now)
                self.before = {name: self.before.get(name, 0) for name in wanted}
                self.checked = {n: at for n, at in self.checked.items() if n in self.before}
        self.end = self.span.end
        self.account = Account(self.limit_now)
        self.mine_before = 0
        if alone:
            self.account.hold = self.account.limit
        return old

    def heard_before(self, tenth: str, used: int, now: float) -> None:
        """What the fleet has used of another tenth of the window."""
        if tenth in self.before:
            self.before[tenth] = used
            self.checked[tenth] = now
            self.account.limit = self.limit_now

    @property
    def limit_now(self) -> int:
        """The limit, less what a rolling window's other tenths used."""
        return max(0, self.rule.limit - sum(self.before.values()))

    @property
    def used_now(self) -> int:
        """The fleet's settled sum in the window, with ours that is not reported yet."""
        return self.account.total + sum(self.before.values())

    @property
    def account_name(self) -> str:
        """The account's name in the store."""
        return f"{self.stem}:{self.span.name}"

    @property
    def scope(self) -> str:
        """Whose count it is, for people."""
        return ", ".join(
            f"{d} {v}" if v else "all calls" for d, v in zip(self.rule.by, self.values, strict=True)
        )

    @property
    def series(self) -> Series:
        """The series that comes nearest to the counter's values."""
        by = self.rule.by
        if by in _PAIRS:
            return Series(_PAIRS[by], pair(*self.values))
        if by[0].startswith("tag:"):
            return Series(Dimension.TAG, f"{by[0][4:]}={self.values[0]}")
        return Series(by[0], self.values[0])


def compile_limit(settings: LimitSettings, master: Mode) -> tuple[list[Rule], CallCap | None]:
    """The rules of one entry of ``limits``."""
    match = Match(settings.match)
    mode = mildest(master, settings.mode)
    counted = (
        ("requests", settings.requests),
        ("tokens", settings.tokens),
        ("cost", None if settings.cost_usd is None else nano_usd(settings.cost_usd)),
        ("in_flight", settings.in_flight),
    )
    rules = [
        Rule(
            settings.name,
            "limit",
            metric,
            limit,
            settings.per,
            settings.by,
            match,
            mode,
            rolling=settings.window == "rolling" and settings.per != "session",
            zone=ZoneInfo(settings.time_zone),
            on_store_down=settings.on_store_down,
            tier=Tier[settings.tier.upper()],
        )
        for metric, limit in counted
        if limit is not None
    ]
    cap = settings.cost_per_call_usd
    return rules, None if cap is None else CallCap(settings.name, nano_usd(cap), match, mode)


def compile_budget(settings: BudgetSettings, master: Mode) -> Rule:
    """The rule of one entry of ``budgets``."""
    return Rule(
        settings.name,
        "budget",
        "cost",
        nano_usd(settings.amount_usd),
        settings.per,
        settings.by,
        Match(settings.match),
        mildest(master, settings.mode),
        rolling=settings.window == "rolling",
        zone=ZoneInfo(settings.time_zone),
        refuses=settings.hard,
        cuts=settings.cut_streams,
        on_store_down=settings.on_store_down,
        tier=Tier.CRITICAL,
        alert_at=settings.alert_at,
        burn_alerts=settings.burn_alerts,
    )


_ORDER = (Mode.OBSERVE, Mode.SHADOW, Mode.ENFORCE)


def mildest(master: Mode, mode: Mode | None) -> Mode:
    """The milder of the file's mode and a rule's own."""
    if mode is None:
        return master
    return min(master, mode, key=_ORDER.index)


class RuleIndex:
    """All rules, found by a call without looking at each."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._exact: dict[str, dict[str, list[Rule]]] = {}
        self._rest: list[Rule] = []
        for rule in self.rules:
            if rule.match.exact is None:
                self._rest.append(rule)
                continue
            dimension, values = rule.match.exact
            for value in values:
                self._exact.setdefault(dimension, {}).setdefault(value, []).append(rule)

    @property
    def dimensions(self) -> set[str]:
        """What has to be known of a call."""
        return {d for rule in self.rules for d in (*rule.by, *rule.match.dimensions)}

    def names(self, dimension: str, value: str) -> bool:
        """Whether a rule is for this very value."""
        return value in self._exact.get(dimension, ())

    def of(self, ctx: RequestContext) -> Iterator[tuple[Rule, tuple[str, ...]]]:
        """The rules that apply to a call, each with the values it counts by."""
        candidates = list(self._rest)
        for dimension, by_value in self._exact.items():
            value = value_of(ctx, dimension)
            if value is not None:
                candidates += by_value.get(value, ())
        for rule in candidates:
            values = tuple(value_of(ctx, dimension) for dimension in rule.by)
            if any(
                v is None and d in _OPTIONAL for d, v in zip(rule.by, values, strict=True)
            ) or not rule.match.matches(ctx):
                continue
            yield rule, tuple(UNNAMED if v is None else v for v in values)
