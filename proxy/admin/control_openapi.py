"""What the control routes look like, for the API's own description.

Owns: the paths of `control_routes` and `control_keys` in OpenAPI's words. Must
never: differ from them; a test holds the routes to every word of it.
"""

from __future__ import annotations

from typing import Any

from detection.types import ActionKind, Dimension, Mode
from proxy.admin.openapi import Schema, answer, errors, list_of, path_id, query, shape

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_MAYBE_NUMBER: Schema = {"type": ["number", "null"]}
_MAYBE_TEXT: Schema = {"type": ["string", "null"]}
_MAP: Schema = {"type": "object"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_MODE: Schema = {"type": "string", "enum": [str(mode) for mode in Mode]}
_REASON: Schema = {"type": "string", "maxLength": 500, "description": "Why; for the audit trail."}
_BY_HAND = [str(k) for k in ActionKind if k not in (ActionKind.NOTIFY, ActionKind.WEBHOOK)]


_SERIES = shape("", 2, dimension=_TEXT, value=_TEXT, label=_TEXT)
_ACTION = shape(
    "Action",
    12,
    id=_TEXT,
    kind={"type": "string", "enum": [str(kind) for kind in ActionKind]},
    series=_SERIES,
    since={"type": "number", "description": "Epoch seconds."},
    until={"type": ["number", "null"], "description": "When it ends by itself."},
    mode=_MODE,
    rule=_TEXT,
    signal=_TEXT,
    tier=_TEXT,
    reason=_TEXT,
    origin=_TEXT,
    actor=_TEXT,
    rate_per_second=_MAYBE_NUMBER,
    models={"type": "object", "description": "Model by model, what is used in its place."},
    cut={"type": "boolean", "description": "Whether running streams are cut."},
    incident=_TEXT,
    detail=_MAP,
)
_STANDING = {
    "rule": _TEXT,
    "kind": _TEXT,
    "metric": _TEXT,
    "by": _TEXTS,
    "values": list_of(_MAYBE_TEXT),
    "per": _TEXT,
    "mode": _TEXT,
    "hard": _FLAG,
    "limit": _COUNT,
    "used": _COUNT,
    "reserved": _COUNT,
    "resets_at": _MAYBE_NUMBER,
}
_LIMIT = shape("Limit", len(_STANDING), **_STANDING)
_BUDGET = shape(
    "Budget",
    len(_STANDING) + 5,
    **_STANDING,
    name=_TEXT,
    spent_nano_usd=_COUNT,
    limit_nano_usd=_COUNT,
    spent_last_hour_nano_usd=_COUNT,
    exhausted_at={"type": ["number", "null"], "description": "At the last hour's pace."},
    forecast_nano_usd={"type": "integer", "description": "At its end, at that pace."},
)
_KEY = shape(
    "Key",
    2,
    id=_TEXT,
    key={"type": "string", "description": "Its fingerprint, as usage and incidents name it."},
    issued={"type": "boolean", "description": "Whether the proxy issued it."},
    name=_TEXT,
    owner=_TEXT,
    project=_TEXT,
    models=_TEXTS,
    providers=_TEXTS,
    expires_at=_NUMBER,
    disabled=_FLAG,
    disabled_reason=_TEXT,
)
_NEW_KEY = shape(
    "New key",
    3,
    secret={"type": "string", "description": "Here and nowhere else."},
    **{name: _KEY["properties"][name] for name in ("id", "key", "name", "owner", "project")},
)
_EXPLAINED = shape(
    "",
    5,
    decision={"type": "string", "description": "allow, throttle, block and so on."},
    rule=_TEXT,
    mode=_TEXT,
    estimate=_MAP,
    actions=list_of(_MAP),
    would=_MAYBE_TEXT,
    model=_MAYBE_TEXT,
    message=_MAYBE_TEXT,
    retry_after_seconds=_MAYBE_NUMBER,
    counts=list_of(_MAP),
)
_NEW_ACTION = shape(
    "",
    2,
    kind={"type": "string", "enum": _BY_HAND},
    dimension={"type": "string", "enum": [str(dimension) for dimension in Dimension]},
    value={"type": "string", "maxLength": 512, "description": "Empty for `total` alone."},
    seconds={"type": "number", "exclusiveMinimum": 0, "description": "For ever without."},
    rate_per_second={"type": "number", "exclusiveMinimum": 0, "description": "For a throttle."},
    models={"type": "object", "additionalProperties": _TEXT, "description": "For a downgrade."},
    cut={"type": "boolean", "default": True},
    mode=_MODE,
    reason=_REASON,
    incident={"type": "string", "maxLength": 200},
)
_KEY_ASKED = shape(
    "",
    0,
    name={"type": "string", "maxLength": 128},
    owner={"type": "string", "maxLength": 128},
    project={"type": "string", "maxLength": 128},
    models=_TEXTS,
    providers=_TEXTS,
    limits={"type": "array", "items": _MAP, "description": "As in the section `limits`."},
    budgets={"type": "array", "items": _MAP, "description": "As in the section `budgets`."},
    expires_in_seconds={"type": "number", "exclusiveMinimum": 0},
)


def _operation(
    summary: str,
    given: Schema,
    *statuses: int,
    parameters: list[Schema] | None = None,
    body: Schema | None = None,
    status: str = "200",
) -> Schema:
    found: Schema = {
        "summary": summary,
        "responses": {status: answer(given), **errors(*statuses, 503)},
    }
    if parameters:
        found["parameters"] = parameters
    if body is not None:
        found["requestBody"] = {
            "required": bool(body["required"]),
            "content": {"application/json": {"schema": body}},
        }
    return found


_WHICH_KEY = path_id("Id, name or fingerprint of the key.")
_WHY = shape("", 0, reason=_REASON)

PATHS: dict[str, Any] = {
    "/api/v1/actions": {
        "get": _operation("Actions in force, newest first", shape("", 1, actions=list_of(_ACTION))),
        "post": _operation(
            "Block, throttle, downgrade, disable or cut by hand",
            _ACTION,
            404,
            body=_NEW_ACTION,
            status="201",
        ),
    },
    "/api/v1/actions/{id}": {
        "delete": _operation(
            "Take an action back",
            shape("", 1, released=_ACTION),
            404,
            parameters=[path_id("The action.")],
            body=_WHY,
        ),
    },
    "/api/v1/budgets": {
        "get": _operation(
            "Where budgets and limits stand",
            shape("", 3, budgets=list_of(_BUDGET), limits=list_of(_LIMIT), now=_NUMBER),
        )
    },
    "/api/v1/shadow": {
        "get": _operation(
            "What shadow mode would have done",
            shape(
                "",
                1,
                rows=list_of(
                    shape(
                        "",
                        7,
                        kind=_TEXT,
                        rule=_TEXT,
                        series=_SERIES,
                        calls=_COUNT,
                        cost_nano_usd=_COUNT,
                        at=_NUMBER,
                        latest=list_of({"type": "object", "description": "A call."}),
                    )
                ),
            ),
        )
    },
    "/api/v1/explain": {
        "get": _operation(
            "What would happen to a call now, and by which rule",
            _EXPLAINED,
            404,
            parameters=[
                query("key", _TEXT, "Fingerprint, id, name or alias."),
                query("agent", _TEXT, "Agent."),
                query("model", _TEXT, "Model."),
                query("provider", _TEXT, "Provider."),
                query("project", _TEXT, "Project."),
                query("user", _TEXT, "User."),
                query("session", _TEXT, "Session."),
                query("endpoint", _TEXT, "Endpoint family."),
                query("tags", _TEXT, "name=value, separated by commas."),
                query("max_tokens", _TEXT, "Most output tokens that the call would ask for."),
                query("body_bytes", _TEXT, "Size of the request's body."),
            ],
        ),
    },
    "/api/v1/policy": {
        "get": _operation(
            "The policy in force and the file it came from",
            shape("", 2, text=_TEXT, in_force=_MAP, path=_MAYBE_TEXT, loaded_at=_MAYBE_NUMBER),
            404,
        )
    },
    "/api/v1/policy/check": {
        "post": _operation(
            "The faults of a configuration text",
            shape(
                "",
                1,
                faults=list_of(shape("", 4, line=_COUNT, column=_COUNT, path=_TEXT, message=_TEXT)),
            ),
            404,
            body=shape("", 1, text=_TEXT),
        )
    },
    "/api/v1/audit": {
        "get": _operation(
            "Who did what, newest first",
            shape("", 1, entries=list_of(_MAP)),
            404,
            parameters=[
                query("limit", _TEXT, "Most entries, to 1,000."),
                query("before", _TEXT, "Only before, epoch s."),
            ],
        ),
    },
    "/api/v1/keys": {
        "get": _operation(
            "Keys that the proxy issued, and named or disabled others",
            shape("", 1, keys=list_of(_KEY)),
        ),
        "post": _operation(
            "Issue a key; its secret is in this answer and nowhere else",
            _NEW_KEY,
            404,
            409,
            body=_KEY_ASKED,
            status="201",
        ),
    },
    "/api/v1/keys/{id}": {
        "delete": _operation(
            "Forget a key", shape("", 1, deleted=_TEXT), 404, parameters=[_WHICH_KEY]
        )
    },
    "/api/v1/keys/{id}/disable": {
        "post": _operation(
            "Disable a key everywhere", _KEY, 404, parameters=[_WHICH_KEY], body=_WHY
        )
    },
    "/api/v1/keys/{id}/enable": {
        "post": _operation("Enable a key again", _KEY, 404, parameters=[_WHICH_KEY])
    },
    "/api/v1/keys/{id}/rotate": {
        "post": _operation(
            "A new secret; the old one works on for a while",
            _NEW_KEY,
            404,
            parameters=[_WHICH_KEY],
            body=shape("", 0, overlap_seconds={"type": "number", "minimum": 0}),
        )
    },
    "/api/v1/keys/{id}/expire": {
        "post": _operation(
            "End a key, now or later",
            _KEY,
            404,
            parameters=[_WHICH_KEY],
            body=shape("", 0, in_seconds={"type": "number", "minimum": 0, "default": 0}),
        )
    },
}
