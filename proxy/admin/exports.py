"""Every list of the API as CSV or Parquet: ``?format=csv`` on its own address.

Owns: which answers hold which tables. Must never: read a row that the answer itself
does not hold, so that what a caller may not see can't be exported either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.admin.tables import FORMATS, table_response

Rows = list[dict[str, Any]]


def _listed(name: str) -> Callable[[Any], Rows]:
    return lambda answer: [flat(row) for row in answer[name]]


def _contributors(incident: Any) -> Rows:
    found = (incident.get("explanation") or {}).get("contributors") or {}
    return [flat(row) for rows in found.values() for row in rows]


def _shadowed_calls(answer: Any) -> Rows:
    return [
        {"kind": row["kind"], "rule": row["rule"], **call}
        for row in answer["rows"]
        for call in row["latest"]
    ]


def _tried(name: str) -> Callable[[Any], Rows]:
    """A table of a trial's result, empty while it runs."""
    return lambda answer: ((answer["result"] or {}).get("then") or {}).get(name, [])


def _policies(answer: Any) -> Rows:
    found: Rows = answer["in_force"]["policies"]["rules"]
    return found


def _curve(answer: Any) -> Rows:
    columns = {name: column for name, column in answer["curve"].items() if name != "step_seconds"}
    times = columns.pop("times")
    return [
        {"at": at} | {name: column[place] for name, column in columns.items()}
        for place, at in enumerate(times)
    ]


#: Address -> table -> how to take it out of the answer; the first is meant without ``table``.
EXPORTS: dict[str, dict[str, Callable[[Any], Rows]]] = {
    "/api/v1/actions": {"actions": _listed("actions")},
    "/api/v1/audit": {"audit": _listed("entries")},
    "/api/v1/budgets": {"budgets": _listed("budgets"), "limits": _listed("limits")},
    "/api/v1/health": {"health": _listed("components")},
    "/api/v1/incidents/{id}": {"contributors": _contributors, "timeline": _listed("timeline")},
    "/api/v1/keys": {"keys": _listed("keys")},
    "/api/v1/maintenance": {"maintenance": _listed("windows")},
    "/api/v1/overview": {"curve": _curve},
    "/api/v1/policy": {"policies": _policies},
    "/api/v1/policy/trials/{id}": {"rules": _tried("rules"), "refused": _tried("samples")},
    "/api/v1/shadow": {"shadow": _listed("rows"), "calls": _shadowed_calls},
    "/api/v1/silences": {"silences": _listed("silences")},
}


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A series within a row as two columns; other nested values stay.

    >>> flat({"id": 1, "series": {"dimension": "key", "value": "k"}})
    {'id': 1, 'dimension': 'key', 'value': 'k'}
    """
    found = dict(row)
    series = found.pop("series", None)
    return found | series if isinstance(series, dict) else found


@web.middleware
async def export(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns a JSON answer into the form that ``format`` asks for."""
    form = request.query.get("format", "json")
    resource = request.match_info.route.resource
    tables = EXPORTS.get(resource.canonical) if resource is not None else None
    if tables is None or form == "json" or request.method != "GET":
        return await handler(request)
    if form not in FORMATS:
        raise web.HTTPBadRequest(text=f"format must be one of {', '.join(FORMATS)}")
    name = request.query.get("table", next(iter(tables)))
    if name not in tables:
        raise web.HTTPBadRequest(text=f"table must be one of {', '.join(tables)}")
    response = await handler(request)
    body = response.body if isinstance(response, web.Response) else None
    if response.status != 200 or not isinstance(body, bytes):
        return response

    def take_out() -> web.Response:
        return table_response(request, name, tables[name](orjson.loads(body)), {})

    return await asyncio.to_thread(take_out)
