"""The API's own description, put together from the route modules.

Owns: the frame (info, security, shared answers). Must never: describe a path
itself; each module describes its own in ``OPENAPI_PATHS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from types import ModuleType
from typing import Any

_ERROR = {
    "description": "What went wrong",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["status", "message"],
                        "properties": {
                            "status": {"type": "integer"},
                            "message": {"type": "string"},
                        },
                    }
                },
            }
        }
    },
}
_EVERYWHERE = {"400": "Bad parameters", "401": "No valid token", "403": "Role too low"}


def document(version: str, modules: Sequence[ModuleType]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of all modules' paths."""
    paths: dict[str, Any] = {}
    for module in modules:
        for path, item in deepcopy(module.OPENAPI_PATHS).items():
            for method, operation in item.items():
                if method in ("get", "post", "put", "patch", "delete"):
                    _complete(operation)
            paths.setdefault(path, {}).update(item)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tokenweir admin API",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"session": []}],
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "tokenweir_session"},
            },
            "responses": {"Error": _ERROR},
        },
        "paths": paths,
    }


def _complete(operation: dict[str, Any]) -> None:
    """Add the answers that the guard gives on every path."""
    responses = operation.setdefault("responses", {})
    if operation.get("security") == []:
        return
    for status in _EVERYWHERE:
        responses.setdefault(status, {"$ref": "#/components/responses/Error"})
