"""One import: rows read, known ones left out, kept, counted, learned.

Owns: the order of these steps and what a person is told of them. Must never:
mark a row as imported before it is on the disk.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from detection.types import Observation, Usage
from proxy.history.archive import Archive, moment
from proxy.history.counting import deliver, queue_counts
from proxy.history.markers import Markers
from proxy.history.reader import RejectedFile, Tally, read_rows
from proxy.history.rows import Aggregate, Options, Row
from proxy.history.source import Source
from proxy.pricing import Pricer
from proxy.store.counters import Counters

_CHUNK_ROWS: Final = 20_000


@dataclass(slots=True)
class Outcome:
    """What an import did. ``known`` rows were imported before, ``counted_otherwise``
    are cost rows of days whose usage is known, or the other way round."""

    tally: Tally = field(default_factory=Tally)
    added: int = 0
    known: int = 0
    counted_otherwise: int = 0
    calls: int = 0
    cost_nano_usd: int = 0
    first: float | None = None
    last: float | None = None
    without_calls: int = 0


async def import_file(
    source: Source,
    data_dir: Path,
    *,
    format_name: str,
    options: Options,
    pricer: Pricer,
    rejected: Path,
    counters: Counters | None,
    now: float,
    progress: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Bring one file in; what was brought in before is left out.

    Raises SourceError for a file that can't be read at all, ImportBusyError where
    another import is under way, StoreError where the store takes no counts; rows
    already marked then stay, and the next import delivers their counts.
    """
    outcome = Outcome()
    archive = Archive(data_dir)
    with Markers(data_dir / "imports.db") as markers, RejectedFile(rejected) as reject:
        markers.fact("replica", "import-" + secrets.token_hex(6))
        rows = read_rows(
            source, format_name=format_name, options=options, reject=reject, tally=outcome.tally
        )
        if counters is not None:
            await deliver(markers, counters)
        while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
            fresh = markers.fresh(chunk)
            outcome.known += len(chunk) - len(fresh)
            kept = [row for row in fresh if not _other_basis(row, markers)]
            outcome.counted_otherwise += len(fresh) - len(kept)
            priced = [_priced(row, pricer) for row in kept]
            archive.add(priced, markers)
            if counters is not None:
                queue_counts(priced, markers, counters, now)
            markers.commit()
            if counters is not None:
                await deliver(markers, counters)
            _note(outcome, priced)
            progress(outcome)
        archive.sync()
    return outcome


def _other_basis(row: Row, markers: Markers) -> bool:
    return isinstance(row, Aggregate) and markers.counted_otherwise(row)


def _priced(row: Row, pricer: Pricer) -> Row:
    """The row with a cost, where it has tokens and the file named none.

    An aggregate is priced as that many average calls, since prices may depend on
    the length of a call's context.
    """
    if row.cost_nano_usd is not None or row.provider is None or row.model is None:
        return row
    if row.input_tokens is None and row.output_tokens is None:
        return row
    calls = 1 if isinstance(row, Observation) else row.requests or 1000
    usage = Usage(
        source="reported",
        input_tokens=(row.input_tokens or 0) // calls,
        cached_input_tokens=(row.cached_input_tokens or 0) // calls,
        cache_write_tokens=(row.cache_write_tokens or 0) // calls,
        output_tokens=(row.output_tokens or 0) // calls,
    )
    price = pricer.price(row.provider, row.model, usage, at=moment(row), project=row.project)
    return row._replace(cost_nano_usd=price.cost_nano_usd * calls)


def _note(outcome: Outcome, rows: Iterable[Row]) -> None:
    for row in rows:
        outcome.added += 1
        outcome.cost_nano_usd += row.cost_nano_usd or 0
        if isinstance(row, Observation):
            outcome.calls += 1
        elif row.requests is None:
            outcome.without_calls += 1
        else:
            outcome.calls += row.requests
        ts = moment(row)
        outcome.first = ts if outcome.first is None else min(outcome.first, ts)
        outcome.last = ts if outcome.last is None else max(outcome.last, ts)
