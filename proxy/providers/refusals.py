"""Answers of our own, in each provider's own words.

Owns: the status, headers and body of a refusal, and the event that ends a
running stream, so that each official SDK raises its right exception and does not
retry what can't succeed. Must never: tell more than the refusal holds.

Sources: the vendors' error pages and the SDKs' own handling of them
(``x-should-retry``, ``retry-after-ms`` in openai and anthropic; botocore's
``_retry.json``; google-genai's check for ``{"error":`` at the start of a chunk).
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from proxy.providers.base import Endpoint, Refusal
from proxy.providers.eventstream import encode_message
from proxy.providers.family import Shape

_STATUS = {
    "throttle": 429,
    "budget": 429,
    "anomaly": 429,
    "disabled": 403,
    "forbidden": 403,
    "unavailable": 503,
    "unauthenticated": 401,
    "bad_request": 400,
    "not_found": 404,
    "too_large": 413,
    "overloaded": 503,
    "bad_gateway": 502,
    "timeout": 504,
}
#: Where waiting a little, or another try, can help.
_RETRIABLE = frozenset(("throttle", "unavailable", "overloaded", "bad_gateway", "timeout"))
_MAX_RETRY_AFTER_SECONDS = 60.0

_OPENAI = {
    "throttle": ("requests", "rate_limit_exceeded"),
    "budget": ("insufficient_quota", "insufficient_quota"),
    "anomaly": ("insufficient_quota", "insufficient_quota"),
    "disabled": ("permission_error", "key_disabled"),
    "forbidden": ("permission_error", "forbidden"),
    "unavailable": ("server_error", "service_unavailable"),
    "unauthenticated": ("invalid_request_error", "invalid_api_key"),
    "bad_request": ("invalid_request_error", "bad_request"),
    "not_found": ("invalid_request_error", "not_found"),
    "too_large": ("invalid_request_error", "request_too_large"),
    "overloaded": ("server_error", "overloaded"),
    "bad_gateway": ("server_error", "bad_gateway"),
    "timeout": ("server_error", "timeout"),
}
_ANTHROPIC = {
    "throttle": "rate_limit_error",
    "budget": "billing_error",
    "anomaly": "billing_error",
    "disabled": "permission_error",
    "forbidden": "permission_error",
    "unavailable": "api_error",
    "unauthenticated": "authentication_error",
    "bad_request": "invalid_request_error",
    "not_found": "not_found_error",
    "too_large": "request_too_large",
    "overloaded": "overloaded_error",
    "bad_gateway": "api_error",
    "timeout": "timeout_error",
}
_GOOGLE = {
    "throttle": "RESOURCE_EXHAUSTED",
    "budget": "RESOURCE_EXHAUSTED",
    "anomaly": "RESOURCE_EXHAUSTED",
    "disabled": "PERMISSION_DENIED",
    "forbidden": "PERMISSION_DENIED",
    "unavailable": "UNAVAILABLE",
    "unauthenticated": "UNAUTHENTICATED",
    "bad_request": "INVALID_ARGUMENT",
    "not_found": "NOT_FOUND",
    "too_large": "INVALID_ARGUMENT",
    "overloaded": "UNAVAILABLE",
    "bad_gateway": "INTERNAL",
    "timeout": "DEADLINE_EXCEEDED",
}
_MISTRAL = {
    "throttle": ("rate_limited", "1300"),
    "budget": ("insufficient_quota", "1300"),
    "anomaly": ("insufficient_quota", "1300"),
    "disabled": ("unauthorized", "1200"),
    "forbidden": ("unauthorized", "1200"),
    "unauthenticated": ("unauthorized", "1200"),
    "not_found": ("invalid_model", "1500"),
    "bad_request": ("invalid_request_error", "1400"),
    "too_large": ("invalid_request_error", "1400"),
}
_BEDROCK = {
    "throttle": "ThrottlingException",
    "budget": "ServiceQuotaExceededException",
    "anomaly": "ServiceQuotaExceededException",
    "disabled": "AccessDeniedException",
    "forbidden": "AccessDeniedException",
    "unavailable": "ServiceUnavailableException",
    "unauthenticated": "AccessDeniedException",
    "bad_request": "ValidationException",
    "not_found": "ResourceNotFoundException",
    "too_large": "ValidationException",
    "overloaded": "ServiceUnavailableException",
    "bad_gateway": "InternalServerException",
    "timeout": "ModelTimeoutException",
}
#: The exceptions that a Bedrock stream may carry
#: (ResponseStream in the Bedrock Runtime API reference).
_BEDROCK_STREAM = {
    "ThrottlingException": "throttlingException",
    "ServiceUnavailableException": "serviceUnavailableException",
    "InternalServerException": "internalServerException",
    "ModelTimeoutException": "modelStreamErrorException",
}


def status_of(refusal: Refusal) -> int:
    """The HTTP status of a kind of refusal."""
    return _STATUS.get(refusal.kind, 500)


def wait_seconds(refusal: Refusal) -> float | None:
    """How long to tell the client to wait; a client may sleep for whatever we say."""
    seconds = refusal.retry_after_seconds
    if seconds is None or refusal.kind not in _RETRIABLE or not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)


def details(refusal: Refusal) -> dict[str, Any]:
    """What was hit, for programs: only what is known."""
    found: dict[str, Any] = {"kind": refusal.kind}
    for name in ("scope", "rule", "limit", "spent", "reset_at", "incident", "link"):
        value = getattr(refusal, name)
        if value not in ("", None):
            found[name] = value
    return found


def _shape(refusal: Refusal, body: Any, *extra: tuple[str, str], status: int = 0) -> Shape:
    headers = [("content-type", "application/json")]
    seconds = wait_seconds(refusal)
    if seconds is not None:
        headers.append(("retry-after", str(max(1, math.ceil(seconds)))))
        headers.append(("retry-after-ms", str(max(1, math.ceil(seconds * 1000)))))
    if refusal.kind not in _RETRIABLE:
        headers.append(("x-should-retry", "false"))
    headers.append(("x-tokenweir-refusal", refusal.kind))
    headers += extra
    return Shape(status or status_of(refusal), tuple(headers), orjson.dumps(body))


def _openai_error(refusal: Refusal) -> dict[str, Any]:
    kind, code = _OPENAI.get(refusal.kind, ("server_error", refusal.kind))
    return {
        "message": refusal.message,
        "type": kind,
        "param": None,
        "code": code,
        "tokenweir": details(refusal),
    }


def openai_refusal(refusal: Refusal) -> Shape:
    """``{"error": {message, type, param, code}}``."""
    return _shape(refusal, {"error": _openai_error(refusal)})


def openai_stream_error(endpoint: Endpoint, refusal: Refusal) -> bytes:
    """A data object with ``error``; for Responses the same in an ``error`` event."""
    error = _openai_error(refusal)
    if endpoint.name.startswith("responses"):
        event = {
            "type": "error",
            "code": error["code"],
            "message": refusal.message,
            "param": None,
            "sequence_number": 0,
            "error": error,
        }
        return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def azure_refusal(refusal: Refusal) -> Shape:
    """As OpenAI's; Azure writes the status or a word of its own into ``code``."""
    error = _openai_error(refusal)
    if error["code"] == "rate_limit_exceeded":
        error["code"] = "429"
    return _shape(refusal, {"error": error})


def _anthropic_error(refusal: Refusal) -> dict[str, Any]:
    return {
        "type": "error",
        "error": {
            "type": _ANTHROPIC.get(refusal.kind, "api_error"),
            "message": refusal.message,
            "tokenweir": details(refusal),
        },
    }


def anthropic_refusal(refusal: Refusal) -> Shape:
    """``{"type": "error", "error": {type, message}}``; overload is 529 there."""
    status = 529 if refusal.kind == "overloaded" else 0
    return _shape(refusal, _anthropic_error(refusal), status=status)


def anthropic_stream_error(endpoint: Endpoint, refusal: Refusal) -> bytes:
    """``event: error``, which the SDK raises on."""
    return b"event: error\ndata: " + orjson.dumps(_anthropic_error(refusal)) + b"\n\n"


def _google_error(refusal: Refusal) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": refusal.kind.upper(),
            "domain": "tokenweir",
            "metadata": {k: str(v) for k, v in details(refusal).items()},
        }
    ]
    seconds = wait_seconds(refusal)
    if seconds is not None:
        found.append(
            {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{seconds:g}s",
            }
        )
    return {
        "error": {
            "code": status_of(refusal),
            "message": refusal.message,
            "status": _GOOGLE.get(refusal.kind, "INTERNAL"),
            "details": found,
        }
    }


def google_refusal(refusal: Refusal) -> Shape:
    """``google.rpc.Status`` as JSON."""
    return _shape(refusal, _google_error(refusal))


def google_stream_error(endpoint: Endpoint, refusal: Refusal) -> bytes:
    """An event, or the last element of the array, with ``error`` first."""
    body = orjson.dumps(_google_error(refusal))
    if endpoint.framing == "json-array":
        return b"," + body + b"]"
    return b"data: " + body + b"\r\n\r\n"


def _mistral_error(refusal: Refusal) -> dict[str, Any]:
    kind, code = _MISTRAL.get(refusal.kind, ("internal_server_error", "1000"))
    return {
        "object": "error",
        "message": refusal.message,
        "type": kind,
        "param": None,
        "code": code,
        "raw_status_code": status_of(refusal),
        "tokenweir": details(refusal),
    }


def mistral_refusal(refusal: Refusal) -> Shape:
    """``{"object": "error", message, type, param, code}``."""
    return _shape(refusal, _mistral_error(refusal))


def mistral_stream_error(endpoint: Endpoint, refusal: Refusal) -> bytes:
    """An event that is no chunk: the SDK refuses it with an exception."""
    return b"data: " + orjson.dumps(_mistral_error(refusal)) + b"\n\n"


def bedrock_refusal(refusal: Refusal) -> Shape:
    """``x-amzn-errortype`` and ``{"message": …}``.

    botocore retries every 429 whatever its type, so what must not be retried
    goes out with the 400 that AWS documents for ServiceQuotaExceededException.
    """
    kind = _BEDROCK.get(refusal.kind, "InternalServerException")
    status = 400 if kind == "ServiceQuotaExceededException" else 0
    if refusal.kind == "unauthenticated":
        status = 403
    body = {"message": refusal.message, "tokenweir": details(refusal)}
    return _shape(refusal, body, ("x-amzn-errortype", kind), status=status)


def bedrock_stream_error(endpoint: Endpoint, refusal: Refusal) -> bytes:
    """An exception message in the event stream."""
    kind = _BEDROCK.get(refusal.kind, "InternalServerException")
    name = _BEDROCK_STREAM.get(kind, "validationException")
    return encode_message(
        (
            (":exception-type", name),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ),
        {"message": refusal.message},
    )


def cohere_refusal(refusal: Refusal) -> Shape:
    """``{"message": …}``."""
    return _shape(refusal, {"message": refusal.message, "tokenweir": details(refusal)})


def cohere_stream_error(endpoint: Endpoint, refusal: Refusal) -> bytes:
    """The end of the message, with the finish reason ``ERROR``."""
    if endpoint.name == "cohere_chat_v1":
        event = {
            "is_finished": True,
            "event_type": "stream-end",
            "finish_reason": "ERROR",
            "response": {"text": "", "finish_reason": "ERROR"},
            "error": refusal.message,
        }
        return orjson.dumps(event) + b"\n"
    event = {
        "type": "message-end",
        "delta": {"finish_reason": "ERROR", "error": refusal.message},
    }
    return b"event: message-end\ndata: " + orjson.dumps(event) + b"\n\n"


def ollama_refusal(refusal: Refusal) -> Shape:
    """``{"error": "…"}``."""
    return _shape(refusal, {"error": refusal.message, "tokenweir": details(refusal)})


def ollama_stream_error(endpoint: Endpoint, refusal: Refusal) -> bytes:
    """A line with ``error``."""
    return orjson.dumps({"error": refusal.message}) + b"\n"
