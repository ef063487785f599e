"""Langfuse's observation exports: the UI's CSV and JSON, blob storage, the API.

Owns: the fields of
https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
in camel and in snake case. Must never: count a span or an event as a call, or
keep ``input`` and ``output``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from detection.types import Observation
from proxy.history.base import Importer
from proxy.history.rows import (
    Options,
    Row,
    nano_usd,
    object_of,
    provider_of,
    required,
    seconds_since_epoch,
    tags_of,
    text,
    whole,
)

_CALLS: Final = frozenset({"GENERATION", "EMBEDDING"})


def _recognises(first: Mapping[str, Any]) -> bool:
    return ("traceId" in first or "trace_id" in first) and (
        "startTime" in first or "start_time" in first
    )


def _convert(data: Mapping[str, Any], options: Options) -> Iterable[Row]:
    def held(name: str) -> Any:
        return data.get(name) if name in data else data.get(_snake(name))

    kind = (text(held("type")) or "GENERATION").upper()
    if kind not in _CALLS:
        return
    zone = options.timezone_offset_seconds
    start = required(seconds_since_epoch(held("startTime"), "startTime", zone), "startTime")
    end = seconds_since_epoch(held("endTime"), "endTime", zone)
    first_token = seconds_since_epoch(held("completionStartTime"), "completionStartTime", zone)
    usage = object_of(held("usageDetails") or held("usage"), "usageDetails")
    costs = object_of(held("costDetails"), "costDetails")
    failed = (text(held("level")) or "DEFAULT").upper() == "ERROR"
    model = text(held("model")) or text(held("providedModelName"))
    cost = next(
        (
            value
            for value in (held("totalCost"), held("calculatedTotalCost"), costs.get("total"))
            if value not in (None, "")
        ),
        None,
    )
    yield Observation(
        ts=end or start,
        id="langfuse_" + str(required(text(held("id")), "id")),
        agent=text(held("traceName")),
        project=text(held("projectId")),
        user=text(held("userId")),
        session=text(held("sessionId")),
        tags=_tags(held("tags")),
        provider=options.provider or provider_of(model),
        endpoint="embeddings" if kind == "EMBEDDING" else None,
        model=model,
        error_type=(text(held("statusMessage")) or "error")[:64] if failed else None,
        status=None if failed else 200,
        input_tokens=_sum(usage, "input"),
        cached_input_tokens=_first(
            usage, "input_cached_tokens", "cache_read_input_tokens", "input_cache_read"
        ),
        cache_write_tokens=_first(usage, "cache_creation_input_tokens", "input_cache_creation"),
        output_tokens=_sum(usage, "output"),
        reasoning_tokens=_first(usage, "output_reasoning_tokens", "output_reasoning"),
        cost_nano_usd=nano_usd(cost, "totalCost"),
        usage_source="reported" if usage else "unknown",
        stream=first_token is not None,
        ttft_seconds=None if first_token is None else max(0.0, first_token - start),
        latency_seconds=None if end is None else max(0.0, end - start),
        action="allow",
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda match: "_" + match[1].lower(), name)


def _sum(usage: Mapping[str, Any], word: str) -> int | None:
    """Langfuse's own rule: every usage type with the word in its name adds up."""
    found = [whole(count, name) or 0 for name, count in usage.items() if word in name.lower()]
    return sum(found) if found else None


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    return next((whole(usage[name], name) for name in names if name in usage), None)


def _tags(value: Any) -> dict[str, str]:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return tags_of(value)


IMPORTER = Importer("langfuse", "Langfuse observation exports", _recognises, _convert)
