"""What the control routes look like, for the API's own description.

Owns: the paths of `control_routes` and `control_keys` in OpenAPI's words. Must
never: differ from them; a test compares the two.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}


def _path_id(what: str) -> dict[str, Any]:
    return {"name": "id", "in": "path", "required": True, "description": what, "schema": _TEXT}


def _queries(**names: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "description": text, "schema": _TEXT}
        for name, text in names.items()
    ]


def _body(schema: str) -> dict[str, Any]:
    return {
        "required": False,
        "content": {"application/json": {"schema": {"type": "object", "description": schema}}},
    }


def _operation(
    summary: str,
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: str = "",
    status: str = "200",
) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": summary, "responses": {status: {"description": summary}}}
    if parameters:
        found["parameters"] = parameters
    if body:
        found["requestBody"] = _body(body)
    return found


_KEY = _path_id("Id, name or fingerprint of the key")
_WHY = "reason"

PATHS: dict[str, Any] = {
    "/api/v1/actions": {
        "get": _operation("Actions in force, newest first"),
        "post": _operation(
            "Block, throttle, downgrade, disable or cut by hand",
            body="kind, dimension, value, seconds, rate_per_second, models, cut, mode, reason",
            status="201",
        ),
    },
    "/api/v1/actions/{id}": {
        "delete": _operation("Take an action back", parameters=[_path_id("The action")], body=_WHY),
    },
    "/api/v1/budgets": {"get": _operation("Where budgets and limits stand")},
    "/api/v1/shadow": {"get": _operation("What shadow mode would have done")},
    "/api/v1/explain": {
        "get": _operation(
            "What would happen to a call now, and by which rule",
            parameters=_queries(
                key="Fingerprint, id, name or alias",
                agent="Agent",
                model="Model",
                provider="Provider",
                project="Project",
                user="User",
                session="Session",
                endpoint="Endpoint family",
                tags="name=value, separated by commas",
                max_tokens="Most output tokens that the call would ask for",
                body_bytes="Size of the request's body",
            ),
        ),
    },
    "/api/v1/policy": {"get": _operation("The policy in force and the file it came from")},
    "/api/v1/policy/check": {
        "post": _operation("The faults of a configuration text", body="text"),
    },
    "/api/v1/audit": {
        "get": _operation(
            "Who did what, newest first",
            parameters=_queries(limit="Most entries", before="Only before, epoch seconds"),
        ),
    },
    "/api/v1/keys": {
        "get": _operation("Keys that the proxy issued, and named or disabled others"),
        "post": _operation(
            "Issue a key; its secret is in this answer and nowhere else",
            body="name, owner, project, models, providers, limits, budgets, expires_in_seconds",
            status="201",
        ),
    },
    "/api/v1/keys/{id}": {"delete": _operation("Forget a key", parameters=[_KEY])},
    "/api/v1/keys/{id}/disable": {
        "post": _operation("Disable a key everywhere", parameters=[_KEY], body=_WHY)
    },
    "/api/v1/keys/{id}/enable": {
        "post": _operation("Enable a key again", parameters=[_KEY], body=_WHY)
    },
    "/api/v1/keys/{id}/rotate": {
        "post": _operation("A new secret", parameters=[_KEY], body="overlap_seconds")
    },
    "/api/v1/keys/{id}/expire": {
        "post": _operation("End a key", parameters=[_KEY], body="in_seconds")
    },
}
