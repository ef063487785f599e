"""``GET /api/v1/usage``: what was used, by whom, fleet-wide.

Owns: that answer. Must never: show a project-scoped caller more than its
projects, or say whether another one exists.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from detection.types import Dimension
from proxy.admin.deps import AdminDeps
from proxy.admin.guard import json_response
from proxy.admin.openapi import answer, errors, list_of, shape
from proxy.admin.principal import principal_of, require_all_projects
from proxy.admin.reader import window_of
from proxy.admin.rollups import WINDOWS
from proxy.admin.tables import FORMATS, table_response

#: Dimensions that the store counts.
COUNTED = tuple(d.value for d in Dimension if d not in (Dimension.SESSION, Dimension.CLIENT))


def dimension_of(request: web.Request, default: str | None = None) -> str:
    """The ``by`` parameter.

    Raises
    ------
    aiohttp.web.HTTPBadRequest
        For a word that is no counted dimension.
    """
    by = request.query.get("by", default or "")
    if by not in COUNTED:
        raise web.HTTPBadRequest(text=f"by must be one of {', '.join(COUNTED)}")
    return by


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""
    reader = deps.reader

    async def usage(request: web.Request) -> web.Response:
        by = dimension_of(request)
        word, seconds = window_of(request)
        wanted = request.query.get("value")
        principal = principal_of(request)
        if by != Dimension.PROJECT:
            require_all_projects(request)
        elif wanted is not None and not principal.allows_project(wanted):
            raise web.HTTPNotFound(text="not found")
        sums = await reader.sums(by, seconds)
        settings = deps.config() if deps.config is not None else None

        def answer() -> web.Response:
            envelope = {"window": word, "by": by, "now": deps.clock()}
            as_they_are = wanted is None and by != Dimension.PROJECT
            if as_they_are and request.query.get("format", "json") == "json":
                return json_response({**envelope, "rows": orjson.Fragment(sums.json)})
            places = (
                None if wanted is None else [sums.places[v] for v in (wanted,) if v in sums.places]
            )
            rows = [
                row.as_dict()
                for row in sums.rows(places)
                if by != Dimension.PROJECT or principal.allows_project(row.value)
            ]
            if by == Dimension.PROJECT and settings is not None:
                for row in rows:
                    row["markup_nano_usd"] = settings.pricing.markup_nano_usd(
                        row["value"], row["cost_nano_usd"]
                    )
            return table_response(request, f"usage-{by}-{word}", rows, envelope)

        # Thousands of rows are more than the loop should be held up with.
        return await asyncio.to_thread(answer)

    return [web.get("/api/v1/usage", usage)]


def parameter(name: str, values: list[str], default: str | None = None) -> dict[str, Any]:
    """An OpenAPI query parameter with a closed set of values."""
    schema: dict[str, Any] = {"type": "string", "enum": values}
    if default is not None:
        schema["default"] = default
    return {"name": name, "in": "query", "required": default is None, "schema": schema}


_TEXT, _COUNT, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_ROW = shape(
    "Use",
    3,
    value=_TEXT,
    requests={"type": "integer", "description": "Calls that went to a provider."},
    cost_nano_usd=_COUNT,
    markup_nano_usd={
        "type": "integer",
        "description": "Added to a project's cost by `pricing.markup`; only by project.",
    },
    errors=_COUNT,
    refused={"type": "integer", "description": "Calls that enforcement answered."},
    input_tokens={"type": "integer", "description": "Cached ones included."},
    cached_input_tokens=_COUNT,
    cache_write_tokens=_COUNT,
    output_tokens={"type": "integer", "description": "Reasoning included."},
    reasoning_tokens=_COUNT,
)
OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/usage": {
        "get": {
            "summary": "Usage per value of a dimension, fleet-wide, dearest first",
            "parameters": [
                parameter("by", list(COUNTED)),
                parameter("window", list(WINDOWS), "1h"),
                parameter("format", list(FORMATS), "json"),
                {
                    "name": "value",
                    "in": "query",
                    "description": "Only this value",
                    "schema": {"type": "string"},
                },
            ],
            "responses": {
                "200": answer(
                    shape("", 2, window=_TEXT, rows=list_of(_ROW), by=_TEXT, now=_NUMBER),
                    "Rows with requests, errors, tokens and cost",
                    tabular=True,
                ),
                **errors(404, 503),
            },
        }
    }
}
