"""Tables and details of series: keys, agents, models, projects, providers.

Owns: ``/api/v1/series``, ``/api/v1/series/detail``. Must never: read more from the
store than the rows shown need, or tell a scoped caller of other projects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from aiohttp import web

from detection.types import Dimension, Series, pair, unpair
from proxy.admin.deps import AdminDeps
from proxy.admin.principal import principal_of, require_all_projects, require_project
from proxy.admin.reader import Curve, window_of
from proxy.admin.rollups import WINDOWS
from proxy.admin.standing import Standing
from proxy.admin.sums import Sums
from proxy.admin.tables import FORMATS, table_response
from proxy.admin.usage_routes import COUNTED, dimension_of, parameter
from proxy.store.cells import Ints
from proxy.store.series import Counts

SORTABLE = (
    "value", "requests", "errors", "refused", "input_tokens", "output_tokens",
    "cached_input_tokens", "cost_nano_usd", "cost_per_request_nano_usd", "error_rate",
    "output_tokens_per_request", "change", "times_median_cost",
)  # fmt: skip
_TABLES = ("curve", "parts")
_MOST_ROWS = 200
#: Rows that the loop looks up before it turns to others.
_AT_ONCE = 50
_MOST_EXPORTED = 100_000
#: Of so many pairs each is asked for by name; of more, all that there are.
_MOST_PAIRS = 2_000
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


Floats = npt.NDArray[np.float64]


class _Found(NamedTuple):
    """A dimension's sums of a window, and of one twice as long; a row only where it is shown."""

    sums: Sums
    both_spans: Sums
    median_nano_usd: int | None

    def before(self, place: int) -> int:
        """What it cost in the same span before."""
        cost = int(self.sums.column("cost_nano_usd")[place])
        both = self.both_spans.places.get(self.sums.values[place])
        if both is None:
            return 0
        return max(0, int(self.both_spans.column("cost_nano_usd")[both]) - cost)

    def keys(self, places: Ints, name: str) -> Floats:
        """What some of them are sorted by; NaN where it is unknown."""
        column = self.sums.column
        cost = column("cost_nano_usd")[places].astype(np.float64)
        if name in Counts._fields:
            return column(name)[places].astype(np.float64)
        if name == "value":
            values = np.array([self.sums.values[place] for place in places], dtype=object)
            return np.argsort(np.argsort(values, kind="stable")).astype(np.float64)
        if name == "times_median_cost":
            return cost if self.median_nano_usd else np.full(len(places), np.nan)
        if name == "change":
            before = np.array([self.before(place) for place in places.tolist()], np.float64)
            return _ratio(cost, before)
        of = {
            "error_rate": "errors",
            "cost_per_request_nano_usd": "cost_nano_usd",
            "output_tokens_per_request": "output_tokens",
        }
        calls = column("requests")[places].astype(np.float64)
        amounts = column(of[name])[places].astype(np.float64)
        return _ratio(amounts, calls)

    def ordered(self, places: Ints, sort: str, order: str) -> Ints:
        """Sorted; what is unknown comes last either way."""
        if sort == "cost_nano_usd":  # as they are
            return places if order == "desc" else places[::-1]
        keys = self.keys(places, sort)
        # NaN sorts last.
        return places[np.argsort(-keys if order == "desc" else keys, kind="stable")]

    def shown(self, place: int) -> dict[str, Any]:
        """A row as pages and exports take it."""
        counts = self.sums.counts(place)
        before, middle, cost = self.before(place), self.median_nano_usd, counts.cost_nano_usd
        return {
            "value": self.sums.values[place],
            **counts._asdict(),
            **ratios(counts),
            "previous_cost_nano_usd": before,
            "change": round(cost / before - 1, 4) if before else None,
            "times_median_cost": round(cost / middle, 2) if middle else None,
        }


def _ratio(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    found = np.full(len(above), np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found


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
        export = request.query.get("format", "json") != "json"
        limit = _MOST_EXPORTED if export else _number(request, "limit", 50, _MOST_ROWS)
        offset = 0 if export else _number(request, "offset", 0, _MOST_EXPORTED)
        chosen = _chosen(request)
        sums, both = await asyncio.gather(
            self._sums(request, by, seconds), self._sums(request, by, 2 * seconds)
        )
        found = _Found(sums, both, sums.median_cost_nano_usd())

        def pick() -> tuple[int, list[dict[str, Any]]]:
            places = chosen(found)
            return len(places), [found.shown(p) for p in places[offset : offset + limit].tolist()]

        # Thousands of series are more than the loop should be held up with.
        total, page = await asyncio.to_thread(pick)
        standing = Standing(self._deps)
        for number, row in enumerate(page, 1):
            row.update(standing.row(Series(by, row["value"])))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if not export:
            await self._add_sparks(by, seconds, page)
        envelope = {
            "by": by,
            "window": word,
            "total": total,
            "offset": offset,
            "now": self._deps.clock(),
        }
        return await asyncio.to_thread(table_response, request, f"{by}-{word}", page, envelope)

    async def _sums(self, request: web.Request, by: str, seconds: int) -> Sums:
        """Of the projects that the caller may see, where they are asked for."""
        sums, principal = await self._reader.sums(by, seconds), principal_of(request)
        if by != Dimension.PROJECT or principal.projects is None:
            return sums
        return sums.only(principal.allows_project)

    async def _add_sparks(self, by: str, seconds: int, rows: Sequence[dict[str, Any]]) -> None:
        sparks = await self._reader.sparks(by, [row["value"] for row in rows], seconds)
        for row in rows:
            costs, calls = sparks[row["value"]]
            row["spark"] = costs if any(costs) else calls

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
        curve, sums = await asyncio.gather(
            self._reader.curve(series, seconds), self._sums(request, by, seconds)
        )
        bands = await self._reader.bands(series, curve, ("cost_nano_usd", "requests"))
        counts = sums.of_value(value)
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
            "peers": _peers(value, sums),
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
        other = _other(pairs, place)
        others = (await self._reader.sums(other, seconds)).values
        if len(others) <= _MOST_PAIRS:
            mine = [pair(value, one) if place == 0 else pair(one, value) for one in others]
            sums = await self._reader.some(pairs, mine, seconds)
        else:
            edge = pair(value, "") if place == 0 else pair("", value)
            is_mine = str.startswith if place == 0 else str.endswith
            every = await self._reader.sums(pairs, seconds)
            sums = every.only(lambda both: is_mine(both, edge))
        return [
            {**row.as_dict(), "value": unpair(row.value)[1 - place], "by": other}
            for row in sums.rows(range(min(_MOST_ROWS, len(sums))))
        ]


def _other(pairs: str, place: int) -> str:
    return pairs.split("_")[1 - place]


def _peers(value: str, sums: Sums) -> dict[str, Any]:
    """Where a series stands among the others of its dimension."""
    place = sums.places.get(value)
    return {
        "count": len(sums),
        "rank": None if place is None else place + 1,
        "median_cost_nano_usd": sums.median_cost_nano_usd(),
    }


def _chosen(request: web.Request) -> Callable[[_Found], Ints]:
    """Which rows are asked for, in order.

    Raises
    ------
    aiohttp.web.HTTPBadRequest
        For an unknown order.
    """
    wanted = request.query.get("q", "").casefold()
    sort = request.query.get("sort", "cost_nano_usd")
    if sort not in SORTABLE:
        raise web.HTTPBadRequest(text=f"sort must be one of {', '.join(SORTABLE)}")
    order = request.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise web.HTTPBadRequest(text="order must be asc or desc")

    def choose(found: _Found) -> Ints:
        places = [
            place
            for place, value in enumerate(found.sums.values)
            if not wanted or wanted in value.casefold()
        ]
        return found.ordered(np.array(places, np.int64), sort, order)

    return choose


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
_ERRORS = {status: {"$ref": "#/components/responses/Error"} for status in ("404", "503")}
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
