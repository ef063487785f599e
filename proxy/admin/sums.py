"""Sums of a window per series, as columns.

Owns: their order, and the few rows that somebody looks at. Must never: make ten
thousand Python objects where a page shows fifty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import orjson

from proxy.store.cells import Ints
from proxy.store.counters import UsageRow
from proxy.store.series import COUNTS, WIDTH, Counts

_COST, _REQUESTS = COUNTS.index("cost_nano_usd"), COUNTS.index("requests")


@dataclass(frozen=True)
class Sums:
    """``values[i]`` used ``columns[:, i]``; the dearest first, then by calls and name.

    ``columns`` has a row per column of :data:`proxy.store.series.COUNTS`.
    """

    values: list[str]
    columns: Ints

    @classmethod
    def of(cls, values: Sequence[str], columns: Ints, by_name: Ints) -> Sums:
        """Those of ``values`` that used anything, sorted.

        A name that stands there twice (the rest of several shards) is one. ``by_name``
        sorts the values.
        """
        used: npt.NDArray[np.bool_] = np.any(columns, axis=0)
        chosen = by_name[used[by_name]]
        names = np.array([values[number] for number in chosen], dtype=object)
        columns = columns[:, chosen]
        first = np.flatnonzero(np.r_[True, names[1:] != names[:-1]]) if len(names) else chosen
        if len(first) < len(names):
            names, columns = names[first], np.add.reduceat(columns, first, axis=1)
        order = np.lexsort((-columns[_REQUESTS], -columns[_COST]))
        return cls(names[order].tolist(), columns[:, order])

    @classmethod
    def sorted(cls, values: Sequence[str], columns: Ints) -> Sums:
        """:meth:`of`, where the values' order is not known yet."""
        return cls.of(values, columns, np.argsort(np.array(values, dtype=object), kind="stable"))

    @classmethod
    def of_rows(cls, rows: Sequence[UsageRow]) -> Sums:
        """From the store's own sums."""
        columns = np.array([row.counts for row in rows], np.int64).reshape(-1, WIDTH).T
        return cls([row.value for row in rows], columns)

    @classmethod
    def together(cls, parts: Sequence[Sums]) -> Sums:
        """Those of several shards."""
        if len(parts) == 1:
            return parts[0]
        values = [value for part in parts for value in part.values]
        return cls.sorted(values, np.concatenate([part.columns for part in parts], axis=1))

    def only(self, allowed: Callable[[str], bool]) -> Sums:
        """Those of some values, in the same order."""
        places = [place for place, value in enumerate(self.values) if allowed(value)]
        return Sums([self.values[place] for place in places], self.columns[:, places])

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def places(self) -> dict[str, int]:
        """Value -> where it stands."""
        return {value: place for place, value in enumerate(self.values)}

    def column(self, name: str) -> Ints:
        """One column of all."""
        found: Ints = self.columns[COUNTS.index(name)]
        return found

    def counts(self, place: int) -> Counts:
        """What one of them used."""
        return Counts.of(self.columns[:, place].tolist())

    def of_value(self, value: str) -> Counts | None:
        """What a value used; ``None`` where it used nothing."""
        place = self.places.get(value)
        return None if place is None else self.counts(place)

    def rows(self, places: Sequence[int] | Ints | None = None) -> list[UsageRow]:
        """Rows of some, or of all."""
        chosen = range(len(self)) if places is None else places
        columns = self.columns if places is None else self.columns[:, np.asarray(places, np.int64)]
        return [
            UsageRow(self.values[place], Counts(*row))
            for place, row in zip(chosen, columns.T.tolist(), strict=True)
        ]

    @cached_property
    def json(self) -> bytes:
        """All rows, as the usage API gives them."""
        return orjson.dumps([row.as_dict() for row in self.rows()])

    def median_cost_nano_usd(self) -> int | None:
        """The middle one's cost; they are sorted by it, the dearest first."""
        if not len(self):
            return None
        return int(self.column("cost_nano_usd")[(len(self) - 1) // 2])
