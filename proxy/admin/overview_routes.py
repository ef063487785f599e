"""What the dashboard's first page shows, and the first call ever.

Owns: ``/api/v1/overview``, ``/api/v1/info``, ``/api/v1/first-call``. Must never:
decide anything; it tells what others decided.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from detection.types import TOTAL, Mode, unpair
from proxy.admin.bands import expected_band
from proxy.admin.deps import AdminDeps
from proxy.admin.finishes import RecentFinishes
from proxy.admin.guard import json_response
from proxy.admin.principal import require_all_projects
from proxy.admin.reader import Reader, window_of
from proxy.admin.rollups import WINDOWS
from proxy.admin.series_routes import CURVE_COLUMNS, curve_json, ratios
from proxy.admin.standing import Standing
from proxy.admin.sums import Sums
from proxy.admin.usage_routes import parameter
from proxy.store.series import Counts

_SPANS = {"15m": 900, "1h": 3600}
_TOP = 5
#: Sums that have an expectation of their own; ratios are compared with the usual one.
_SUMMED = ("cost_nano_usd", "requests")


class OverviewRoutes:
    """Handlers of the first page."""

    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps
        self._reader: Reader = deps.reader
        self._usual_known: dict[int, tuple[object, int, dict[str, float | None]]] = {}
        self._finishes = RecentFinishes(deps.scrape, deps.clock)
        deps.background.append(self._finishes.run)
        deps.background.append(self._tick)

    async def overview(self, request: web.Request) -> web.Response:
        """``GET /api/v1/overview?window=``: curves, bands, the eight metrics, what acts."""
        require_all_projects(request)
        word, seconds = window_of(request, "6h")
        curve = await self._reader.curve(TOTAL, seconds)
        bands = await self._reader.bands(TOTAL, curve, CURVE_COLUMNS)
        standing = Standing(self._deps)
        return json_response(
            {
                "now": self._deps.clock(),
                "window": word,
                "mode": self._deps.mode(),
                "curve": curve_json(curve),
                "bands": bands,
                "metrics": {name: await self._metrics(span) for name, span in _SPANS.items()},
                "view": standing.view(TOTAL),
                "held_back": sum(1 for a in standing.actions if a.mode == Mode.ENFORCE),
            }
        )

    async def _metrics(self, span: int) -> dict[str, Any]:
        """The eight metrics over the last ``span`` seconds."""
        totals, models, keys, finishes = await asyncio.gather(
            self._reader.sums("total", span),
            self._reader.sums("model", span),
            self._reader.sums("key", span),
            self._finishes.since(span),
        )
        counts = totals.counts(0) if len(totals) else Counts()
        return {
            **{name: getattr(counts, name) for name in (*_SUMMED, "errors", "output_tokens")},
            **ratios(counts),
            "by_model": _top(models),
            "by_key": _top(keys),
            "finish_reasons": finishes,
            "usual": await self._usual(span),
        }

    async def _usual(self, span: int) -> dict[str, float | None]:
        """What the last ``span`` seconds would be at this hour of other days."""
        now = self._deps.clock()
        hours = await self._reader.hours(TOTAL, now)
        hour = int((now - span) // 3600)
        known = self._usual_known.get(span)
        if known is not None and known[0] is hours and known[1] == hour:
            return known[2]
        past = [0] * len(Counts._fields)
        for _, counts in hours:
            past = [a + b for a, b in zip(past, counts, strict=True)]
        usual: dict[str, float | None] = dict(ratios(Counts(*past)))
        for name in _SUMMED:
            amounts = [(at, float(getattr(counts, name))) for at, counts in hours]
            first = hours[0][0] if hours else now
            band = expected_band(amounts, first, [now - span], span)
            usual[name] = band.expected[0] if band else None
        self._usual_known[span] = hours, hour, usual
        return usual

    async def info(self, request: web.Request) -> web.Response:
        """``GET /api/v1/info``: what runs here, for the page's frame and first steps."""
        deps = self._deps
        self._reader.expect()
        state = deps.health.state()
        return json_response(
            {
                "version": deps.version,
                "mode": deps.mode(),
                "data_url": deps.data_url(),
                "now": deps.clock(),
                "health": state,
                "learning_days": Standing(deps).learning_days,
            }
        )

    async def first_call(self, request: web.Request) -> web.Response:
        """``GET /api/v1/first-call``: whether any call was ever counted, and the latest."""
        require_all_projects(request)
        seen, providers, pairs = await asyncio.gather(
            *(self._reader.last_seen(by, 1) for by in ("total", "provider", "agent_model"))
        )
        last = next(iter(seen.values()), None)
        agent, model = unpair(next(iter(pairs))) if pairs else (None, None)
        return json_response(
            {
                "seen": bool(seen),
                "at": last,
                "provider": next(iter(providers), None),
                "agent": agent,
                "model": model,
            }
        )

    async def _tick(self) -> None:
        """Publish a few numbers every two seconds while a dashboard is open."""
        deps = self._deps
        while True:
            await asyncio.sleep(2.0)
            if not deps.hub.watched:
                continue
            try:
                counts = await self._reader.total(3600)
            except web.HTTPServiceUnavailable:
                counts = None
            deps.hub.publish(
                "tick",
                {
                    "now": deps.clock(),
                    "in_flight": deps.runtime.inflight,
                    "last_hour": None if counts is None else counts._asdict(),
                    "held_back": len(deps.gate.actions()) if deps.gate else 0,
                    "health": deps.health.state(),
                },
            )


def _top(sums: Sums) -> list[dict[str, Any]]:
    """The dearest few, as a page shows them."""
    return [
        {
            "value": row.value,
            "cost_nano_usd": row.counts.cost_nano_usd,
            "requests": row.counts.requests,
        }
        for row in sums.rows(range(min(_TOP, len(sums))))
    ]


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""
    handlers = OverviewRoutes(deps)
    return [
        web.get("/api/v1/overview", handlers.overview),
        web.get("/api/v1/info", handlers.info),
        web.get("/api/v1/first-call", handlers.first_call),
    ]


_ERRORS = {status: {"$ref": "#/components/responses/Error"} for status in ("404", "503")}
OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/overview": {
        "get": {
            "summary": "Curves with expected bands, and the eight metrics at 15 min and 1 h",
            "parameters": [parameter("window", list(WINDOWS), "6h")],
            "responses": {"200": {"description": "The overview"}, **_ERRORS},
        }
    },
    "/api/v1/info": {
        "get": {
            "summary": "Version, mode, the data port's URL, health",
            "responses": {"200": {"description": "What runs here"}},
        }
    },
    "/api/v1/first-call": {
        "get": {
            "summary": "Whether a call was ever counted, and the latest one's names",
            "responses": {"200": {"description": "Seen or not"}, **_ERRORS},
        }
    },
}
