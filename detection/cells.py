"""Which series a call belongs to, resolved once per combination of names.

Owns: the bounded tables of series, owners and identity combinations ("cells").
Must never: judge.

A cell keeps the calls of one combination until a few have come together, so that
its dozen series are booked once for all of them: that is what keeps an
observation at a few microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from detection.repeats import Repeats
from detection.settings import DetectionSettings, Metric
from detection.shape import Shape
from detection.state import NEVER, PROFILED, WIDE, Owner, SeriesState
from detection.types import TOTAL, Dimension, Observation, Series, pair
from detection.window import Window

Identity = tuple[Any, ...]


class Cell:
    """One combination of names: its series, its owner, and calls not yet booked.

    ``states`` are all its series; ``judged`` those that may alarm by count, ``windows``
    the counts of the rest. ``room`` is with how many calls it is looked at, ``wait`` with how
    many they are booked at the latest, ``start`` the bucket of the first that waits;
    ``looked`` how many calls there had been when it was last asked whether it is idle.
    """

    __slots__ = ("calls", "clients", "cost", "error_states", "finish", "judged", "key_state",
                 "looked", "novel", "owner", "provider", "room", "seen", "start", "states",
                 "tokens", "wait", "windows")  # fmt: skip

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
        self.looked = 1
        self.room = 1
        self.wait = 0
        self.start = bucket
        self.finish: dict[tuple[str, ...], int] = {}


#: Series dumped, or cells let go of, at once: some milliseconds.
PART = 32
#: A series with calls all the time takes the memory of so many that get one now and then.
HEAVY = 4
#: Series that one new combination of names can bring, more or less.
SPARE = 16


class Registry:
    """All series, owners and cells, with their bounds."""

    def __init__(self, settings: DetectionSettings, judged: frozenset[str]) -> None:
        self.settings = settings
        self.states: dict[Series, SeriesState] = {}
        self.owners: dict[Series, Owner] = {}
        self.cells: dict[Identity, Cell] = {}
        #: Those with evidence under way, or a signal that cried wolf; more may be told.
        self.marked: dict[Series, SeriesState] = {}
        #: Cells taken over from other settings, to be linked anew by these.
        self.former: dict[Identity, Cell] = {}
        #: Series with a call in so many parts of the hour that each part has its place in memory.
        self.heavy = 0
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
        if identity in self.former:
            return self.relink(identity)
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
        for state in states:
            state.cells += 1
        return cell

    def relink(self, identity: Identity) -> Cell:
        """Link a cell that was taken over by the settings that are in force now."""
        former = self.former.pop(identity)
        for state in former.states:
            state.cells -= 1
        cell = self.cells[identity] = self._link(former.states, former.start)
        for name in ("calls", "cost", "tokens", "finish", "novel", "seen"):
            setattr(cell, name, getattr(former, name))
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

    @property
    def full(self) -> bool:
        """Whether something has to go before there is room for one more call's names."""
        caps = self.settings.caps
        return len(self.cells) >= caps.combinations or self._crowded

    @property
    def _crowded(self) -> bool:
        return self._weight + SPARE >= self.settings.caps.series

    @property
    def _weight(self) -> int:
        return len(self.states) + (HEAVY - 1) * self.heavy

    def idle(self, most: int) -> list[tuple[Identity, Cell]]:
        """Some cells that had no call since they were last looked at, the oldest first.

        Those that had one are looked at again when all others have been (the clock of
        Corbato, 1968): a call needs no place in a queue for that. If all of them had, the
        oldest go.
        """
        found = []
        cells = self.cells
        oldest = list(islice(cells.items(), 4 * most))
        for identity, cell in oldest:
            used = cell.seen + cell.calls
            if used == cell.looked:
                found.append((identity, cell))
                if len(found) == most:
                    break
            else:
                cell.looked = used
                del cells[identity]
                cells[identity] = cell
        return found or oldest[:most]

    def drop(self, identity: Identity, cell: Cell) -> None:
        """Let go of a cell, and if series are many of those that only it led to."""
        if self.cells.pop(identity, None) is None:
            return
        self.dropped += 1
        for state in cell.states:
            state.cells -= 1
            if not state.cells and self._weight > self.settings.caps.series - 8 * PART:
                self._drop_state(state)

    def drop_strays(self, most: int) -> None:
        """Let go of some of the series that no cell leads to, if series are many."""
        if not self._crowded:
            return
        for series, state in list(islice(self.states.items(), most)):
            if state.cells or not self._drop_state(state):
                del self.states[series]
                self.states[series] = state

    def _drop_state(self, state: SeriesState) -> bool:
        """Whether it is gone: what is under way is kept as long as that is no flood itself."""
        series, most = state.series, self.settings.caps.series
        if series == TOTAL or (state.evidence and len(self.states) < most + most // 8):
            return False
        del self.states[series]
        self.owners.pop(series, None)
        self.marked.pop(series, None)
        self.heavy = max(0, self.heavy - state.window.dense)
        self.dropped += 1
        return True

    def _adopt(self, series: Series, state: SeriesState) -> None:
        """Have a state that was learned by other settings, maybe: new ones must hold at once."""
        self.states[series] = state
        limited = series.dimension in self._limited
        if limited or state.alarm_bucket == NEVER or not self._is_judged(state):
            self._arm(state, state.last)
        if state.evidence or state.wolf:
            self.marked[series] = state

    def take_over(self, other: Registry) -> None:
        """Have the series and owners of another registry; its cells are linked anew when used."""
        self.clear()
        for series, state in other.states.items():
            self._adopt(series, state)
        self.owners, self.dropped = other.owners, other.dropped
        self.former = {**other.former, **other.cells}

    def parts(self) -> Iterator[tuple[str, list[Any]]]:
        """Series, owners and cells as plain values, some at a time; no cell may hold calls.

        What is there when it begins is what is told, also if calls are booked in between.
        """
        states, owners = list(self.states.values()), list(self.owners.values())
        cells = list(self.cells.items())
        for at in range(0, len(states), PART):
            yield "states", [s.dump() for s in states[at : at + PART]]
        for at in range(0, len(owners), PART):
            yield "owners", [o.dump() for o in owners[at : at + PART]]
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

    def clear(self) -> None:
        """Forget everything."""
        for table in (self.states, self.owners, self.cells, self.marked, self.former):
            table.clear()

    def load(self, name: str, rows: list[Any]) -> None:
        """Take one of :meth:`parts` back: first all series, then owners, then cells."""
        if name == "states":
            for row in rows:
                state = SeriesState.load(row)
                self._adopt(state.series, state)
        elif name == "owners":
            for row in rows:
                state = self.states[Series(*row["series"])]
                self.owners[state.series] = Owner.load(row, state)
        elif name == "cells":
            for identity, series, (seen, room, start), novel in rows:
                cell = self._link(tuple(self.states[Series(*s)] for s in series), int(start))
                cell.seen, cell.room, cell.novel = int(seen), int(room), list(novel)
                self.cells[_identity(identity)] = cell

    def forget(self, owns: Callable[[str, str], bool], kind: str, member: str) -> int:
        """Let go of all series that are someone's, and of them as a known member of others.

        Gives how many series went.
        """
        gone = [series for series in self.states if owns(*series)]
        if gone:
            theirs = {self.states[series] for series in gone}
            for table in (self.cells, self.former):
                for identity in [i for i, c in table.items() if not theirs.isdisjoint(c.states)]:
                    for state in table.pop(identity).states:
                        state.cells -= 1
            for series in gone:
                del self.states[series]
                self.owners.pop(series, None)
                self.marked.pop(series, None)
        for state in self.states.values():
            if state.members:
                state.members.get(kind, {}).pop(member, None)
        return len(gone)


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
