"""The widget for a product's own billing page: ``/embed/anomalies``.

Owns: signed links to it, and its small page. Must never: show anything but one
project's sums and signals (no key, agent, model or story), run a script, or be
framed by an origin that isn't listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from detection.budget import dollars
from detection.types import Dimension, Series
from proxy.admin.auth import Authenticator
from proxy.admin.billing_routes import Day, find_anomalies
from proxy.admin.control_common import read_json
from proxy.admin.deps import AdminDeps
from proxy.admin.guard import json_response
from proxy.admin.openapi import answer, errors, shape
from proxy.admin.principal import Role, require, require_project
from proxy.store.errors import StoreError
from proxy.store.series import Counts

PURPOSE = "embed"
_DAYS = 30
_DAY_SECONDS = 86_400
_SIGMA = 3.0
_AGAIN_SECONDS = 60
_MOST_SHOWN = 5
_BUDGET_WARNS_AT = 0.8


@dataclass(frozen=True, slots=True)
class Spent:
    """Where one budget stands."""

    name: str
    per: str
    spent_nano_usd: int
    limit_nano_usd: int

    @property
    def share(self) -> float:
        """Of the limit; 1 is all of it."""
        return self.spent_nano_usd / self.limit_nano_usd


class EmbedRoutes:
    """Handlers bound to the signer of links."""

    def __init__(
        self, deps: AdminDeps, authenticator: Authenticator, base_url: Callable[[], str]
    ) -> None:
        self._deps = deps
        self._base_url = base_url
        self._settings = deps.settings.embed
        self._tickets = authenticator.tickets
        origins = " ".join(self._settings.frame_ancestors) or "'none'"
        self._headers = {
            "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; "
            f"form-action 'none'; frame-ancestors {origins}",
            "Cache-Control": "no-store",
        }

    def routes(self) -> list[web.RouteDef]:
        """To be mounted by the server."""
        return [
            web.post("/api/v1/embed-links", self.link),
            web.get("/embed/anomalies", self.page),
        ]

    async def link(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/v1/embed-links {"project": ...}``: a link that shows one project."""
        require(request, Role.OPERATOR)
        project = (await read_json(request)).get("project")
        if not isinstance(project, str) or not project:
            raise web.HTTPBadRequest(text='send {"project": "..."}')
        require_project(request, project)
        seconds = self._settings.link_hours * 3600.0
        token = self._tickets.issue(PURPOSE, {"project": project}, seconds)
        path = f"/embed/anomalies?{urlencode({'project': project, 'token': token})}"
        found = {"url": self._base_url() + path, "path": path}
        return json_response({**found, "expires_at": self._deps.clock() + seconds}, 201)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """``GET /embed/anomalies?project=&token=``: the widget, or nothing yet."""
        payload = self._tickets.read(PURPOSE, request.query.get("token", ""))
        project = request.query.get("project", "")
        if payload is None or payload["project"] != project:
            body, status = _page("", "This link is not good any more.", hidden=False), 403
        else:
            body, status = await self._shown(project), 200
        return web.Response(
            text=body, status=status, content_type="text/html", headers=self._headers
        )

    async def _shown(self, project: str) -> str:
        budgets = self._budgets(project)
        share = max((budget.share for budget in budgets), default=0.0)
        if share < self._settings.show_from_share:
            return _page("", "", hidden=True)
        try:
            days = await self._days(project)
            signals = await self._signals(project)
        except (StoreError, web.HTTPServiceUnavailable):
            return _page(_bars(budgets), "Unusual days can't be looked up right now.", hidden=False)
        return _page(_bars(budgets) + _signals(signals) + _unusual(days), "", hidden=False)

    def _budgets(self, project: str) -> list[Spent]:
        if self._deps.gate is None:
            return []
        series = Series(Dimension.PROJECT, project)
        return [
            Spent(c.rule.name, str(c.rule.per), c.used_now, c.rule.limit)
            for c in self._deps.gate.counters
            if c.rule.kind == "budget" and c.span.name and c.series == series
        ]

    async def _days(self, project: str) -> list[Day]:
        today = self._deps.clock() // _DAY_SECONDS * _DAY_SECONDS
        first = today - (_DAYS - 1) * _DAY_SECONDS
        found = dict(await self._deps.reader.days(Series(Dimension.PROJECT, project), first))
        starts = [first + place * _DAY_SECONDS for place in range(_DAYS)]
        return [Day(start, found.get(start, Counts())) for start in starts]

    async def _signals(self, project: str) -> list[str]:
        if self._deps.incidents is None:
            return []
        active = await self._deps.incidents.store.active()
        return sorted(
            {
                str(incident.signal).replace("_", " ")
                for incident in active
                if incident.visible_to(lambda name: name == project)
            }
        )


def _bars(budgets: Sequence[Spent]) -> str:
    return "".join(
        f'<p class="line"><span>{escape(budget.name)}</span>'
        f"<strong>{budget.share:.0%}</strong></p>"
        f'<meter min="0" max="1" high="{_BUDGET_WARNS_AT}" value="{min(1.0, budget.share):.4f}" '
        f'aria-label="Share of {escape(budget.name)}">{budget.share:.0%}</meter>'
        f'<p class="small">{dollars(budget.spent_nano_usd)} of {dollars(budget.limit_nano_usd)} '
        f"per {escape(budget.per)}</p>"
        for budget in sorted(budgets, key=lambda b: b.share, reverse=True)[:_MOST_SHOWN]
    )


def _signals(words: Sequence[str]) -> str:
    if not words:
        return '<p class="calm">Nothing unusual right now.</p>'
    return f'<p class="alarm">Unusual right now: {escape(", ".join(words))}.</p>'


def _unusual(days: Sequence[Day]) -> str:
    found = find_anomalies(days, "medium", _SIGMA)
    rows = "".join(
        f"<li><span>{escape(day['date'])}</span><span>${day['total_cost_usd']:,.2f}, "
        f"{day['spike_ratio']:.1f} times the usual day</span></li>"
        for day in reversed(found["anomalies"][-_MOST_SHOWN:])
    )
    return f"<h2>Unusual days of the last {_DAYS}</h2><ul>{rows}</ul>" if rows else ""


def _page(content: str, note: str, *, hidden: bool) -> str:
    told = f'<p class="small">{escape(note)}</p>' if note else ""
    inner = "" if hidden else f"<main><h1>Usage</h1>{content}{told}</main>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{_AGAIN_SECONDS}">'
        '<meta name="color-scheme" content="light dark"><title>Usage</title>'
        '<link rel="stylesheet" href="/assets/css/embed.css"></head>'
        f'<body data-state="{"hidden" if hidden else "shown"}">{inner}</body></html>'
    )


OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/embed-links": {
        "post": {
            "summary": "Make a signed link to the widget of one project",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": shape("", 1, project={"type": "string", "minLength": 1})
                    }
                },
            },
            "responses": {
                "201": answer(
                    shape(
                        "Link",
                        3,
                        url={"type": "string"},
                        path={"type": "string"},
                        expires_at={"type": "number"},
                    ),
                    "The link, good for a while",
                ),
                **errors(404),
            },
        }
    },
    "/embed/anomalies": {
        "get": {
            "summary": "The widget: budget, what stands out now, unusual days of one project",
            "security": [],
            "parameters": [
                {"name": n, "in": "query", "required": True, "schema": {"type": "string"}}
                for n in ("project", "token")
            ],
            "responses": {
                status: {"description": told, "content": {"text/html": {"schema": {}}}}
                for status, told in (
                    ("200", "The page; empty below the share from which it shows itself"),
                    ("403", "The link is not good"),
                )
            },
        }
    },
}
