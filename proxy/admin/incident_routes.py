"""Incidents and what belongs to them: silences, maintenance, the outbox, forecasts.

Owns: those answers of ``/api/v1``. Must never: show a project-scoped caller an
incident, a silence or a message of another project, or say whether one exists.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from detection.types import Tier
from proxy.admin.deps import AdminDeps
from proxy.admin.guard import json_response
from proxy.admin.incident_openapi import OPENAPI_PATHS
from proxy.admin.principal import Principal, Role, principal_of, require, require_all_projects
from proxy.admin.tables import table_response
from proxy.alerts.service import AlertService
from proxy.alerts.silences import Kind, Silence, new_silence
from proxy.incidents import IncidentBook
from proxy.incidents_model import Incident, to_json
from proxy.store.errors import StoreError

__all__ = ["OPENAPI_PATHS", "routes"]

_MOST_BODY = 65_536
_MOST_LISTED = 1_000
_STATES = ("active", "closed", "all")
_HISTORY_SECONDS = 400 * 86_400.0


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""
    at = _Handlers(deps)
    base = "/api/v1"
    table = [
        web.get(f"{base}/incidents", at.incidents),
        web.get(f"{base}/incidents/{{id}}", at.incident),
        web.post(f"{base}/incidents/{{id}}/acknowledge", at.acknowledge),
        web.post(f"{base}/incidents/{{id}}/resolve", at.resolve),
        web.post(f"{base}/incidents/{{id}}/dismiss", at.dismiss),
        web.get(f"{base}/silences", at.silences),
        web.post(f"{base}/silences", at.add_silence),
        web.delete(f"{base}/silences/{{id}}", at.end_silence),
        web.get(f"{base}/maintenance", at.silences),
        web.post(f"{base}/maintenance", at.add_silence),
        web.delete(f"{base}/maintenance/{{id}}", at.end_silence),
        web.get(f"{base}/outbox", at.outbox),
        web.post(f"{base}/outbox/{{id}}/replay", at.replay),
    ]
    return guarded(table)


def guarded(table: Sequence[web.RouteDef]) -> list[web.RouteDef]:
    """The routes, answering 503 while the store is away."""
    return [
        web.route(route.method, route.path, with_store(route.handler), **route.kwargs)
        for route in table
    ]


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def with_store(handler: Handler) -> Handler:
    """Answer 503 where the store is away, in place of an internal error."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except StoreError as error:
            raise web.HTTPServiceUnavailable(
                text=f"the store does not answer ({type(error).__name__}); try again shortly"
            ) from error

    return answered


class _Handlers:
    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps

    @property
    def _book(self) -> IncidentBook:
        book: IncidentBook | None = self._deps.incidents
        if book is None:
            raise web.HTTPServiceUnavailable(text="incidents are not kept by this process")
        return book

    @property
    def _alerts(self) -> AlertService:
        alerts: AlertService | None = self._deps.alerts
        if alerts is None:
            raise web.HTTPServiceUnavailable(text="alerts are not sent by this process")
        return alerts

    async def incidents(self, request: web.Request) -> web.Response:
        """List, newest first."""
        query = request.query
        principal = principal_of(request)
        state = query.get("state", "active")
        if state not in _STATES:
            raise web.HTTPBadRequest(text=f"state must be one of {', '.join(_STATES)}")
        limit = int(_number(query, "limit", 100, 1, _MOST_LISTED))
        now = self._deps.clock()
        since = _number(query, "since", now - _HISTORY_SECONDS, 0, 1e12)
        until = _number(query, "until", now + 1, 0, 1e12)
        words = query.get("q", "").lower()
        least = _tier(query.get("tier", "info"))
        exact = {name: query[name] for name in ("signal", "project") if name in query}

        def wanted(incident: Incident) -> bool:
            return (
                incident.visible_to(principal.allows_project)
                and (state == "all" or incident.active == (state == "active"))
                and incident.worst >= least
                and exact.get("signal", str(incident.signal)) == incident.signal
                and ("project" not in exact or exact["project"] in incident.projects)
                and (not words or words in _searchable(incident))
            )

        if state == "active":
            found = [i for i in await self._book.store.active() if wanted(i)]
            found = [i for i in found if since <= i.opened_at <= until]
            found.sort(key=lambda incident: incident.opened_at, reverse=True)
            found = found[:limit]
        else:
            found = await self._book.store.search(wanted, since=since, until=until, limit=limit)
        rows = [to_json(incident) for incident in found]
        if query.get("format", "json") == "json":
            return json_response({"now": now, "incidents": rows})
        return table_response(request, "incidents", rows, {})

    async def incident(self, request: web.Request) -> web.Response:
        """One, with its timeline."""
        return json_response(to_json(await self._visible(request)))

    async def acknowledge(self, request: web.Request) -> web.Response:
        """A person has it in hand."""
        actor = require(request, Role.OPERATOR).name
        incident, body = await self._visible(request), await _body(request)
        note = _text(body, "note")
        return _changed(await self._book.acknowledge(incident.id, actor, note), incident)

    async def resolve(self, request: web.Request) -> web.Response:
        """It is over, and why."""
        actor = require(request, Role.OPERATOR).name
        incident, body = await self._visible(request), await _body(request)
        resolution = _text(body, "resolution") or _text(body, "note")
        cause = _text(body, "root_cause")
        return _changed(await self._book.resolve(incident.id, actor, resolution, cause), incident)

    async def dismiss(self, request: web.Request) -> web.Response:
        """It was a false alarm; detection trusts itself less there."""
        actor = require(request, Role.OPERATOR).name
        incident, body = await self._visible(request), await _body(request)
        resolution = _text(body, "resolution") or _text(body, "note")
        cause = _text(body, "root_cause")
        return _changed(await self._book.dismiss(incident.id, actor, resolution, cause), incident)

    async def silences(self, request: web.Request) -> web.Response:
        """Silences or maintenance windows, with those that ended of late."""
        principal = principal_of(request)
        kind = _kind(request)
        now = self._deps.clock()
        held = await self._alerts.silences.recent(now)
        rows = [
            {**one.as_dict(), "active": one.starts_at <= now < one.ends_at}
            for one in held
            if one.kind == kind and principal.allows_project(one.project)
        ]
        name = "silences" if kind == "silence" else "windows"
        return json_response({"now": now, name: rows})

    async def add_silence(self, request: web.Request) -> web.Response:
        """A new one; a project-scoped caller's is limited to a project of its own."""
        principal = require(request, Role.OPERATOR)
        body = await _body(request)
        project = body.get("project")
        if project is None and principal.projects is not None and len(principal.projects) == 1:
            project = next(iter(principal.projects))
        if not (project is None or isinstance(project, str)):
            raise web.HTTPBadRequest(text="project must be a text")
        if not principal.allows_project(project):
            raise web.HTTPNotFound(text="not found")
        now = self._deps.clock()
        matchers = body.get("matchers", [])
        if not (isinstance(matchers, list) and all(isinstance(m, str) for m in matchers)):
            raise web.HTTPBadRequest(text="matchers must be a list of texts")
        starts = _number(body, "starts_at", now, 0, 1e11)
        seconds = _number(body, "seconds", 3_600, 1, _HISTORY_SECONDS)
        try:
            silence = new_silence(
                _kind(request),
                tuple(matchers),
                starts_at=starts,
                ends_at=_number(body, "ends_at", starts + seconds, 0, 1e11),
                comment=_text(body, "comment"),
                created_by=principal.name,
                project=project,
            )
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        await self._alerts.silences.add(silence)
        return json_response(silence.as_dict(), 201)

    async def end_silence(self, request: web.Request) -> web.Response:
        """End it now."""
        principal = require(request, Role.OPERATOR)
        silence = await self._alerts.silences.get(request.match_info["id"])
        if not _may_see(silence, principal, _kind(request)):
            raise web.HTTPNotFound(text="not found")
        assert silence is not None  # noqa: S101 - _may_see says so
        ended = await self._alerts.silences.end(silence, self._deps.clock())
        return json_response(ended.as_dict())

    async def outbox(self, request: web.Request) -> web.Response:
        """What waits and what could not be delivered."""
        require_all_projects(request)
        letters = await self._alerts.outbox.dead_letters()
        rows = [
            {
                "id": letter.message.id,
                "receiver": letter.message.receiver,
                "kind": letter.message.kind,
                "title": letter.message.title,
                "created_at": letter.message.created_at,
                "attempts": letter.attempts,
                "reason": letter.reason,
                "detail": letter.detail,
            }
            for letter in letters
        ]
        return json_response({"waiting": await self._alerts.outbox.waiting(), "dead": rows})

    async def replay(self, request: web.Request) -> web.Response:
        """Send a dead letter again."""
        require_all_projects(request)
        require(request, Role.OPERATOR)
        if not await self._alerts.outbox.replay(request.match_info["id"]):
            raise web.HTTPNotFound(text="not found")
        return json_response({"replayed": True})

    async def _visible(self, request: web.Request) -> Incident:
        incident = await self._book.store.get(request.match_info["id"])
        if incident is None or not incident.visible_to(principal_of(request).allows_project):
            raise web.HTTPNotFound(text="not found")
        return incident


def _may_see(silence: Silence | None, principal: Principal, kind: Kind) -> bool:
    return (
        silence is not None and silence.kind == kind and principal.allows_project(silence.project)
    )


def _kind(request: web.Request) -> Kind:
    return "maintenance" if "/maintenance" in request.path else "silence"


def _changed(after: Incident | None, before: Incident) -> web.Response:
    if after is None:
        raise web.HTTPConflict(text=f"the incident is {before.state} already")
    return json_response(to_json(after))


def _searchable(incident: Incident) -> str:
    texts = (
        incident.id,
        incident.fingerprint,
        incident.story,
        incident.resolution,
        incident.root_cause,
        *incident.signals,
        *incident.projects,
    )
    return " ".join(texts).lower()


def _tier(name: str) -> Tier:
    try:
        return Tier[name.upper()]
    except KeyError:
        words = ", ".join(tier.label for tier in Tier if tier)
        raise web.HTTPBadRequest(text=f"tier must be one of {words}") from None


def _number(
    source: Mapping[str, Any], name: str, default: float, least: float, most: float
) -> float:
    given = source.get(name)
    if given is None:
        return default
    try:
        value = float(given)
    except (TypeError, ValueError):
        raise web.HTTPBadRequest(text=f"{name} must be a number") from None
    if not least <= value <= most or isinstance(given, bool):
        raise web.HTTPBadRequest(text=f"{name} must lie between {least:g} and {most:g}")
    return value


def _text(body: Mapping[str, Any], name: str, most: int = 1_000) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise web.HTTPBadRequest(text=f"{name} must be a text of at most {most} characters")
    return value


async def _body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; empty where there is no body."""
    raw = await request.content.read(_MOST_BODY + 1)
    while not request.content.at_eof() and len(raw) <= _MOST_BODY:
        raw += await request.content.read(_MOST_BODY + 1 - len(raw))
    if len(raw) > _MOST_BODY:
        raise web.HTTPRequestEntityTooLarge(_MOST_BODY, len(raw))
    try:
        body = json.loads(raw) if raw.strip() else {}
    except ValueError:
        raise web.HTTPBadRequest(text="the body must be JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object")
    return body
