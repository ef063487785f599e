"""What each combination of key, agent, model, endpoint, project and client did lately.

Owns: a bounded memory of recent calls summed per combination: 10 s cells for
the last quarter of an hour, minute cells for three hours before that. It
exists so that an incident can say who and what changed, and since when. Must
never: read a clock, await, or grow past ``max_cells``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import add, itemgetter
from typing import NamedTuple

from detection.types import Dimension, Observation, Series, unpair

#: The dimensions of a combination, in the order they are held and reported.
DIMENSIONS: tuple[str, ...] = (
    Dimension.KEY,
    Dimension.AGENT,
    Dimension.MODEL,
    Dimension.ENDPOINT,
    Dimension.PROJECT,
    Dimension.CLIENT,
)

#: Values of the six dimensions; ``None`` where a call did not name one.
Combination = tuple[str | None, ...]

OTHER: Combination = ("other",) * len(DIMENSIONS)

_combination = itemgetter(*(Observation._fields.index(name) for name in DIMENSIONS))


class Cell(NamedTuple):
    """Sums of one combination over one span. Tokens include cached and reasoning."""

    start: float
    width_seconds: float
    combination: Combination
    requests: float
    errors: float
    input_tokens: float
    cached_tokens: float
    output_tokens: float
    cost_nano_usd: float


_Sums = list[int]
_Bucket = tuple[float, float, dict[Combination, _Sums]]


def _wanted(series: Series | None) -> list[tuple[int, str]]:
    if series is None or series.dimension == Dimension.TOTAL:
        return []
    if series.dimension == Dimension.KEY_MODEL:
        key, model = unpair(series.value)
        return [(0, key), (2, model)]
    if series.dimension == Dimension.AGENT_MODEL:
        agent, model = unpair(series.value)
        return [(1, agent), (2, model)]
    if series.dimension in DIMENSIONS:
        return [(DIMENSIONS.index(series.dimension), series.value)]
    return []


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A view of a recorder that stays as it was; safe to read from another thread."""

    buckets: tuple[_Bucket, ...]

    def cells(
        self, series: Series | None = None, since: float = 0.0, until: float = float("inf")
    ) -> Iterator[Cell]:
        """The cells that touch ``[since, until)``, oldest first, of one series or of all.

        A series by tag, user, session or provider isn't held apart here: all
        cells are given for it.
        """
        wanted = _wanted(series)
        for start, width, sums in self.buckets:
            if start + width <= since or start >= until:
                continue
            for combination, held in sums.items():
                if all(combination[index] == value for index, value in wanted):
                    requests, cost, given, made, cached, errors = held
                    yield Cell(
                        start, width, combination, requests, errors, given, cached, made, cost
                    )


class Recorder:
    """Counts what calls add up to, per combination.

    Parameters
    ----------
    fine_seconds, fine_span_seconds
        Width of the newest cells and how far back they reach.
    coarse_seconds, coarse_span_seconds
        The same for older ones; a multiple of ``fine_seconds``.
    max_cells
        Bound on memory (about 0.5 kB a cell); the oldest go first.
    max_combinations
        Bound on combinations in one fine span; the rest are summed as ``other``.
    catch_up
        Called before anything is read: adds what was summed elsewhere up to now.

    Examples
    --------
    >>> r = Recorder()
    >>> call = Observation(ts=100.0, id="a", key="k", model="m")
    >>> r.add(call.ts, call, (1, 5, 0, 0, 0, 0))
    >>> [(c.start, c.requests, c.cost_nano_usd) for c in r.snapshot().cells()]
    [(100.0, 1, 5)]
    """

    def __init__(
        self,
        *,
        fine_seconds: int = 10,
        fine_span_seconds: int = 900,
        coarse_seconds: int = 60,
        coarse_span_seconds: int = 10_800,
        max_cells: int = 40_000,
        max_combinations: int = 2_000,
        catch_up: Callable[[], object] = lambda: None,
    ) -> None:
        self._fine = fine_seconds
        self._fine_span = fine_span_seconds
        self._coarse = coarse_seconds
        self._coarse_span = coarse_span_seconds
        self._max_cells = max_cells
        self._max_combinations = max_combinations
        self._catch_up = catch_up
        self._slot = -1
        self._current: dict[Combination, _Sums] = {}
        self._closed: deque[_Bucket] = deque()
        self._old: deque[_Bucket] = deque()
        self._cells = 0

    def add(self, at: float, sample: Observation, sums: Sequence[int]) -> None:
        """Count finished calls of one combination, ``sample`` being one of them.

        Parameters
        ----------
        at
            When they ended, to the cell's width. Late ones count in the newest cell.
        sums
            Requests, nano-USD, tokens in, out and cached, errors; more is not looked at.
        """
        if not sums[0]:
            return
        slot = int(at) // self._fine
        if slot > self._slot:
            self._roll(slot)
        combination = _combination(sample)
        held = self._current.get(combination)
        if held is None:
            held = self._open(combination)
        held[:] = map(add, held, sums)

    def snapshot(self) -> Snapshot:
        """All that is held now; costs a copy of the newest span alone."""
        self._catch_up()
        newest = {combination: list(sums) for combination, sums in self._current.items()}
        current: _Bucket = (float(self._slot * self._fine), float(self._fine), newest)
        return Snapshot((*self._old, *self._closed, current))

    def __len__(self) -> int:
        """How many cells are held."""
        return self._cells

    def _open(self, combination: Combination) -> _Sums:
        if len(self._current) >= self._max_combinations:
            combination = OTHER
        sums = self._current.get(combination)
        if sums is None:
            sums = self._current[combination] = [0, 0, 0, 0, 0, 0]
            self._cells += 1
        return sums

    def _roll(self, slot: int) -> None:
        if self._current:
            self._closed.append((float(self._slot * self._fine), float(self._fine), self._current))
            self._current = {}
        self._slot = slot
        now = slot * self._fine
        while self._closed and self._closed[0][0] < now - self._fine_span:
            self._age()
        while self._old and self._old[0][0] < now - self._coarse_span:
            self._cells -= len(self._old.popleft()[2])
        while self._cells > self._max_cells and (self._old or self._closed):
            oldest = self._old if self._old else self._closed
            self._cells -= len(oldest.popleft()[2])

    def _age(self) -> None:
        """Sum the oldest fine cells up to their minute, in a new dict: readers keep theirs."""
        minute = self._closed[0][0] // self._coarse
        merged: dict[Combination, _Sums] = {}
        while self._closed and self._closed[0][0] // self._coarse == minute:
            _, _, sums = self._closed.popleft()
            self._cells -= len(sums)
            for combination, held in sums.items():
                mine = merged.get(combination)
                if mine is None:
                    merged[combination] = list(held)
                else:
                    for index, value in enumerate(held):
                        mine[index] += value
        self._cells += len(merged)
        self._old.append((float(minute * self._coarse), float(self._coarse), merged))
