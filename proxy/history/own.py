"""One's own history: what the journal holds and what was imported, in order of time.

Owns: bringing journal, archive and single files together for exports, drills and
tuning. Must never: count, or change what it reads.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from detection.types import Observation
from proxy.history.archive import Archive, moment
from proxy.history.reader import read_rows
from proxy.history.source import Source, SourceError
from proxy.history.spreading import spread
from proxy.journal_segments import read_observations

#: A file alone is sorted in memory up to this; a longer one is imported first.
_SORTED_ROWS: Final = 2_000_000


def own_calls(
    data_dir: Path, since: float = 0.0, until: float = float("inf")
) -> Iterator[Observation]:
    """The calls of a data directory, journalled and imported, in order of time."""
    imported = Archive(data_dir).observations(since)
    both = heapq.merge(own_journal(data_dir), imported, key=lambda call: call.ts)
    return (call for call in both if since <= call.ts < until)


def replayed_calls(data_dir: Path) -> Iterator[Observation]:
    """As :func:`own_calls`, with imported hours and days laid out as calls."""
    imported = spread(Archive(data_dir).rows())
    return heapq.merge(own_journal(data_dir), imported, key=lambda call: call.ts)


def own_journal(data_dir: Path) -> Iterator[Observation]:
    """The calls of a data directory's journal, in order of time."""
    journal = data_dir / "journal"
    return read_observations(journal) if journal.exists() else iter(())


def calls_of_file(path: Path, format_name: str = "auto") -> list[Observation]:
    """The calls of one file of any known format, in order of time; sums as :func:`spread` has them.

    Raises SourceError where it can't be read, or is too long to sort in memory.
    """
    rows = sorted(
        itertools.islice(read_rows(Source(path), format_name=format_name), _SORTED_ROWS + 1),
        key=moment,
    )
    calls = list(itertools.islice(spread(rows), _SORTED_ROWS + 1))
    if max(len(rows), len(calls)) > _SORTED_ROWS:
        raise SourceError(f"{path}: more than {_SORTED_ROWS:,} calls; import it first")
    if not calls:
        raise SourceError(f"{path}: no calls in it, single or counted")
    return calls
