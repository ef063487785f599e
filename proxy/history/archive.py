"""Imported history, kept by the hour in our own schema.

Owns: ``history/<day>/<hour>.jsonl.gz`` under the data directory, so that
baselines, backtests and drills can go through any import in order of time with
an hour in memory. Must never: keep a row twice, or a field that the schema lacks.
"""

from __future__ import annotations

import gzip
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from detection.types import Observation
from proxy.history.rows import HOUR_SECONDS, Aggregate, Row
from proxy.observation_json import from_row

if TYPE_CHECKING:
    from proxy.history.markers import Markers


def moment(row: Row) -> float:
    """When a row happened, or began."""
    return row.ts if isinstance(row, Observation) else row.start


class Archive:
    """The imported rows of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "history"
        self._touched: set[Path] = set()

    def add(self, rows: Sequence[Row], markers: Markers) -> None:
        """Append rows; they stay only if the markers are committed afterwards."""
        hours: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            hours[int(moment(row) // HOUR_SECONDS)].append(row)
        for hour, held in hours.items():
            path = self._path(hour)
            name = str(path.relative_to(self.folder))
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            whole = markers.file_bytes(name)
            lines = b"".join(
                orjson.dumps(_known(row), option=orjson.OPT_APPEND_NEWLINE) for row in held
            )
            with path.open("ab") as out:
                # What a broken-off import left behind the last commit is dropped.
                out.truncate(whole)
                out.write(gzip.compress(lines, compresslevel=1))
                markers.note_file(name, out.tell())
            self._touched.add(path)

    def sync(self) -> None:
        """Force what was added to the disk, once, at the end of an import."""
        for path in self._touched:
            with path.open("rb") as written:
                os.fsync(written.fileno())
        self._touched.clear()

    def hours(self) -> list[int]:
        """The hours since the epoch that there are rows of, in order."""
        found = []
        for path in self.folder.glob("*/*.jsonl.gz"):
            day = datetime.strptime(path.parent.name, "%Y-%m-%d").replace(tzinfo=UTC)
            found.append(int(day.timestamp() // HOUR_SECONDS) + int(path.name[:2]))
        return sorted(found)

    def rows(self, since: float = 0.0, until: float = float("inf")) -> Iterator[Row]:
        """Rows from ``since`` to before ``until`` in order of time, an hour at a time."""
        for hour in self.hours():
            if (hour + 1) * HOUR_SECONDS <= since or hour * HOUR_SECONDS >= until:
                continue
            held = list(_read(self._path(hour)))
            held.sort(key=moment)
            yield from (row for row in held if since <= moment(row) < until)

    def observations(self, since: float = 0.0) -> Iterator[Observation]:
        """The single calls among the rows, in order of time."""
        return (row for row in self.rows(since) if isinstance(row, Observation))

    def _path(self, hour: int) -> Path:
        start = datetime.fromtimestamp(hour * HOUR_SECONDS, UTC)
        return self.folder / start.strftime("%Y-%m-%d") / f"{start:%H}.jsonl.gz"


def _known(row: Row) -> dict[str, Any]:
    return {
        name: value
        for name, value in zip(row._fields, row, strict=True)
        if value is not None and value != () and value != {}
    }


def _read(path: Path) -> Iterable[Row]:
    with gzip.open(path, "rb") as lines:
        for line in lines:
            held = orjson.loads(line)
            yield from_row(held) if "ts" in held else Aggregate(**held)
