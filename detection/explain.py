"""Root cause: who and what drives a change, since when, and what it costs if it goes on.

Owns: choosing the windows to compare, the ranking of contributors and the
figures of an :class:`Explanation`. Must never: read a clock, await, or call a
guess a finding where there is too little data (``None`` then).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any

from detection.contrib import DIMENSIONS, Cell, Combination
from detection.decompose import FACTORS, Leaves, Split, Sums, aggregate, split_cost, unit_rates
from detection.onset import find_onset
from detection.types import TOTAL, Series

#: What a change is measured in. ``cost`` falls back to ``tokens`` where nothing is priced.
METRICS = ("cost", "requests", "errors", "tokens")

#: Candidates whose fit is this close are equally good; the narrowest wins.
_FIT_TOLERANCE = 0.01
_LISTED = 5
_PROJECT = DIMENSIONS.index("project")
_BASELINE_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class Contributor:
    """One value of one dimension and its part of the change.

    ``share`` is of the change, not of the total: 1.0 where it explains all of
    it, above 1 where others went the other way. ``baseline`` and ``current``
    are in the metric's unit, scaled to the current window. ``same`` names other
    values that stand for exactly the same calls.
    """

    dimension: str
    value: str
    baseline: float
    current: float
    share: float | None
    fit: float
    rises: bool = True
    same: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Current over baseline; ``None`` where there was nothing before."""
        return self.current / self.baseline if self.baseline > 0 else None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a metric changed. Money in nano-USD, times in epoch seconds.

    ``top`` is the narrowest contributor that fits the change; the total, where
    the change is spread over everything. ``kind`` is ``volume``, ``mix``,
    ``tokens`` or ``price``.
    """

    metric: str
    since: float
    until: float
    baseline: float
    current: float
    kind: str
    top: Contributor
    contributors: Mapping[str, tuple[Contributor, ...]]
    split: Split
    requests_ratio: float | None
    tokens_per_request_ratio: float | None
    input_tokens_ratio: float | None
    output_tokens_ratio: float | None
    error_share: float | None
    new_models: tuple[str, ...]
    cost_so_far_nano_usd: int
    excess_nano_usd: int
    cost_per_hour_nano_usd: int
    projects: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def change_percent(self) -> float | None:
        """The change in per cent of the baseline; ``None`` where there was no baseline."""
        return (self.current / self.baseline - 1.0) * 100.0 if self.baseline > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """The form that is stored and served."""

        def told(contributor: Contributor) -> dict[str, Any]:
            return {**asdict(contributor), "ratio": contributor.ratio}

        return {
            "metric": self.metric,
            "since": self.since,
            "until": self.until,
            "baseline": self.baseline,
            "current": self.current,
            "change_percent": self.change_percent,
            "kind": self.kind,
            "top": told(self.top),
            "contributors": {
                str(name): [told(one) for one in ranked]
                for name, ranked in self.contributors.items()
            },
            "split_nano_usd": {"change": self.split.change, **self.split.parts()},
            "requests_ratio": self.requests_ratio,
            "tokens_per_request_ratio": self.tokens_per_request_ratio,
            "input_tokens_ratio": self.input_tokens_ratio,
            "output_tokens_ratio": self.output_tokens_ratio,
            "error_share": self.error_share,
            "new_models": list(self.new_models),
            "cost_so_far_nano_usd": self.cost_so_far_nano_usd,
            "excess_nano_usd": self.excess_nano_usd,
            "cost_per_hour_nano_usd": self.cost_per_hour_nano_usd,
            "projects": list(self.projects),
        }


def explain(
    cells: Sequence[Cell],
    *,
    now: float,
    since: float | None = None,
    metric: str = "cost",
    series: Series = TOTAL,
    window_seconds: float = 300.0,
) -> Explanation | None:
    """Explain what changed in ``cells`` (of the incident's series) up to ``now``.

    ``since`` is where a detector believes the change began; without it the last
    ``window_seconds`` are compared with the hour before, and the change point
    is then looked for in what stands out. ``None`` where either side of the
    change is empty, that is, where there is nothing to compare.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    if metric == "cost" and not any(cell.cost_nano_usd for cell in cells):
        metric = "tokens"
    rough = now - window_seconds
    if since is not None:
        # What began within the newest cell is all that cell holds so far.
        rough = min(since, now - 1.0, max((cell.start for cell in cells), default=since))
    first = _compare(cells, rough, now, metric, series)
    if first is None:
        return None
    onset = find_onset(cells, first.top.dimension, first.top.value, first.kind, rough, now)
    if onset is None or abs(onset - rough) < 1.0:
        return first
    return _compare(cells, onset, now, metric, series) or first


def _value(sums: Sums, metric: str) -> float:
    if metric == "cost":
        return sums.cost
    if metric == "tokens":
        return sums.tokens
    return sums.requests if metric == "requests" else sums.errors


def _compare(
    cells: Sequence[Cell], onset: float, now: float, metric: str, series: Series
) -> Explanation | None:
    current = [cell for cell in cells if onset <= cell.start < now]
    baseline = [
        cell
        for cell in cells
        if onset - _BASELINE_SECONDS <= cell.start and cell.start + cell.width_seconds <= onset
    ]
    if not current:
        return None
    seconds = max(now - onset, 1.0)
    covered = onset - min((cell.start for cell in baseline), default=onset)
    before = aggregate(baseline, seconds / covered if covered > 0 else 1.0)
    after = aggregate(current)
    rates = unit_rates(baseline)
    if metric == "tokens":
        for sums in (*before.values(), *after.values()):
            sums.cost = sums.tokens
        rates = dict.fromkeys(rates, (1.0, 1.0, 1.0))
    split = split_cost(before, after, rates)
    contributors = _rank(before, after, metric, split)
    top = _top(contributors, series)
    old, new = _total(before.values()), _total(after.values())
    inside_old = _total(s for who, s in before.items() if _belongs(who, top))
    inside_new = _total(s for who, s in after.items() if _belongs(who, top))
    priced = metric != "tokens"
    models_before = {who[2] for who in before} or {who[2] for who in after}
    return Explanation(
        metric=metric,
        since=onset,
        until=now,
        baseline=_value(old, metric),
        current=_value(new, metric),
        kind=split.kind,
        top=top,
        contributors={
            name: tuple(ranked[:_LISTED]) for name, ranked in contributors.items() if name
        },
        split=split,
        requests_ratio=_ratio(inside_new.requests, inside_old.requests),
        tokens_per_request_ratio=_per_call(inside_new, inside_old, "tokens"),
        input_tokens_ratio=_per_call(inside_new, inside_old, "input"),
        output_tokens_ratio=_per_call(inside_new, inside_old, "output"),
        error_share=_ratio(inside_new.errors, inside_new.requests),
        new_models=tuple(sorted({who[2] or "" for who in after if who[2] not in models_before})),
        cost_so_far_nano_usd=round(new.cost) if priced else 0,
        excess_nano_usd=max(0, split.change) if priced else 0,
        cost_per_hour_nano_usd=round(new.cost / seconds * 3_600) if priced else 0,
        projects=_projects((*before, *after)),
        detail={"baseline_seconds": covered},
    )


def _projects(callers: Iterable[Combination]) -> tuple[str, ...]:
    """The projects of the callers; none where some belong to no project."""
    named = {who[_PROJECT] for who in callers}
    return tuple(sorted(name for name in named if name)) if None not in named else ()


def _total(many: Any) -> Sums:
    whole = Sums()
    for sums in many:
        whole.requests += sums.requests
        whole.errors += sums.errors
        whole.fresh_tokens += sums.fresh_tokens
        whole.cached_tokens += sums.cached_tokens
        whole.output_tokens += sums.output_tokens
        whole.cost += sums.cost
    return whole


def _ratio(new: float, old: float) -> float | None:
    return new / old if old > 0 else None


def _per_call(new: Sums, old: Sums, what: str) -> float | None:
    if new.requests <= 0 or old.requests <= 0:
        return None

    def tokens(sums: Sums) -> float:
        if what == "tokens":
            return sums.tokens
        return sums.output_tokens if what == "output" else sums.fresh_tokens + sums.cached_tokens

    return _ratio(tokens(new) / new.requests, tokens(old) / old.requests)


def _belongs(who: Combination, contributor: Contributor) -> bool:
    if contributor.dimension not in DIMENSIONS:
        return True
    return who[DIMENSIONS.index(contributor.dimension)] == contributor.value


@dataclass(slots=True)
class _Group:
    """What a candidate's leaves add up to; effects and sizes are of the leading factor."""

    baseline: float = 0.0
    current: float = 0.0
    effect: float = 0.0
    size: float = 0.0
    leaves: list[tuple[Combination, float, float]] = field(default_factory=list)


def _rank(before: Leaves, after: Leaves, metric: str, split: Split) -> dict[str, list[Contributor]]:
    """Contributors by dimension (the total under ``""``), best fit first.

    The fit follows Squeeze (Li et al., "Generic and robust localization of
    multi-dimensional root causes", ISSRE 2019): if a set of leaves is the
    cause, all of them changed alike and the others did not. Changes are those
    of the leading factor, so that one client's noise in volume doesn't hide
    that another's prompts grew, and weigh by the square root of a leaf's size,
    as its noise does, so that small members of the cause are heard too.
    """
    factor = FACTORS.index(split.kind)
    nothing = Sums()
    groups: dict[tuple[str, str], _Group] = defaultdict(_Group)
    unexplained = 0.0
    for who, leaf in split.leaves.items():
        old = _value(before.get(who, nothing), metric)
        new = _value(after.get(who, nothing), metric)
        if metric in ("cost", "tokens"):
            effect = leaf.effects[factor]
            size = old + new if factor < 2 else leaf.log_mean
        else:
            effect, size = new - old, old + new
        unexplained += abs(effect) / sqrt(size) if size > 0 else 0.0
        members = [("", "")]
        members += [(name, value) for name, value in zip(DIMENSIONS, who, strict=True) if value]
        for member in members:
            group = groups[member]
            group.baseline += old
            group.current += new
            group.effect += effect
            group.size += size
            group.leaves.append((who, effect, size))
    change = groups[("", "")].current - groups[("", "")].baseline if groups else 0.0
    ranked: dict[str, list[Contributor]] = defaultdict(list)
    twins: dict[frozenset[Combination], list[tuple[str, str]]] = defaultdict(list)
    for member, group in groups.items():
        twins[frozenset(who for who, _, _ in group.leaves)].append(member)
    for (name, value), group in groups.items():
        slope = _common_slope(group.leaves)
        gain = sum((abs(e) - abs(e - slope * m)) / sqrt(m) for _, e, m in group.leaves if m > 0)
        same = twins[frozenset(who for who, _, _ in group.leaves)]
        ranked[name].append(
            Contributor(
                dimension=name or str(TOTAL.dimension),
                value=value,
                baseline=group.baseline,
                current=group.current,
                share=(group.current - group.baseline) / change if change else None,
                fit=gain / unexplained if unexplained > 0 else 0.0,
                rises=group.effect > 0,
                same=tuple(f"{n}:{v}" for n, v in same if n and (n, v) != (name, value)),
            )
        )
    for many in ranked.values():
        many.sort(key=lambda one: (one.fit, one.share or 0.0), reverse=True)
    return ranked


def _common_slope(leaves: Sequence[tuple[Combination, float, float]]) -> float:
    """The change per size that leaves share: their weighted median, which one burst can't bend."""
    slopes = sorted((effect / size, sqrt(size)) for _, effect, size in leaves if size > 0)
    half = sum(weight for _, weight in slopes) / 2
    for slope, weight in slopes:
        half -= weight
        if half <= 0:
            return slope
    return 0.0


def _top(contributors: Mapping[str, Sequence[Contributor]], series: Series) -> Contributor:
    found = [one for many in contributors.values() for one in many]
    every = [one for one in found if one.rises] or found
    best = max(one.fit for one in every)
    order = {name: place for place, name in enumerate(DIMENSIONS)}

    def narrowness(one: Contributor) -> tuple[float, bool, int]:
        own = one.dimension == series.dimension
        return (one.current + one.baseline, not own, order.get(one.dimension, len(order)))

    return min((one for one in every if one.fit >= best - _FIT_TOLERANCE), key=narrowness)
