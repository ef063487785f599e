"""LiteLLM's spend logs: rows of ``LiteLLM_SpendLogs``, as JSON or CSV.

Owns: the fields of the table as its documentation lists them
(https://docs.litellm.ai/docs/proxy/cost_tracking) and of the ``/spend/logs``
answers. Must never: keep ``messages``, ``response`` or the proxied request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from detection.types import Observation
from proxy.history.base import Importer
from proxy.history.rows import (
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

_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "vertex_ai": "gcp.vertex_ai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_ENDPOINTS: Final = {
    "completion": "chat_completions",
    "text_completion": "completions",
    "embedding": "embeddings",
    "anthropic_messages": "messages",
    "image_generation": "images_generations",
    "transcription": "audio_transcriptions",
    "speech": "audio_speech",
}


def _recognises(first: Mapping[str, Any]) -> bool:
    return "request_id" in first and "spend" in first and "startTime" in first


def _convert(data: Mapping[str, Any], options: Options) -> Iterable[Row]:
    zone = options.timezone_offset_seconds
    start = required(seconds_since_epoch(data.get("startTime"), "startTime", zone), "startTime")
    end = seconds_since_epoch(data.get("endTime"), "endTime", zone) or start
    first_token = seconds_since_epoch(data.get("completionStartTime"), "completionStartTime", zone)
    metadata = object_of(data.get("metadata"), "metadata")
    usage = _nested(metadata, "usage_object")
    extra = _nested(metadata, "additional_usage_values")
    error = _nested(metadata, "error_information")
    failed = (text(data.get("status")) or text(metadata.get("status")) or "success") != "success"
    provider = text(data.get("custom_llm_provider"))
    model = text(data.get("model"))
    if model and provider and model.startswith(provider + "/"):
        model = model[len(provider) + 1 :]
    call = (text(data.get("call_type")) or "").removeprefix("a") or None
    streamed = first_token is not None and start <= first_token < end
    yield Observation(
        ts=end,
        id="litellm_" + str(required(text(data.get("request_id")), "request_id")),
        key=key_of(metadata.get("user_api_key_alias"), options)
        or _key(data.get("api_key"), options),
        agent=text(data.get("agent_id")) or text(metadata.get("agent_id")),
        project=text(metadata.get("user_api_key_team_alias")) or text(data.get("team_id")),
        user=text(data.get("end_user")) or text(data.get("user")),
        session=text(data.get("session_id")),
        tags=tags_of(_list(data.get("request_tags"))),
        provider=options.provider or _PROVIDERS.get(provider or "", provider) or provider_of(model),
        endpoint=_ENDPOINTS.get(call or "", call),
        model=model,
        status=(whole(error.get("error_code"), "error_code") or None) if failed else 200,
        error_type=(text(error.get("error_class")) or "error") if failed else None,
        input_tokens=whole(data.get("prompt_tokens"), "prompt_tokens"),
        cached_input_tokens=whole(
            _nested(usage, "prompt_tokens_details").get("cached_tokens")
            or extra.get("cache_read_input_tokens"),
            "cached_tokens",
        ),
        cache_write_tokens=whole(
            extra.get("cache_creation_input_tokens"), "cache_creation_input_tokens"
        ),
        output_tokens=whole(data.get("completion_tokens"), "completion_tokens"),
        reasoning_tokens=whole(
            _nested(usage, "completion_tokens_details").get("reasoning_tokens"), "reasoning_tokens"
        ),
        cost_nano_usd=nano_usd(data.get("spend"), "spend"),
        usage_source="reported" if data.get("prompt_tokens") not in (None, "") else "unknown",
        stream=streamed,
        ttft_seconds=first_token - start if first_token is not None and streamed else None,
        latency_seconds=max(0.0, end - start),
        action="allow",
    )


def _key(value: Any, options: Options) -> str | None:
    """LiteLLM stores a SHA-256 of the key; its first 12 digits name it well enough."""
    name = key_of(value, options)
    return f"litellm_{name[:12]}" if name and len(name) == 64 else name


def _nested(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    held = data.get(name)
    return held if isinstance(held, Mapping) else {}


def _list(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return ()
    return value


IMPORTER = Importer("litellm", "LiteLLM spend logs", _recognises, _convert)
