"""A plain table whose columns the person importing names.

Owns: renaming the mapped columns to the observation schema, and the rows that
sum several calls. Must never: take a column that was not mapped or named alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from proxy.history.base import Importer
from proxy.history.importers import journal
from proxy.history.rows import (
    HOUR_SECONDS,
    Aggregate,
    BadRowError,
    Options,
    Row,
    content_id,
    key_of,
    nano_usd,
    object_of,
    required,
    seconds_since_epoch,
    tags_of,
    text,
    whole,
)

#: What a column may be mapped to besides the fields of the observation schema.
EXTRA_FIELDS: Final = ("cost_usd", "requests", "errors")


def _recognises(first: Mapping[str, Any]) -> bool:
    return "ts" in first


def _convert(data: Mapping[str, Any], options: Options) -> Iterable[Row]:
    renamed = dict(data)
    for field, column in options.columns.items():
        if column not in data:
            raise BadRowError(f"{field}: the file has no column {column!r}")
        renamed[field] = data[column]
    if "cost_usd" in renamed:
        renamed["cost_nano_usd"] = nano_usd(renamed["cost_usd"], "cost_usd")
    if "requests" in renamed or options.period_seconds is not None:
        yield _aggregate(renamed, options)
    else:
        yield from journal.convert(renamed, options)


def _aggregate(data: Mapping[str, Any], options: Options) -> Aggregate:
    start = seconds_since_epoch(data.get("ts"), "ts", options.timezone_offset_seconds)
    requests = whole(data.get("requests"), "requests")
    row = Aggregate(
        start=required(start, "ts"),
        seconds=options.period_seconds or HOUR_SECONDS,
        id="",
        basis="usage" if requests is not None else "cost",
        key=key_of(data.get("key"), options),
        agent=text(data.get("agent")),
        project=text(data.get("project")),
        user=text(data.get("user")),
        tags=tags_of(object_of(data.get("tags"), "tags")),
        provider=text(data.get("provider")) or options.provider,
        endpoint=text(data.get("endpoint")),
        model=text(data.get("model")),
        requests=requests,
        errors=whole(data.get("errors"), "errors"),
        input_tokens=whole(data.get("input_tokens"), "input_tokens"),
        cached_input_tokens=whole(data.get("cached_input_tokens"), "cached_input_tokens"),
        cache_write_tokens=whole(data.get("cache_write_tokens"), "cache_write_tokens"),
        output_tokens=whole(data.get("output_tokens"), "output_tokens"),
        reasoning_tokens=whole(data.get("reasoning_tokens"), "reasoning_tokens"),
        cost_nano_usd=whole(data.get("cost_nano_usd"), "cost_nano_usd"),
    )
    return row._replace(id=content_id("csv", *row))


IMPORTER = Importer("csv", "a plain CSV with --column FIELD=COLUMN", _recognises, _convert)
