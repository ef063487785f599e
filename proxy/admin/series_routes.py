"""Tables and details of series: keys, agents, models, projects, providers.

Owns: ``/api/v1/series``, ``/api/v1/series/detail``. Must never: read more from the
store than the rows shown need, or tell a scoped caller of other projects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiohttp import web

from detection.types import Dimension, Series, unpair
from proxy.admin.deps import AdminDeps
from proxy.admin.principal import principal_of, require_all_projects, require_project
from proxy.admin.reader import WINDOWS, Curve, window_of
from proxy.admin.standing import Standing
from proxy.admin.tables import FORMATS, table_response
from proxy.admin.usage_routes import COUNTED, dimension_of, parameter
from proxy.store.counters import UsageRow
from proxy.store.series import Counts

SORTABLE = (
    "value", "requests", "errors", "refused", "input_tokens", "output_tokens",
    "cached_input_tokens", "cost_nano_usd", "cost_per_request_nano_usd", "error_rate",
    "output_tokens_per_request", "change", "times_median_cost",
)  # fmt: skip
_TABLES = ("curve", "parts")
_MOST_ROWS = 200
_MOST_EXPORTED = 100_000
CURVE_COLUMNS = (
    "requests", "errors", "refused", "cost_nano_usd", "input_tokens", "output_tokens",
)  # fmt: skip

#: Where a detail page finds what a series is made of: pairs that hold it.
_PARTS = {
    Dimension.KEY: (Dimension.KEY_MODEL, 0),
    Dimension.AGENT: (Dimension.AGENT_MODEL, 0),
    Dimension.MODEL: (Dimension.KEY_MODEL, 1),
}


def ratios(counts: Counts) -> dict[str, float | None]:
    """Per-request figures; ``None`` where there was no request."""
    requests = counts.requests
    if not requests:
        return {
            "error_rate": None,
            "cost_per_request_nano_usd": None,
            "output_tokens_per_request": None,
        }
    return {
        "error_rate": round(counts.errors / requests, 4),
        "cost_per_request_nano_usd": round(counts.cost_nano_usd / requests),
        "output_tokens_per_request": round(counts.output_tokens / requests, 1),
    }


def curve_json(curve: Curve) -> dict[str, Any]:
    """A curve as the pages' charts take it."""
    columns = {name: curve.column(name) for name in CURVE_COLUMNS}
    return {"times": curve.times, "step_seconds": curve.step, **columns}


class _Found(NamedTuple):
    """A dimension's rows of a window, the dearest first; a row in full only where it is shown."""

    rows: list[UsageRow]
    both_spans_nano_usd: dict[str, int]
    median_nano_usd: int | None

    def before(self, row: UsageRow) -> int:
        """What it cost in the same span before."""
        cost = row.counts.cost_nano_usd
        return max(0, self.both_spans_nano_usd.get(row.value, cost) - cost)

    def figure(self, row: UsageRow, name: str) -> Any:
        """One of :data:`SORTABLE`; ``None`` where it is unknown."""
        counts = row.counts
        if name in Counts._fields:
            return getattr(counts, name)
        if name == "value":
            return row.value
        if name == "change":
            before = self.before(row)
            return round(counts.cost_nano_usd / before - 1, 4) if before else None
        if name == "times_median_cost":
            middle = self.median_nano_usd
            return round(counts.cost_nano_usd / middle, 2) if middle else None
        return ratios(counts)[name]

    def shown(self, row: UsageRow) -> dict[str, Any]:
        """A row as pages and exports take it."""
        return {
            **row.as_dict(),
            **ratios(row.counts),
            "previous_cost_nano_usd": self.before(row),
            "change": self.figure(row, "change"),
            "times_median_cost": self.figure(row, "times_median_cost"),
        }


class SeriesRoutes:
    """Handlers over the reader and what stands out now."""

    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps
        self._reader = deps.reader

    async def table(self, request: web.Request) -> web.Response:
        """``GET /api/v1/series?by=&window=&sort=&order=&q=&limit=&offset=``."""
        by = dimension_of(request)
        if by != Dimension.PROJECT:
            require_all_projects(request)
        word, seconds = window_of(request, "24h")
        found = await self._found(by, seconds)
        rows = self._filtered(request, by, found)
        total = len(rows)
        export = request.query.get("format", "json") != "json"
        limit = _MOST_EXPORTED if export else _number(request, "limit", 50, _MOST_ROWS)
        offset = 0 if export else _number(request, "offset", 0, _MOST_EXPORTED)
        page = [found.shown(row) for row in rows[offset : offset + limit]]
        standing = Standing(self._deps)
        for row in page:
            series = Series(by, row["value"])
            row.update(standing.of(series) | standing.habits(series))
        if not export:
            await self._add_sparks(by, seconds, page)
        envelope = {
            "by": by,
            "window": word,
            "total": total,
            "offset": offset,
            "now": self._deps.clock(),
        }
        return table_response(request, f"{by}-{word}", page, envelope)

    async def _found(self, by: str, seconds: int) -> _Found:
        """Rows of a window, and what they cost in the same span before it."""
        rows, both_rows = await asyncio.gather(
            self._reader.usage(by, seconds), self._reader.usage(by, 2 * seconds)
        )
        both = {row.value: row.counts.cost_nano_usd for row in both_rows}
        return _Found(rows, both, _median([row.counts.cost_nano_usd for row in rows]))

    def _filtered(self, request: web.Request, by: str, found: _Found) -> list[UsageRow]:
        principal = principal_of(request)
        rows = found.rows
        if by == Dimension.PROJECT:
            rows = [row for row in rows if principal.allows_project(row.value)]
        wanted = request.query.get("q", "").casefold()
        if wanted:
            rows = [row for row in rows if wanted in row.value.casefold()]
        sort = request.query.get("sort", "cost_nano_usd")
        if sort not in SORTABLE:
            raise web.HTTPBadRequest(text=f"sort must be one of {', '.join(SORTABLE)}")
        order = request.query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise web.HTTPBadRequest(text="order must be asc or desc")
        if sort == "cost_nano_usd":  # as the store gives them
            return rows if order == "desc" else rows[::-1]
        keyed = [(found.figure(row, sort), row) for row in rows]
        known = [pair for pair in keyed if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=order == "desc")
        return [row for _, row in known] + [row for key, row in keyed if key is None]

    async def _add_sparks(self, by: str, seconds: int, rows: Sequence[dict[str, Any]]) -> None:
        sparks = await asyncio.gather(
            *(self._reader.spark(Series(by, row["value"]), seconds) for row in rows)
        )
        for row, points in zip(rows, sparks, strict=True):
            costs = [counts.cost_nano_usd for counts in points]
            row["spark"] = costs if any(costs) else [counts.requests for counts in points]

    async def detail(self, request: web.Request) -> web.Response:
        """``GET /api/v1/series/detail?by=&value=&window=``: one series, in full."""
        by = dimension_of(request)
        value = request.query.get("value", "")
        if by == Dimension.PROJECT:
            require_project(request, value)
        else:
            require_all_projects(request)
        word, seconds = window_of(request, "24h")
        series = Series(by, value)
        curve, rows = await asyncio.gather(
            self._reader.curve(series, seconds), self._reader.usage(by, seconds)
        )
        bands = await self._reader.bands(series, curve, ("cost_nano_usd", "requests"))
        counts = next((row.counts for row in rows if row.value == value), None)
        standing = Standing(self._deps)
        parts = await self._parts(by, value, seconds)
        found = {
            "by": by,
            "value": value,
            "window": word,
            "now": self._deps.clock(),
            "curve": curve_json(curve),
            "bands": bands,
            "totals": None if counts is None else counts._asdict() | ratios(counts),
            "peers": _peers(value, rows),
            "parts": parts,
            "view": standing.view(series),
            **standing.of(series),
        }
        table = request.query.get("table", "curve")
        if table not in _TABLES:
            raise web.HTTPBadRequest(text=f"table must be one of {', '.join(_TABLES)}")
        taken = parts if table == "parts" else _curve_rows(curve)
        return table_response(request, f"{by}-{word}-{table}", taken, found)

    async def _parts(self, by: str, value: str, seconds: int) -> list[dict[str, Any]]:
        """What a key or agent is made of: its models, dearest first."""
        if by not in _PARTS:
            return []
        pairs, place = _PARTS[Dimension(by)]
        found = []
        for row in await self._reader.usage(pairs, seconds):
            both = unpair(row.value)
            if both[place] == value:
                found.append(
                    {**row.as_dict(), "value": both[1 - place], "by": _other(pairs, place)}
                )
        return found[:_MOST_ROWS]


def _other(pairs: str, place: int) -> str:
    return pairs.split("_")[1 - place]


def _peers(value: str, rows: Sequence[UsageRow]) -> dict[str, Any]:
    """Where a series stands among the others of its dimension."""
    costs = [row.counts.cost_nano_usd for row in rows]
    rank = next((n for n, row in enumerate(rows, 1) if row.value == value), None)
    return {"count": len(rows), "rank": rank, "median_cost_nano_usd": _median(costs)}


def _median(costs: Sequence[int]) -> int | None:
    return sorted(costs)[len(costs) // 2] if costs else None


def _curve_rows(curve: Curve) -> list[dict[str, Any]]:
    return [
        {"at": at, **{name: getattr(counts, name) for name in CURVE_COLUMNS}}
        for at, counts in zip(curve.times, curve.counts, strict=True)
    ]


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or int(text[:9]) > most:
        raise web.HTTPBadRequest(text=f"{name} must be a number from 0 to {most}")
    return int(text)


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""
    handlers = SeriesRoutes(deps)
    return [
        web.get("/api/v1/series", handlers.table),
        web.get("/api/v1/series/detail", handlers.detail),
    ]


_TEXT = {"type": "string"}
_ERRORS = {status: {"$ref": "#/components/responses/Error"} for status in ("404", "501", "503")}
OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/series": {
        "get": {
            "summary": "A page of a dimension's series with state, change and sparkline",
            "parameters": [
                parameter("by", list(COUNTED)),
                parameter("window", list(WINDOWS), "24h"),
                parameter("sort", list(SORTABLE), "cost_nano_usd"),
                parameter("order", ["asc", "desc"], "desc"),
                parameter("format", list(FORMATS), "json"),
                {"name": "q", "in": "query", "description": "Part of the value", "schema": _TEXT},
                {
                    "name": "limit",
                    "in": "query",
                    "schema": {"type": "integer", "minimum": 0, "maximum": _MOST_ROWS},
                },
                {
                    "name": "offset",
                    "in": "query",
                    "schema": {"type": "integer", "minimum": 0, "maximum": _MOST_EXPORTED},
                },
            ],
            "responses": {"200": {"description": "Rows and their total number"}, **_ERRORS},
        }
    },
    "/api/v1/series/detail": {
        "get": {
            "summary": "One series: curve, expected band, normal and record, peers, parts",
            "parameters": [
                parameter("by", list(COUNTED)),
                {"name": "value", "in": "query", "schema": _TEXT},
                parameter("window", list(WINDOWS), "24h"),
                parameter("format", list(FORMATS), "json"),
                parameter("table", list(_TABLES), "curve"),
            ],
            "responses": {"200": {"description": "The series"}, **_ERRORS},
        }
    },
}
