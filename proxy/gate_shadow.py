"""What shadow mode would have done, in this worker.

Owns: sums and the latest calls per (what, rule, whom), bounded in number. Must
never: hold what a call said, or be more than a few assignments on a call's way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from detection.types import Observation, Series

#: What is told of a call.
COLUMNS = ("ts", "id", "key", "agent", "project", "model", "cost_nano_usd")
LATEST = 20
_MOST = 500


@dataclass(slots=True)
class Shadowed:
    """Calls that would have been stopped, what they cost, and the latest of them."""

    calls: int = 0
    cost_nano_usd: int = 0
    at: float = 0.0
    latest: deque[Observation] = field(default_factory=lambda: deque(maxlen=LATEST))


class ShadowBook:
    """The rows since the start, the latest last."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, Series], Shadowed] = {}
        #: Another number whenever a row is another.
        self.version = 0

    def note(self, would: str, rule: str, series: Series, observation: Observation) -> None:
        """A call was let through that enforcement would not have let through."""
        self.version += 1
        name = (would, rule, series)
        row = self._rows.pop(name, None) or Shadowed()
        row.calls += 1
        row.cost_nano_usd += observation.cost_nano_usd or 0
        row.at = observation.ts
        row.latest.append(observation)
        if len(self._rows) >= _MOST:
            self._rows.pop(next(iter(self._rows)))
        self._rows[name] = row

    def rows(self, most: int = _MOST, calls: int = LATEST) -> list[dict[str, Any]]:
        """The latest rows first, each with its latest calls first; plain values throughout."""
        return [
            {
                "kind": kind,
                "rule": rule,
                "series": {"dimension": str(series.dimension), "value": series.value},
                "calls": row.calls,
                "cost_nano_usd": row.cost_nano_usd,
                "at": row.at,
                "latest": [
                    {name: getattr(call, name) for name in COLUMNS}
                    for call in list(reversed(row.latest))[:calls]
                ],
            }
            for (kind, rule, series), row in list(reversed(self._rows.items()))[:most]
        ]

    def forget(self, owns: Callable[[str, str], bool]) -> None:
        """Drop what is of a series, and calls that name it in another's row."""
        self.version += 1
        for name, row in list(self._rows.items()):
            if owns(str(name[2].dimension), name[2].value):
                del self._rows[name]
                continue
            kept = [call for call in row.latest if not _names(call, owns)]
            row.latest = deque(kept, maxlen=LATEST)


def _names(call: Observation, owns: Callable[[str, str], bool]) -> bool:
    return any(
        owns(dimension, str(getattr(call, dimension)))
        for dimension in ("key", "agent", "project", "user", "model")
        if getattr(call, dimension)
    )
