"""Our own observation schema: the journal, and what ``export`` writes.

Owns: reading one observation from JSON, CSV or Parquet, with every field
checked. Must never: accept a row without a time. Schema: docs/observation.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from detection.types import Observation
from proxy.history.base import Importer
from proxy.history.rows import (
    BadRowError,
    Options,
    Row,
    content_id,
    key_of,
    object_of,
    real,
    required,
    seconds_since_epoch,
    tags_of,
    text,
    whole,
)

_SOURCES: Final = frozenset({"reported", "estimated", "unknown"})


#: The first line of a journal's segment names it.
_SCHEMA: Final = "tokenweir.observation"


def _recognises(first: Mapping[str, Any]) -> bool:
    if first.get("schema") == _SCHEMA:
        return True
    return "ts" in first and "usage_source" in first and "requests" not in first


def convert(data: Mapping[str, Any], options: Options) -> Iterable[Row]:
    """One record of the observation schema, its numbers as JSON or as text."""
    if data.get("schema") == _SCHEMA and "ts" not in data:
        return
    ts = required(seconds_since_epoch(data.get("ts"), "ts", options.timezone_offset_seconds), "ts")
    status = whole(data.get("status"), "status")
    if status is not None and not 100 <= status <= 599:
        raise BadRowError(f"status: {status} is not an HTTP status")
    source = text(data.get("usage_source")) or "unknown"
    if source not in _SOURCES:
        raise BadRowError(f"usage_source: {source!r} is not one of {', '.join(sorted(_SOURCES))}")
    row = Observation(
        ts=ts,
        id=text(data.get("id")) or "",
        key=key_of(data.get("key"), options),
        agent=text(data.get("agent")),
        project=text(data.get("project")),
        user=text(data.get("user")),
        session=text(data.get("session")),
        tags=tags_of(object_of(data.get("tags"), "tags")),
        provider=text(data.get("provider")) or options.provider,
        upstream=text(data.get("upstream")),
        endpoint=text(data.get("endpoint")),
        model=text(data.get("model")),
        model_served=text(data.get("model_served")),
        status=status,
        error_type=text(data.get("error_type")),
        input_tokens=whole(data.get("input_tokens"), "input_tokens"),
        cached_input_tokens=whole(data.get("cached_input_tokens"), "cached_input_tokens"),
        cache_write_tokens=whole(data.get("cache_write_tokens"), "cache_write_tokens"),
        output_tokens=whole(data.get("output_tokens"), "output_tokens"),
        reasoning_tokens=whole(data.get("reasoning_tokens"), "reasoning_tokens"),
        cost_nano_usd=whole(data.get("cost_nano_usd"), "cost_nano_usd"),
        usage_source=source,
        finish_reasons=_reasons(data.get("finish_reasons")),
        fingerprint=text(data.get("fingerprint")),
        fingerprint_kind=text(data.get("fingerprint_kind")),
        client=text(data.get("client")),
        stream=str(data.get("stream")).lower() in ("true", "1"),
        ttft_seconds=real(data.get("ttft_seconds"), "ttft_seconds"),
        latency_seconds=real(data.get("latency_seconds"), "latency_seconds"),
        action=text(data.get("action")),
        trace=text(data.get("trace")),
    )
    yield row if row.id else row._replace(id=content_id("journal", *row))


def _reasons(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and value:
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            value = value.split("|")
    return tuple(str(reason)[:64] for reason in value) if isinstance(value, (list, tuple)) else ()


IMPORTER = Importer("journal", "Tokenweir's journal and exports", _recognises, convert)
