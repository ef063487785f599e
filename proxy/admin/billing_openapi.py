"""How the billing routes look from outside: their part of the OpenAPI document.

Owns: that description. Must never: promise what :mod:`proxy.admin.billing_routes`
doesn't do.
"""

from __future__ import annotations

from typing import Any

from proxy.admin.openapi import answer, errors, query

_NUMBER, _INTEGER, _TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
_DAY = {
    "date": {"type": "string", "format": "date"},
    "total_cost_usd": _NUMBER,
    "total_tokens": _INTEGER,
    "llm_calls": _INTEGER,
}
_ANOMALY = {
    **_DAY,
    "expected_range": {
        "type": "object",
        "required": ["min", "max"],
        "properties": {"min": _NUMBER, "max": _NUMBER},
    },
    "spike_ratio": _NUMBER,
    "severity": {"type": "string", "enum": ["high", "medium", "low"]},
    "deviation_from_mean": _NUMBER,
    "std_deviations": _NUMBER,
}
_SUMMARY = {
    "avg_daily_usage": _NUMBER,
    "std_daily_usage": _NUMBER,
    "threshold": _NUMBER,
    "total_days_analyzed": _INTEGER,
    "days_with_data": _INTEGER,
    "sensitivity": _TEXT,
    "sigma_level": _NUMBER,
}


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    wanted = list(properties) if required is None else required
    return {"type": "object", "required": wanted, "properties": properties}


def _list(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _object(properties)}


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"200": answer(schema), **errors(404, 503)}


_SCOPE = [
    query("project", _TEXT, "Only this project; all that the token may see without."),
    query("dimension", _TEXT, "Another dimension, for tokens that see all projects."),
    query("value", _TEXT, "The dimension's value."),
]
_SPAN = query(
    "days",
    {"type": "integer", "minimum": 7, "maximum": 90, "default": 30},
    "Days looked at, today included.",
)
_SENSITIVITY = query(
    "sensitivity",
    {
        "anyOf": [
            {"type": "string", "enum": ["high", "medium", "low"]},
            {"type": "number", "minimum": 1.5, "maximum": 5},
        ],
        "default": "medium",
    },
    "high, medium, low for 2, 3, 4 standard deviations, or their number.",
)

_FORECAST = {
    "type": ["object", "null"],
    "properties": {
        "spent": _INTEGER,
        "expected": _INTEGER,
        "low": _INTEGER,
        "high": _INTEGER,
        "per_day": _INTEGER,
        "period_end": _NUMBER,
        "days_of_history": _NUMBER,
        "budget": {"type": ["integer", "null"]},
        "exhausted_at": {"type": ["number", "null"]},
    },
}

OPENAPI_PATHS: dict[str, Any] = {
    "/billing/anomalies": {
        "get": {
            "summary": "Days whose spend stands out",
            "parameters": [_SPAN, _SENSITIVITY, *_SCOPE],
            "responses": _answer(
                _object(
                    {
                        "anomalies": _list(_ANOMALY),
                        **_SUMMARY,
                        "error": {"type": "string", "enum": ["insufficient_data"]},
                        "message": _TEXT,
                    },
                    ["anomalies", *_SUMMARY],
                )
            ),
        }
    },
    "/billing/anomalies/trends": {
        "get": {
            "summary": "Spend by day and its trend",
            "parameters": [_SPAN, *_SCOPE],
            "responses": _answer(
                _object(
                    {
                        "daily_usage": _list(_DAY),
                        "trend_percent": {"type": ["number", "null"]},
                        "days_analyzed": _INTEGER,
                    }
                )
            ),
        }
    },
    "/api/v1/forecast": {
        "get": {
            "summary": "Spend to the end of the month, nano-USD, with an 80 % interval",
            "parameters": [
                query(
                    "budget_usd",
                    {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000_000},
                    "Tells when this budget would be gone.",
                ),
                *_SCOPE,
            ],
            "responses": _answer(
                _object(
                    {
                        "now": _NUMBER,
                        "period_start": _NUMBER,
                        "state": {"type": "string", "enum": ["learning", "ready"]},
                        "forecast": _FORECAST,
                    }
                )
            ),
        }
    },
}
