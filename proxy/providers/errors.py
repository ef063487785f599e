"""Errors, in any of the shapes that vendors give them.

Owns: finding the error in a decoded document. Must never: take a healthy answer for
an error, or keep more than 200 characters of a message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from detection.types import CallError


def read_error(doc: Any, status: int) -> CallError | None:
    """The error in a document, in any of the shapes that vendors use."""
    if isinstance(doc, list):
        doc = next((d for d in doc if isinstance(d, dict)), None)
    if not isinstance(doc, dict):
        return CallError(message=_message(doc)) if status >= 400 else None
    error = doc.get("error")
    if isinstance(error, dict) and error:
        return _error_object(error)
    if isinstance(error, str) and error:
        return CallError(
            type=_word(doc.get("error_type") or doc.get("type")),
            code=_word(doc.get("code")),
            message=error[:200],
        )
    if isinstance(error, list) and error:
        return CallError(message=_message(error[0]))
    errors = doc.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return _error_object(errors[0])
    if isinstance(errors, list) and errors and isinstance(errors[0], str):
        return CallError(message=_message(errors[0]))
    if status < 400 and not (doc.get("object") == "error" or doc.get("type") == "error"):
        return None
    if status < 400 and "message" not in doc:
        return None
    message = doc.get("message") or doc.get("Message") or doc.get("detail") or doc.get("msg")
    return CallError(
        type=_word(doc.get("type") or doc.get("__type")),
        code=_word(doc.get("code")),
        message=_message(message),
    )


def _error_object(error: Mapping[str, Any]) -> CallError:
    kind = error.get("type")
    if kind is None and isinstance(error.get("status"), str):
        kind = error["status"]
    return CallError(
        type=_word(kind),
        code=_word(error.get("code")),
        message=_message(error.get("message") or error.get("detail")),
    )


def _message(value: object) -> str | None:
    if isinstance(value, str):
        return value[:200]
    return None if value is None else json.dumps(value)[:200]


def _word(value: object) -> str | None:
    if isinstance(value, str):
        return value[:128] or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None
