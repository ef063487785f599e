"""From a file to rows: the importer chosen, bad rows set aside, progress kept.

Owns: the loop over a source's records, the counts, and the ``.rejected.jsonl``
file. Must never: stop for a bad row, or write a credential or a prompt into the
file of rejected rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import orjson

from proxy.history.base import Importer
from proxy.history.registry import IMPORTERS, importer_for
from proxy.history.rows import BadRowError, Options, Rejected, Row
from proxy.history.source import Source, SourceError
from proxy.redact import redact_value

_SHOWN_CHARS: Final = 200


@dataclass(slots=True)
class Tally:
    """What became of a file's records. ``skipped`` are not about model calls."""

    records: int = 0
    rows: int = 0
    skipped: int = 0
    rejected: int = 0


class RejectedFile:
    """Writes rejected rows beside the file, and only if there are any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def __call__(self, rejected: Rejected) -> None:
        if self._file is None:
            self._file = self.path.open("wb")
        self._file.write(
            orjson.dumps(
                {
                    "line": rejected.line,
                    "reason": rejected.reason,
                    "row": _bounded(redact_value(rejected.data)),
                },
                default=str,
                option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS,
            )
        )

    def __enter__(self) -> RejectedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


def _bounded(value: Any, depth: int = 0) -> Any:
    """Short values only: a prompt that stood in a bad row is cut, not copied."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "…"
    if isinstance(value, dict):
        if depth > 1:
            return "{…}"
        return {
            str(name)[:64]: _bounded(held, depth + 1) for name, held in list(value.items())[:64]
        }
    if isinstance(value, list):
        return [_bounded(held, depth + 1) for held in value[:8]] if depth <= 1 else "[…]"
    return value


def read_rows(
    source: Source,
    *,
    format_name: str = "auto",
    options: Options | None = None,
    reject: Callable[[Rejected], None] = lambda rejected: None,
    tally: Tally | None = None,
) -> Iterator[Row]:
    """The rows of a file, in its order.

    Raises SourceError where the file can't be opened or no format fits.
    """
    options = options or Options()
    tally = tally if tally is not None else Tally()
    records = source.records()
    head = list(itertools.islice(records, 1))
    while head and isinstance(head[-1], Rejected) and len(head) < 100:
        following = list(itertools.islice(records, 1))
        head += following
        if not following:
            break
    importer = _choose(source, format_name, head, options)
    for record in itertools.chain(head, records):
        tally.records += 1
        if isinstance(record, Rejected):
            tally.rejected += 1
            reject(record)
            continue
        line, data = record
        try:
            rows = list(importer.convert(data, options))
        except BadRowError as error:
            rows = []
            tally.rejected += 1
            reject(Rejected(line, str(error), data))
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            rows = []
            tally.rejected += 1
            reject(Rejected(line, f"not in the shape of {importer.name}: {error}", data))
        else:
            tally.skipped += not rows
        tally.rows += len(rows)
        yield from rows


def _choose(source: Source, format_name: str, head: list[Any], options: Options) -> Importer:
    if format_name != "auto":
        if format_name not in IMPORTERS:
            raise SourceError(f"unknown format {format_name!r}; known: {', '.join(IMPORTERS)}")
        return IMPORTERS[format_name]
    if options.columns:
        return IMPORTERS["csv"]
    first = next((record for record in head if not isinstance(record, Rejected)), None)
    if first is None:
        if head:
            raise SourceError(f"{source.name}: no readable record among the first {len(head)}")
        raise SourceError(f"{source.name}: the file is empty")
    found = importer_for(first[1])
    if found is None:
        raise SourceError(
            f"{source.name}: no known format has these fields: {', '.join(list(first[1])[:8])}. "
            "Say --format NAME, or map the columns of a plain CSV with --column FIELD=COLUMN"
        )
    return found
