"""A fire drill on live traffic: ``/api/v1/drill``.

Owns: beginning one, its findings, and ending it. Must never: play one itself, or act
on what it finds.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from proxy.admin.control_common import read_body
from proxy.admin.deps import AdminDeps
from proxy.admin.guard import json_response
from proxy.admin.openapi import answer, errors, shape
from proxy.admin.principal import Role, require, require_all_projects
from proxy.history.drill import as_plain
from proxy.history.incidents import IncidentPlan
from proxy.live_drill import DrillBusyError, LiveDrills


class DrillRoutes:
    """Handlers around the drills of this process."""

    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps

    def routes(self) -> list[web.RouteDef]:
        """To be mounted by the server."""
        path = "/api/v1/drill"
        return [
            web.post(path, self.start),
            web.get(path, self.show),
            web.delete(path, self.end),
        ]

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Begin one; 409 while another is played."""
        require(request, Role.OPERATOR)
        require_all_projects(request)
        plan = await read_body(request, IncidentPlan)
        try:
            self._drills().start(plan)
        except DrillBusyError as error:
            raise web.HTTPConflict(text=str(error)) from None
        return self._told(202)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """What it came to up to now."""
        require_all_projects(request)
        return self._told(200)

    async def end(self, request: web.Request) -> web.StreamResponse:
        """End it before its time."""
        require(request, Role.OPERATOR)
        require_all_projects(request)
        await self._drills().stop()
        return self._told(200)

    def _drills(self) -> LiveDrills:
        if self._deps.drills is None:
            raise web.HTTPServiceUnavailable(text="detection is not running in this process")
        drills: LiveDrills = self._deps.drills
        return drills

    def _told(self, status: int) -> web.Response:
        drills = self._drills()
        found = as_plain(drills.found) if drills.found is not None else None
        return json_response({"state": drills.state, "found": found}, status)


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""
    return DrillRoutes(deps).routes()


_PLAN = IncidentPlan.model_json_schema()
_PLAN["properties"] = {
    name: {word: said for word, said in schema.items() if word != "title"}
    for name, schema in _PLAN["properties"].items()
    if name != "at_hours"  # it begins now
}
_STATES = ["idle", "waiting", "playing", "done", "failed", "no_traffic"]
_DRILL = shape(
    "Drill",
    2,
    state={
        "type": "string",
        "enum": _STATES,
        "description": "`waiting` for a call to make the incident of; `no_traffic` if none came.",
    },
    found={
        "anyOf": [{"type": "null"}, {"type": "object"}],
        "description": "The incident, what found it after how many seconds and nano-USD "
        "(`detected_*`), and what policy would have done when (`action`, `stopped_seconds`).",
    },
)
OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/drill": {
        "post": {
            "summary": "Play an incident over live traffic, in a copy of detection",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _PLAN}},
            },
            "responses": {"202": answer(_DRILL, "It begins with the next call"), **errors(409)},
        },
        "get": {
            "summary": "What the drill came to up to now",
            "responses": {"200": answer(_DRILL, "State and findings")},
        },
        "delete": {
            "summary": "End the drill before its time",
            "responses": {"200": answer(_DRILL, "State and findings")},
        },
    },
}
