"""Helicone's request exports, JSON lines or CSV.

Owns: the fields of ``/v1/request/query-clickhouse`` and of its export tool
(https://docs.helicone.ai/tools/export). Must never: keep request or response
bodies, or take a cost in Helicone's scaled integers for dollars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from detection.types import Observation
from proxy.history.base import Importer
from proxy.history.rows import (
    NANO,
    BadRowError,
    Options,
    Row,
    key_of,
    nano_usd,
    object_of,
    provider_of,
    required,
    seconds_since_epoch,
    tags_of,
    text,
    whole,
)

_DOLLARS_OF_ONE_CALL: Final = 10_000
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
}


def _recognises(first: Mapping[str, Any]) -> bool:
    return "request_id" in first and "request_created_at" in first


def _convert(data: Mapping[str, Any], options: Options) -> Iterable[Row]:
    zone = options.timezone_offset_seconds
    asked = required(
        seconds_since_epoch(data.get("request_created_at"), "request_created_at", zone),
        "request_created_at",
    )
    delay = whole(data.get("delay_ms"), "delay_ms")
    first_token = whole(data.get("time_to_first_token"), "time_to_first_token")
    code = data.get("response_status")
    status = None if str(code or "").startswith("-") else whole(code, "response_status")
    properties = tags_of(
        object_of(data.get("request_properties") or data.get("properties"), "request_properties")
    )
    lowered = {name.lower(): held for name, held in properties.items()}
    tags = {n: held for n, held in properties.items() if not n.lower().startswith("helicone-")}
    model = text(data.get("response_model")) or text(data.get("model"))
    requested = text(data.get("request_model")) or text(data.get("model_override")) or model
    vendor = (text(data.get("provider")) or "").lower() or None
    failed = status is None or status >= 400
    yield Observation(
        ts=asked + (delay or 0) / 1000,
        id="helicone_" + str(required(text(data.get("request_id")), "request_id")),
        key=key_of(data.get("api_key_name"), options),
        agent=lowered.get("agent"),
        project=lowered.get("project"),
        user=text(data.get("request_user_id")) or text(data.get("user_id")),
        session=lowered.get("helicone-session-id"),
        tags=tags,
        provider=options.provider or _PROVIDERS.get(vendor or "", vendor) or provider_of(requested),
        endpoint=_endpoint(text(data.get("request_path"))),
        model=requested,
        model_served=model,
        status=status,
        error_type=(str(status) if status else "unfinished") if failed else None,
        input_tokens=whole(data.get("prompt_tokens"), "prompt_tokens"),
        cached_input_tokens=whole(data.get("prompt_cache_read_tokens"), "prompt_cache_read_tokens"),
        cache_write_tokens=whole(
            data.get("prompt_cache_write_tokens"), "prompt_cache_write_tokens"
        ),
        output_tokens=whole(data.get("completion_tokens"), "completion_tokens"),
        reasoning_tokens=whole(data.get("reasoning_tokens"), "reasoning_tokens"),
        cost_nano_usd=_cost(data),
        usage_source="reported" if data.get("prompt_tokens") not in (None, "") else "unknown",
        stream=first_token is not None,
        ttft_seconds=None if first_token is None else first_token / 1000,
        latency_seconds=None if delay is None else delay / 1000,
        action="allow",
    )


def _cost(data: Mapping[str, Any]) -> int | None:
    name = next((n for n in ("costUSD", "cost_usd", "cost") if data.get(n) not in (None, "")), None)
    if name is None:
        return None
    cost = nano_usd(data[name], name)
    if cost is not None and cost > _DOLLARS_OF_ONE_CALL * NANO:
        raise BadRowError(f"{name}: {data[name]} dollars for one call; is it a scaled integer?")
    return cost


def _endpoint(path: str | None) -> str | None:
    if path is None:
        return None
    words = [word for word in urlsplit(path).path.split("/") if word and word != "v1"]
    return "_".join(words[:2]).replace("-", "_") or None


IMPORTER = Importer("helicone", "Helicone request exports", _recognises, _convert)
