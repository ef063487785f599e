"""The exact split of a cost change into volume, mix, tokens and price.

Owns: the arithmetic of the split and the unit rates it needs. Must never:
round so that the parts miss the whole, or read a clock.

The cost of a leaf (one actor using one model) is a product::

    cost = calls of the actor x share of the model x priced tokens per call x price index

where an actor is everything but the model, "priced tokens" are tokens at the
baseline's own unit rates, and the price index is therefore 1 before the change.
The additive logarithmic mean Divisia index (LMDI-I: Ang, "The LMDI approach to
decomposition analysis", Energy Policy 33, 2005) splits such a change without a
residual. Zeros follow Ang & Liu (Energy Policy 35, 2007): where a factor is
zero on one side, the whole change of the leaf belongs to that factor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import log

import numpy as np

from detection.contrib import DIMENSIONS, Cell, Combination

FACTORS = ("volume", "mix", "tokens", "price")

_MODEL = DIMENSIONS.index("model")

#: Usual relations of the rates of uncached input, cached input and output,
#: which hold until the calls themselves tell better.
_USUAL_RATES = (1.0, 0.1, 4.0)
_RIDGE = 1e-5


@dataclass(slots=True)
class Sums:
    """What the cells of one leaf add up to."""

    requests: float = 0.0
    errors: float = 0.0
    fresh_tokens: float = 0.0
    cached_tokens: float = 0.0
    output_tokens: float = 0.0
    cost: float = 0.0

    def add(self, cell: Cell, factor: float = 1.0) -> None:
        """Add a cell, scaled."""
        cached = min(cell.cached_tokens, cell.input_tokens)
        self.requests += cell.requests * factor
        self.errors += cell.errors * factor
        self.fresh_tokens += (cell.input_tokens - cached) * factor
        self.cached_tokens += cached * factor
        self.output_tokens += cell.output_tokens * factor
        self.cost += cell.cost_nano_usd * factor

    @property
    def tokens(self) -> float:
        """All tokens, input and output."""
        return self.fresh_tokens + self.cached_tokens + self.output_tokens


Leaves = Mapping[Combination, Sums]


@dataclass(frozen=True, slots=True)
class LeafChange:
    """One leaf's part of the change: nano-USD by factor, and its size on both sides."""

    effects: tuple[float, float, float, float]
    before: float
    after: float
    log_mean: float


@dataclass(frozen=True, slots=True)
class Split:
    """The change of cost in nano-USD and its four parts, which add up to it exactly."""

    change: int
    volume: int
    mix: int
    tokens: int
    price: int
    leaves: Mapping[Combination, LeafChange] = field(default_factory=dict)

    def parts(self) -> dict[str, int]:
        """The four parts by name."""
        return {name: getattr(self, name) for name in FACTORS}

    @property
    def kind(self) -> str:
        """The factor that raised the cost most: incidents are about rises."""
        parts = self.parts()
        return max(FACTORS, key=lambda name: parts[name])


def aggregate(cells: Iterable[Cell], scale: float = 1.0) -> dict[Combination, Sums]:
    """Sum cells per combination; ``scale`` makes windows of unlike length alike."""
    leaves: dict[Combination, Sums] = defaultdict(Sums)
    for cell in cells:
        leaves[cell.combination].add(cell, scale)
    return dict(leaves)


def unit_rates(cells: Iterable[Cell]) -> dict[str | None, tuple[float, float, float]]:
    """Nano-USD per uncached input, cached input and output token, per model.

    Prices are linear in tokens, so a few unlike cells of a model give its rates
    by least squares; a small ridge pulls towards the usual relations of the
    three where the cells are too alike to tell.

    Examples
    --------
    >>> c = lambda i, o: Cell(0, 60, (None, None, "m", None, None, None), 1, 0, i, 0, o, 3*i + 15*o)
    >>> [round(r, 2) for r in unit_rates([c(100, 10), c(500, 10), c(100, 90)])["m"]][::2]
    [3.0, 15.0]
    """
    rows: dict[str | None, list[tuple[float, float, float, float]]] = defaultdict(list)
    for cell in cells:
        cached = min(cell.cached_tokens, cell.input_tokens)
        rows[cell.combination[_MODEL]].append(
            (cell.input_tokens - cached, cached, cell.output_tokens, cell.cost_nano_usd)
        )
    rates = {}
    for model, data in rows.items():
        table = np.asarray(data, dtype=float)
        usual = table[:, :3] * np.asarray(_USUAL_RATES)
        cost = table[:, 3]
        weight = usual.sum()
        if weight <= 0 or cost.sum() <= 0:
            rates[model] = _USUAL_RATES
            continue
        level = cost.sum() / weight
        scaled = usual * level
        normal = scaled.T @ scaled
        ridge = np.eye(3) * (_RIDGE * float(np.trace(normal)))
        factors = np.linalg.solve(normal + ridge, scaled.T @ cost + ridge @ np.ones(3))
        found = np.clip(factors, 0.0, 20.0) * np.asarray(_USUAL_RATES) * level
        rates[model] = (float(found[0]), float(found[1]), float(found[2]))
    return rates


def _log_mean(first: float, second: float) -> float:
    if first <= 0 or second <= 0:
        return 0.0
    if abs(first - second) < 1e-9 * first:
        return first
    return (first - second) / (log(first) - log(second))


def _whole(total: int, parts: list[float]) -> list[int]:
    """Round parts to integers that add up to ``total`` (largest remainder)."""
    floors = [int(part // 1) for part in parts]
    missing = total - sum(floors)
    order = sorted(range(len(parts)), key=lambda i: parts[i] - floors[i], reverse=True)
    step = 1 if missing >= 0 else -1
    for turn in range(abs(missing)):
        floors[order[turn % len(parts)]] += step
    return floors


def split_cost(
    before: Leaves,
    after: Leaves,
    rates: Mapping[str | None, tuple[float, float, float]],
) -> Split:
    """Split the change of cost between two windows of the same (scaled) length.

    Parameters
    ----------
    before, after
        Sums per combination; ``before`` scaled to the length of ``after``.
    rates
        Unit rates per model from :func:`unit_rates` over the baseline.

    Examples
    --------
    >>> who = ("k", "a", "m", "chat", "p", "c")
    >>> s = split_cost({who: Sums(10, 0, 1000, 0, 0, 1000)}, {who: Sums(30, 0, 3000, 0, 0, 3000)},
    ...                {"m": (1.0, 0.1, 4.0)})
    >>> s.change, s.volume, s.mix, s.tokens, s.price, s.kind
    (2000, 2000, 0, 0, 0, 'volume')
    """
    calls_before = _calls_per_actor(before)
    calls_after = _calls_per_actor(after)
    leaves: dict[Combination, LeafChange] = {}
    sums = [0.0, 0.0, 0.0, 0.0]
    nothing = Sums()
    for who in before.keys() | after.keys():
        old, new = before.get(who, nothing), after.get(who, nothing)
        actor = (*who[:_MODEL], None, *who[_MODEL + 1 :])
        rate = rates.get(who[_MODEL], _USUAL_RATES)
        factors_before = _factors(old, calls_before.get(actor, 0.0), rate)
        factors_after = _factors(new, calls_after.get(actor, 0.0), rate)
        mean = _log_mean(new.cost, old.cost)
        effects = [0.0, 0.0, 0.0, 0.0]
        if mean > 0 and all(factors_before) and all(factors_after):
            for index in range(4):
                effects[index] = mean * log(factors_after[index] / factors_before[index])
        elif new.cost != old.cost:
            zero = next(
                (i for i in range(4) if not factors_before[i] or not factors_after[i]),
                FACTORS.index("price"),
            )
            effects[zero] = new.cost - old.cost
        for index in range(4):
            sums[index] += effects[index]
        leaves[who] = LeafChange(
            (effects[0], effects[1], effects[2], effects[3]), old.cost, new.cost, mean
        )
    change = round(sum(leaf.after - leaf.before for leaf in leaves.values()))
    volume, mix, tokens, price = _whole(change, sums)
    return Split(change, volume, mix, tokens, price, leaves)


def _calls_per_actor(leaves: Leaves) -> dict[Combination, float]:
    calls: dict[Combination, float] = defaultdict(float)
    for who, sums in leaves.items():
        calls[(*who[:_MODEL], None, *who[_MODEL + 1 :])] += sums.requests
    return calls


def priced_tokens(sums: Sums, rate: tuple[float, float, float]) -> float:
    """Tokens at the baseline's unit rates, in nano-USD."""
    return sums.fresh_tokens * rate[0] + sums.cached_tokens * rate[1] + sums.output_tokens * rate[2]


def _factors(sums: Sums, calls: float, rate: tuple[float, float, float]) -> tuple[float, ...]:
    if calls <= 0:
        return (0.0, 1.0, 1.0, 1.0)
    if sums.requests <= 0:
        return (calls, 0.0, 1.0, 1.0)
    tokens = priced_tokens(sums, rate)
    if tokens <= 0:
        return (calls, sums.requests / calls, 0.0, 1.0)
    return (calls, sums.requests / calls, tokens / sums.requests, sums.cost / tokens)
