"""Which series a call belongs to, resolved once per combination of names.

Owns: the bounded tables of series, owners and identity combinations ("cells").
Must never: judge.

A cell keeps the calls of one combination until a few have come together, so that
its dozen series are booked once for all of them: that is what keeps an
observation at a few microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from detection.repeats import Repeats
from detection.settings import DetectionSettings, Metric
from detection.shape import Shape
from detection.state import NEVER, PROFILED, WIDE, Owner, SeriesState
from detection.types import TOTAL, Dimension, Observation, Series, pair
from detection.window import Window

Identity = tuple[Any, ...]
T = TypeVar("T")


class Cell:
    """One combination of names: its series, its owner, and calls not yet booked.

    ``states`` are all its series; ``judged`` those that may alarm by count, ``windows``
    the counts of the rest. ``room`` is how many calls may wait, ``start`` the bucket of
    the first that does.
    """

    __slots__ = ("calls", "clients", "cost", "error_states", "finish", "judged", "key_state",
                 "novel", "owner", "provider", "room", "seen", "start", "states", "tokens",
                 "windows")  # fmt: skip

    def __init__(self, states: tuple[SeriesState, ...], owner: Owner, bucket: int) -> None:
        self.states = states
        self.judged = states
        self.windows: tuple[Window, ...] = ()
        self.owner = owner
        self.key_state: SeriesState | None = None
        self.provider: SeriesState | None = None
        self.error_states: tuple[SeriesState, ...] = ()
        self.clients: dict[str, float] = {}
        self.novel: list[str] = []
        self.calls = 0
        self.cost = 0
        self.tokens = 0
        self.seen = 0
        self.room = 1
        self.start = bucket
        self.finish: dict[tuple[str, ...], int] = {}


#: Series dumped at once: some milliseconds.
PART = 32


class Registry:
    """All series, owners and cells, with their bounds."""

    def __init__(self, settings: DetectionSettings, judged: frozenset[str]) -> None:
        self.settings = settings
        self.states: dict[Series, SeriesState] = {}
        self.owners: dict[Series, Owner] = {}
        self.cells: dict[Identity, Cell] = {}
        self.dropped = 0
        self._offset = int(settings.timezone_offset_hours * 360)
        self._judged = judged
        self._tokens = frozenset(
            limit.dimension for limit in settings.limits if limit.metric is Metric.TOKENS
        )
        self._limited = frozenset(limit.dimension for limit in settings.limits)
        self._error_dimensions: frozenset[str] = frozenset()

    def errors_by(self, dimensions: frozenset[str]) -> None:
        """Which series of a cell are told of failures."""
        self._error_dimensions = dimensions

    def state(self, series: Series, bucket: int) -> SeriesState:
        """The state of a series, made where it is new."""
        state = self.states.get(series)
        if state is None:
            if len(self.states) >= self.settings.caps.series:
                self._shed_states()
            profiled = series.dimension in PROFILED
            state = SeriesState(series, bucket, self._offset, profiled=profiled)
            self._arm(state, bucket)
            self.states[series] = state
        return state

    def _arm(self, state: SeriesState, bucket: int) -> None:
        """Have a state judged by what the settings say of its dimension, from its next call on."""
        dimension = state.series.dimension
        if dimension in self._tokens and state.tokens is None:
            state.tokens = Window(bucket)
        if self._is_judged(state):
            state.alarm_calls = state.alarm_cost = state.alarm_bucket = 0
        else:
            state.alarm_calls = state.alarm_cost = state.alarm_bucket = NEVER

    def _is_judged(self, state: SeriesState) -> bool:
        return state.profile is not None or state.series.dimension in self._judged

    def cell(self, identity: Identity, o: Observation, bucket: int) -> Cell:
        """Make the cell of a new combination of names."""
        if len(self.cells) >= self.settings.caps.combinations:
            self._shed_cells()
        cell = self._link(tuple(self.state(series, bucket) for series in series_of(o)), bucket)
        self.cells[identity] = cell
        return cell

    def _link(self, states: tuple[SeriesState, ...], bucket: int) -> Cell:
        by = {state.series.dimension: state for state in states}
        cell = Cell(states, self._owner(by), bucket)
        cell.judged = tuple(s for s in states if self._is_judged(s))
        cell.windows = tuple(s.window for s in states if not self._is_judged(s))
        cell.provider = by.get(Dimension.PROVIDER)
        cell.key_state = by.get(Dimension.KEY)
        ordered = sorted(states, key=lambda s: s.series.dimension not in WIDE)
        cell.error_states = tuple(
            s for s in ordered if s.series.dimension in self._error_dimensions
        )
        if cell.key_state is not None:
            cell.clients = members(cell.key_state, "client")
        return cell

    def _owner(self, by: Mapping[str, SeriesState]) -> Owner:
        for dimension in (Dimension.AGENT, Dimension.KEY, Dimension.PROJECT, Dimension.TOTAL):
            state = by.get(dimension)
            if state is not None:
                break
        else:
            raise LookupError("every call belongs to the total")
        owner = self.owners.get(state.series)
        if owner is None:
            owner = self.owners[state.series] = self._new_owner(state)
        return owner

    def _new_owner(self, state: SeriesState) -> Owner:
        repetition = self.settings.repetition
        return Owner(
            state,
            Repeats(repetition.window_seconds / 2.0, repetition.fingerprints_per_series),
            Shape(self.settings.shape.ratio),
        )

    def _shed_cells(self) -> None:
        """Drop the quarter of cells that are idle the longest; none may hold calls."""
        most = max(1, len(self.cells) // 4)
        for identity in _least([(c.start, i) for i, c in self.cells.items()], most):
            del self.cells[identity]
            self.dropped += 1

    def _shed_states(self) -> None:
        """Drop the eighth of series that are idle the longest, with all that points to them."""
        idle = [
            (NEVER if state.evidence else state.window.bucket, state)
            for state in self.states.values()
            if state.series != TOTAL
        ]
        gone = set(_least(idle, max(1, len(self.states) // 8)))
        for state in gone:
            del self.states[state.series]
            self.owners.pop(state.series, None)
        self.dropped += len(gone)
        for identity in [i for i, c in self.cells.items() if not gone.isdisjoint(c.states)]:
            del self.cells[identity]

    def parts(self) -> Iterator[tuple[str, list[Any]]]:
        """Cells, series and owners as plain values, some at a time; no cell may hold calls.

        What is there when it begins is what is told, also if calls are booked in between.
        """
        states, owners = list(self.states.values()), list(self.owners.values())
        cells = list(self.cells.items())
        for at in range(0, len(cells), PART):
            yield (
                "cells",
                [
                    [
                        _plain(identity),
                        [list(s.series) for s in cell.states],
                        [cell.seen, cell.room, cell.start],
                        cell.novel,
                    ]
                    for identity, cell in cells[at : at + PART]
                ],
            )
        for at in range(0, len(states), PART):
            yield "states", [s.dump() for s in states[at : at + PART]]
        for at in range(0, len(owners), PART):
            yield "owners", [o.dump() for o in owners[at : at + PART]]

    def load(self, saved: Mapping[str, Any]) -> None:
        """Undo :meth:`dump`."""
        self.cells.clear()
        loaded = [SeriesState.load(s) for s in saved["states"]]
        self.states = {s.series: s for s in loaded}
        for state in loaded:
            # The dump may be of other settings: a limit set since must hold at once.
            if state.series.dimension in self._limited or not self._is_judged(state):
                self._arm(state, state.last)
        self.owners = {}
        for row in saved["owners"]:
            state = self.states[Series(*row["series"])]
            self.owners[state.series] = Owner.load(row, state)
        for identity, series, (seen, room, start), novel in saved["cells"]:
            cell = self._link(tuple(self.states[Series(*s)] for s in series), int(start))
            cell.seen, cell.room, cell.novel = int(seen), int(room), list(novel)
            self.cells[_identity(identity)] = cell


def _least(rows: Sequence[tuple[int, T]], most: int) -> list[T]:
    """What has the least numbers; of equals, those that stand first.

    >>> _least([(5, "a"), (3, "b"), (5, "c"), (9, "d")], 2)
    ['b', 'a']
    """
    limit = sorted([number for number, _ in rows])[min(most, len(rows)) - 1]
    below = [what for number, what in rows if number < limit]
    return below + [what for number, what in rows if number == limit][: most - len(below)]


def _plain(identity: Identity) -> list[Any]:
    return [list(part) if isinstance(part, tuple) else part for part in identity]


def _identity(saved: list[Any]) -> Identity:
    return tuple(
        tuple(tuple(pair) for pair in part) if isinstance(part, list) else part for part in saved
    )


def members(state: SeriesState, kind: str) -> dict[str, float]:
    """The known members of a kind on a series, by when they were first seen."""
    if state.members is None:
        state.members = {}
    return state.members.setdefault(kind, {})


def series_of(o: Observation) -> list[Series]:
    """All series that a call is counted in.

    >>> [str(s.dimension) for s in series_of(Observation(0.0, "x", key="k", model="m"))]
    ['total', 'model', 'key', 'key_model']
    """
    found = [TOTAL]
    for dimension, value in (
        (Dimension.PROVIDER, o.provider),
        (Dimension.MODEL, o.model),
        (Dimension.KEY, o.key),
        (Dimension.AGENT, o.agent),
        (Dimension.PROJECT, o.project),
        (Dimension.ENDPOINT, o.endpoint),
        (Dimension.USER, o.user),
    ):
        if value is not None:
            found.append(Series(dimension, value))
    for name, value in o.tags.items():
        found.append(Series(Dimension.TAG, f"{name}={value}"))
    if o.model is not None:
        if o.key is not None:
            found.append(Series(Dimension.KEY_MODEL, pair(o.key, o.model)))
        if o.agent is not None:
            found.append(Series(Dimension.AGENT_MODEL, pair(o.agent, o.model)))
    return found
