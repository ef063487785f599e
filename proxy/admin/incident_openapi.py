"""How the incident routes look from outside: their part of the OpenAPI document.

Owns: that description. Must never: promise what :mod:`proxy.admin.incident_routes`
doesn't do.
"""

from __future__ import annotations

from typing import Any

from detection.types import Signal
from proxy.admin.openapi import answer, errors, path_id, query

_TIERS = ["info", "warning", "critical", "emergency"]
_STATES = ["open", "escalated", "acknowledged", "resolved", "dismissed"]
_NULLABLE_NUMBER = {"type": ["number", "null"]}
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}

_INCIDENT: dict[str, Any] = {
    "title": "Incident",
    "type": "object",
    "required": ["id", "fingerprint", "series", "signal", "state", "tier", "worst", "opened_at"],
    "properties": {
        "id": _TEXT,
        "fingerprint": {"type": "string", "description": "Signal family : dimension : value."},
        "series": {
            "type": "object",
            "required": ["dimension", "value"],
            "properties": {"dimension": _TEXT, "value": _TEXT},
        },
        "signal": {"type": "string", "enum": [str(signal) for signal in Signal]},
        "signals": {**_TEXTS, "description": "All that were seen, of one family."},
        "state": {"type": "string", "enum": _STATES},
        "tier": {
            "type": "string",
            "enum": ["none", *_TIERS],
            "description": "Of the signals that stand now.",
        },
        "worst": {"type": "string", "enum": _TIERS, "description": "The worst it ever was."},
        "opened_at": {"type": "number", "description": "Epoch seconds."},
        "since": {"type": "number", "description": "When the change began, epoch seconds."},
        "observed": {"type": "number", "description": "In the signal's own unit."},
        "baseline": _NULLABLE_NUMBER,
        "ratio": _NULLABLE_NUMBER,
        "projects": {
            **_TEXTS,
            "description": "Whose readers may see it; all-seeing ones alone where it is empty.",
        },
        "story": {"type": "string", "description": "What likely happened, in a sentence."},
        "next_step": _TEXT,
        "explanation": {
            "type": ["object", "null"],
            "description": "The root cause: since, baseline, current, change_percent, kind, top, "
            "contributors by dimension with their share of the change, split_nano_usd "
            "(volume, mix, tokens, price).",
        },
        "cost_nano_usd": {"type": "integer", "description": "So far, of all replicas."},
        "cost_per_hour_nano_usd": {"type": "integer", "description": "If it goes on."},
        "actions": {"type": "array", "items": {"type": "object"}, "description": "What was done."},
        "timeline": {
            "type": "array",
            "items": {"type": "object"},
            "description": "ts, kind, text, actor.",
        },
        "acknowledged_by": _TEXT,
        "closed_at": _NULLABLE_NUMBER,
        "resolution": _TEXT,
        "root_cause": _TEXT,
    },
}
_SILENCE: dict[str, Any] = {
    "title": "Silence",
    "type": "object",
    "required": ["id", "kind", "matchers", "starts_at", "ends_at"],
    "properties": {
        "id": _TEXT,
        "kind": {"type": "string", "enum": ["silence", "maintenance"]},
        "matchers": _TEXTS,
        "starts_at": {"type": "number"},
        "ends_at": {"type": "number"},
        "comment": _TEXT,
        "created_by": _TEXT,
        "project": {"type": ["string", "null"]},
        "active": {"type": "boolean"},
    },
}


def _body(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"required": False, "content": {"application/json": {"schema": schema}}}


def _verdict(summary: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "parameters": [path_id("The incident's id.")],
            "requestBody": _body(properties),
            "responses": {
                "200": answer(_INCIDENT),
                **errors(404, 409, 413, 503),
            },
        }
    }


_LONG = {"type": "string", "maxLength": 1_000}
_CLOSE = {"resolution": _LONG, "root_cause": _LONG, "note": _LONG}


def _silences(name: str, what: str) -> dict[str, Any]:
    listed = {
        "type": "object",
        "required": ["now", name],
        "properties": {"now": {"type": "number"}, name: {"type": "array", "items": _SILENCE}},
    }
    asked = {
        "matchers": _TEXTS,
        "starts_at": {"type": "number", "minimum": 0, "description": "Epoch seconds; now without."},
        "ends_at": {"type": "number", "minimum": 0},
        "seconds": {"type": "number", "minimum": 1, "description": "In place of ends_at."},
        "comment": _LONG,
        "project": {"type": "string", "description": "Only incidents of this project."},
    }
    return {
        "get": {
            "summary": f"List {what}s of the last month and to come",
            "responses": {
                "200": answer(listed),
                **errors(503),
            },
        },
        "post": {
            "summary": f"Add a {what}",
            "requestBody": _body(asked),
            "responses": {
                "201": answer(_SILENCE, "Made"),
                **errors(404, 413, 503),
            },
        },
    }


def _end(what: str) -> dict[str, Any]:
    return {
        "delete": {
            "summary": f"End a {what} now",
            "parameters": [path_id(f"The {what}'s id.")],
            "responses": {
                "200": answer(_SILENCE),
                **errors(404, 503),
            },
        }
    }


_LIST = {
    "type": "object",
    "required": ["now", "incidents"],
    "properties": {
        "now": {"type": "number"},
        "incidents": {"type": "array", "items": _INCIDENT},
    },
}
_OUTBOX = {
    "type": "object",
    "required": ["waiting", "dead"],
    "properties": {
        "waiting": {"type": "integer"},
        "dead": {"type": "array", "items": {"type": "object"}},
    },
}

OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/incidents": {
        "get": {
            "summary": "List and search incidents, newest first",
            "parameters": [
                query(
                    "state",
                    {"type": "string", "enum": ["active", "closed", "all"], "default": "active"},
                    "Which ones.",
                ),
                query(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100},
                    "At most so many.",
                ),
                query("since", {"type": "number", "minimum": 0}, "Opened from here, epoch s."),
                query("until", {"type": "number", "minimum": 0}, "Opened until here, epoch s."),
                query("tier", {"type": "string", "enum": _TIERS}, "Of this tier or worse."),
                query("signal", _TEXT, "Of this signal."),
                query("project", _TEXT, "Of this project."),
                query("q", _TEXT, "Text in story, scope, resolution or cause."),
                query(
                    "format",
                    {"type": "string", "enum": ["json", "csv", "parquet"], "default": "json"},
                    "Form of the answer.",
                ),
            ],
            "responses": {
                "200": answer(_LIST, tabular=True),
                **errors(503),
            },
        }
    },
    "/api/v1/incidents/{id}": {
        "get": {
            "summary": "One incident with its root cause and timeline",
            "parameters": [path_id("The incident's id.")],
            "responses": {
                "200": answer(_INCIDENT),
                **errors(404, 503),
            },
        }
    },
    "/api/v1/incidents/{id}/acknowledge": _verdict("Take an incident in hand", {"note": _LONG}),
    "/api/v1/incidents/{id}/resolve": _verdict("Say that an incident is over, and why", _CLOSE),
    "/api/v1/incidents/{id}/dismiss": _verdict("Say that it was a false alarm", _CLOSE),
    "/api/v1/silences": _silences("silences", "silence"),
    "/api/v1/silences/{id}": _end("silence"),
    "/api/v1/maintenance": _silences("windows", "maintenance window"),
    "/api/v1/maintenance/{id}": _end("maintenance window"),
    "/api/v1/outbox": {
        "get": {
            "summary": "Alerts that wait and those that could not be delivered",
            "responses": {
                "200": answer(_OUTBOX),
                **errors(404, 503),
            },
        }
    },
    "/api/v1/outbox/{id}/replay": {
        "post": {
            "summary": "Send a dead letter again",
            "parameters": [path_id("The message's id.")],
            "responses": {
                "200": answer({"type": "object"}),
                **errors(404, 503),
            },
        }
    },
}
