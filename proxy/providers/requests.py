"""From a request's body to its facts.

Owns: decoding JSON and form bodies, whole or cut short, down to the last turn.
Must never: keep the prompt, or take longer than one pass over the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.providers.base import NO_FACTS, Endpoint, RequestFacts
from proxy.providers.edit import form_fields, members
from proxy.providers.family import Family

_SALVAGED = frozenset(
    (
        b"model",
        b"stream",
        b"max_tokens",
        b"max_completion_tokens",
        b"max_output_tokens",
        b"n",
        b"user",
        b"stream_options",
        b"metadata",
        b"service_tier",
    )
)
#: Endpoints that know ``stream_options``, and vendors that don't, or tell their usage unasked.
_ASKABLE = frozenset(("chat_completions", "completions"))
_UNASKED = frozenset(("mistral", "cohere", "perplexity", "pollinations", "huggingface"))
_MAX_SALVAGED_BYTES = 262_144
_NONE: Mapping[str, str] = {}
_new, _set = object.__new__, object.__setattr__


def read_facts(
    family: Family, endpoint: Endpoint, body: bytes, content_type: str, key: bytes
) -> RequestFacts:
    """The facts of one body. May raise on a body that is stranger than JSON can be."""
    if not body:
        return NO_FACTS
    if "multipart/" in content_type:
        return _form_facts(body, endpoint)
    try:
        doc = orjson.loads(body)
        whole = True
    except ValueError:
        doc, whole = _salvage(body), False
    if not isinstance(doc, dict):
        return RequestFacts(body_bytes=len(body))
    read, turn_of = family.facts, family.turn
    found = read(doc)
    turn = turn_of(doc) if whole else None
    if endpoint.name not in _ASKABLE or endpoint.provider in _UNASKED:
        found["include_usage"] = None
    if endpoint.name == "audio_speech" and isinstance(spoken := doc.get("input"), str):
        found["characters"] = len(spoken)
    model = doc["model"] if "model" in doc else doc.get("modelId")
    if endpoint.wire == "gemini" and endpoint.model is not None:
        model = endpoint.model
    found["model"] = model[:256] if isinstance(model, str) else endpoint.model
    found["stream"] = doc.get("stream") is True or endpoint.streams
    found["body_bytes"] = len(body)
    if turn is not None:
        found["fingerprint_kind"] = turn[0]
        found["turn"] = turn, key
    if "metadata" not in found:
        found["metadata"] = _NONE
    # A frozen class's own __init__ sets each field by name, at five times the price.
    facts = _new(RequestFacts)
    _set(facts, "__dict__", found)
    return facts


def _form_facts(body: bytes, endpoint: Endpoint) -> RequestFacts:
    """The short fields of a form: audio and images are uploaded as one."""
    fields = {
        name.decode(): value.decode("utf-8", "replace") for _, name, value in form_fields(body)
    }
    return RequestFacts(
        model=fields.get("model") or endpoint.model,
        stream=fields.get("stream", "").lower() == "true",
        body_bytes=len(body),
        user=fields.get("user"),
    )


def _salvage(body: bytes) -> dict[str, Any]:
    """The short outermost members of a body that is cut short."""
    found: dict[str, Any] = {}
    for member in members(body[:_MAX_SALVAGED_BYTES]):
        if member.name in _SALVAGED and member.end - member.start <= 4096:
            try:
                found[member.name.decode()] = orjson.loads(body[member.start : member.end])
            except ValueError:
                continue
    return found
