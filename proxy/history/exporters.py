"""Observations out: JSON lines, CSV, Parquet and FOCUS.

Owns: the writers and their table. Must never: hold more than one batch, or
write a number that the observation does not have (unknown stays empty).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO, Any, Final

import orjson

from detection.types import Observation
from proxy.history.focus_rows import COLUMNS as FOCUS_COLUMNS
from proxy.history.focus_rows import charges

_BATCH_ROWS: Final = 8192

Writer = Callable[[Iterable[Observation], IO[bytes]], int]


class ExportError(Exception):
    """The export can't be made here; the message says what is missing."""


def write_json_lines(observations: Iterable[Observation], out: IO[bytes]) -> int:
    """One JSON object a line, in the observation schema."""
    count = 0
    for batch in _batches(observations):
        out.write(
            b"".join(orjson.dumps(row._asdict(), option=orjson.OPT_APPEND_NEWLINE) for row in batch)
        )
        count += len(batch)
    return count


def write_csv(observations: Iterable[Observation], out: IO[bytes]) -> int:
    """One row a call; tags and finish reasons as JSON, unknown as an empty cell."""
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(Observation._fields)
    count = 0
    for batch in _batches(observations):
        writer.writerows([_cell(value) for value in row] for row in batch)
        count += len(batch)
    text.flush()
    text.detach()
    return count


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, (dict, tuple, list)):
        return orjson.dumps(value).decode()
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def write_parquet(observations: Iterable[Observation], out: IO[bytes]) -> int:
    """Zstandard-compressed Parquet. Raises ExportError without pyarrow."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise ExportError("Parquet needs the extra: install tokenweir[parquet]") from error
    text, count, real = arrow.string(), arrow.int64(), arrow.float64()
    types = {
        "ts": real,
        "tags": arrow.map_(text, text),
        "finish_reasons": arrow.list_(text),
        "stream": arrow.bool_(),
        "ttft_seconds": real,
        "latency_seconds": real,
        "status": count,
        "cost_nano_usd": count,
    }
    schema = arrow.schema(
        [
            (name, types.get(name) or (count if name.endswith("_tokens") else text))
            for name in Observation._fields
        ]
    )
    written = 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in _batches(observations):
            columns = dict(zip(Observation._fields, zip(*batch, strict=True), strict=True))
            columns["tags"] = tuple(list(tags.items()) for tags in columns["tags"])
            writer.write_batch(
                arrow.record_batch(
                    [arrow.array(columns[field.name], type=field.type) for field in schema],
                    schema=schema,
                )
            )
            written += len(batch)
    return written


def write_focus(observations: Iterable[Observation], out: IO[bytes]) -> int:
    """Hourly charges as FOCUS 1.2 CSV, one row for each set of names."""
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(FOCUS_COLUMNS)
    count = 0
    for charge in charges(observations):
        writer.writerow([_cell(charge[column]) for column in FOCUS_COLUMNS])
        count += 1
    text.flush()
    text.detach()
    return count


def _batches(observations: Iterable[Observation]) -> Iterator[list[Observation]]:
    iterator = iter(observations)
    while batch := list(islice(iterator, _BATCH_ROWS)):
        yield batch


WRITERS: Final[dict[str, Writer]] = {
    "jsonl": write_json_lines,
    "csv": write_csv,
    "parquet": write_parquet,
    "focus": write_focus,
}
