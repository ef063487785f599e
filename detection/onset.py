"""When the contributor that stands out began to differ.

Owns: turning cells into the series in which a kind of change shows best, and
its change point. Must never: look at anything but the cells it is given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import log, sqrt

from detection.changepoint import change_point
from detection.contrib import DIMENSIONS, Cell
from detection.decompose import Sums, aggregate, priced_tokens, unit_rates

#: How far before the rough guess the change may have begun.
_LOOK_BACK_SECONDS = 1_800.0
_MODEL = DIMENSIONS.index("model")


def find_onset(
    cells: Sequence[Cell], dimension: str, value: str, kind: str, rough: float, now: float
) -> float | None:
    """Epoch seconds at which the change of ``kind`` began; ``None`` where none shows.

    Volume shows in the square root of calls per cell (its noise is even there),
    mix in the model's share of calls, tokens and price in the log of actual
    over expected, expected being what the same calls took before.
    """
    index = DIMENSIONS.index(dimension) if dimension in DIMENSIONS else None
    near = [cell for cell in cells if rough - _LOOK_BACK_SECONDS <= cell.start < now]
    mine = [cell for cell in near if index is None or cell.combination[index] == value]
    if not mine:
        return None
    if kind == "volume":
        starts, values, weights = _counts(near, mine)
    elif kind == "mix":
        starts, values, weights = _shares(near, mine)
    else:
        starts, values, weights = _excess(mine, kind, rough)
    found = change_point(values, weights)
    return starts[found] if found is not None else None


_Line = tuple[list[float], list[float], list[float]]


def _counts(near: Sequence[Cell], mine: Sequence[Cell]) -> _Line:
    """Calls per second and cell; spans without any call count as zero."""
    width = min(cell.width_seconds for cell in near)
    calls: dict[float, float] = defaultdict(float)
    for cell in mine:
        steps = max(1, round(cell.width_seconds / width))
        for step in range(steps):
            calls[cell.start + step * width] += cell.requests / steps
    first, last = min(cell.start for cell in near), max(cell.start for cell in near)
    starts = [first + width * step for step in range(round((last - first) / width) + 1)]
    return starts, [sqrt(calls.get(start, 0.0) + 0.375) for start in starts], [1.0] * len(starts)


def _shares(near: Sequence[Cell], mine: Sequence[Cell]) -> _Line:
    """The share of calls, among the actors that made any of them."""
    actors = {_actor(cell) for cell in mine}
    part: dict[float, float] = defaultdict(float)
    whole: dict[float, float] = defaultdict(float)
    for cell in mine:
        part[cell.start] += cell.requests
    for cell in near:
        if _actor(cell) in actors:
            whole[cell.start] += cell.requests
    starts = sorted(whole)
    return starts, [part[s] / whole[s] for s in starts], [whole[s] for s in starts]


def _actor(cell: Cell) -> tuple[str | None, ...]:
    return (*cell.combination[:_MODEL], *cell.combination[_MODEL + 1 :])


def _excess(mine: Sequence[Cell], kind: str, rough: float) -> _Line:
    """Log of actual over expected tokens (or cost), weighted by calls."""
    earlier = [cell for cell in mine if cell.start + cell.width_seconds <= rough]
    rates = unit_rates(earlier)
    normal = aggregate(earlier)
    actual: dict[float, float] = defaultdict(float)
    expected: dict[float, float] = defaultdict(float)
    calls: dict[float, float] = defaultdict(float)
    for cell in mine:
        known = normal.get(cell.combination)
        rate = rates.get(cell.combination[_MODEL])
        if known is None or rate is None or not known.requests:
            continue
        sums = Sums()
        sums.add(cell)
        tokens = priced_tokens(sums, rate)
        if kind == "tokens":
            actual[cell.start] += tokens
            expected[cell.start] += priced_tokens(known, rate) / known.requests * cell.requests
        else:
            actual[cell.start] += sums.cost
            expected[cell.start] += tokens
        calls[cell.start] += cell.requests
    starts = sorted(s for s in calls if actual[s] > 0 and expected[s] > 0)
    return starts, [log(actual[s] / expected[s]) for s in starts], [calls[s] for s in starts]
