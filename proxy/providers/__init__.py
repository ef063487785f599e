"""Every provider's wire format: the registry, and the one way in.

Owns: the list of families and the functions that the rest of the proxy calls.
Must never: await, raise on what a client or a provider sends, or touch a socket.

A new family is one file with a ``FAMILY``, one line in ``FAMILIES``, and one
folder of fixtures under ``tests/wire/fixtures``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from urllib.parse import unquote

from proxy.providers import (
    anthropic,
    azure,
    bedrock,
    cohere,
    gemini,
    hosted,
    mistral,
    ollama,
    openai,
    responses,
)
from proxy.providers.base import (
    NO_FACTS,
    Endpoint,
    Headers,
    Refusal,
    RefusalResponse,
    RequestFacts,
    UsageParser,
)
from proxy.providers.decode import unfolded
from proxy.providers.edit import UsageChunkFilter, ask_for_usage, replace_model
from proxy.providers.estimate import estimate_usage, normalised_finish
from proxy.providers.family import Family, SessionParser
from proxy.providers.limits import RateLimit, rate_limits, retry_after
from proxy.providers.reading import BodyParser
from proxy.providers.realtime import Session
from proxy.providers.requests import read_facts
from proxy.providers.turns import name_turn
from proxy.providers.vendors import provider_of

#: In the order in which their path rules are tried.
FAMILIES: dict[str, Family] = {
    family.wire: family
    for family in (
        bedrock.FAMILY,
        gemini.FAMILY,
        anthropic.FAMILY,
        cohere.FAMILY,
        hosted.FAMILY,
        ollama.FAMILY,
        azure.FAMILY,
        mistral.FAMILY,
        responses.FAMILY,
        openai.FAMILY,
    )
}
_DEFAULT = openai.FAMILY
#: Of a compressed request, so much is read at most.
_MOST_REQUEST_BYTES = 16_777_216
#: Names of upstreams' formats that are another family's.
_SPOKEN = {**FAMILIES, "vertex": gemini.FAMILY}

__all__ = [
    "FAMILIES",
    "RateLimit",
    "SessionParser",
    "UsageChunkFilter",
    "ask_for_usage",
    "estimate_usage",
    "name_turn",
    "normalised_finish",
    "provider_of",
    "rate_limits",
    "read_request",
    "recognise",
    "refusal",
    "replace_model",
    "response_parser",
    "retry_after",
    "stream_error",
    "websocket_parser",
]


def recognise(
    provider: str, wire: str, method: str, path: str, query: str, headers: Headers
) -> Endpoint:
    """What a call is, from its head alone.

    Parameters
    ----------
    provider, wire : str
        The vendor, and the wire format that its upstream was configured with.
    path, query : str
        Raw, as on the wire, without the upstream's own prefix; query without ``?``.
    headers : Headers
        Lower-case names.

    An unknown path gives the name ``unknown``, which is still metered: if its
    answer carries a usage object, it counts.
    """
    found = _recognise(provider, wire, method, path, "alt=sse" in query)
    if query and found.name == "realtime_ws" and found.model is None:
        # A session has no request body: its model stands in the query.
        for member in query.split("&"):
            name, _, value = member.partition("=")
            if name in ("model", "deployment") and value:
                return replace(found, model=unquote(value)[:256])
    return found


@lru_cache(maxsize=4096)
def _recognise(provider: str, wire: str, method: str, path: str, sse: bool) -> Endpoint:
    path = path.rstrip("/") or path
    for family in FAMILIES.values():
        for rule in family.rules:
            if rule.providers and provider not in rule.providers:
                continue
            if rule.methods and method not in rule.methods:
                continue
            found = rule.path.search(path)
            if found is None:
                continue
            model = found.groupdict().get("model")
            if model is not None:
                model = unquote(model)
            return Endpoint(
                provider=provider,
                wire=family.wire,
                name=rule.endpoint,
                model=model,
                metered=rule.metered,
                streams=rule.streams,
                framing="json-array" if rule.streams and family.array_streams and not sse else "",
            )
    return Endpoint(provider=provider, wire=wire or _DEFAULT.wire, name="unknown")


def _family(wire: str) -> Family:
    return _SPOKEN.get(wire, _DEFAULT)


def read_request(
    endpoint: Endpoint, body: bytes, content_type: str, key: bytes, encoding: str = ""
) -> RequestFacts:
    """What a request's body says; :data:`NO_FACTS` where it says nothing.

    ``body`` may be truncated or invalid. ``key`` keys the fingerprint's hash, which
    :func:`name_turn` makes. A body with
    a content ``encoding`` is read, but no stream can be asked for its usage in it.
    """
    try:
        family = _family(endpoint.wire)
        if encoding:
            body = unfolded(body, encoding, _MOST_REQUEST_BYTES)
            facts = read_facts(family, endpoint, body, content_type, key)
            return replace(facts, include_usage=None)
        return read_facts(family, endpoint, body, content_type, key)
    except Exception:
        # A body that breaks the reader must not break the call: it is only not understood.
        return NO_FACTS


def response_parser(
    endpoint: Endpoint, facts: RequestFacts, status: int, headers: Headers
) -> UsageParser:
    """The parser of one response body."""
    reader = _family(endpoint.wire).reader
    return BodyParser(reader(endpoint, facts), status, headers)


def websocket_parser(endpoint: Endpoint, headers: Headers) -> SessionParser:
    """The parser of a WebSocket session; ``headers`` are those of the 101 answer."""
    return Session(endpoint, headers)


def refusal(wire: str, refused: Refusal) -> RefusalResponse:
    """A refusal in the words of a wire family (OpenAI's for an unknown one)."""
    return _family(wire).refusal(refused)


def stream_error(wire: str, endpoint: Endpoint, refused: Refusal) -> bytes:
    """The event that ends a running stream with the provider's own error."""
    return _family(wire).stream_error(endpoint, refused)
