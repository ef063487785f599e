"""The hand on the tap: actions, budgets, policy, explanations, the audit trail.

Owns: `/api/v1/actions`, `/api/v1/budgets`, `/api/v1/policy`, `/api/v1/explain`,
`/api/v1/shadow` and `/api/v1/audit`; keys are in `control_keys`. Must never:
decide about a call, or show a project to who may not see it.
"""

from __future__ import annotations

import secrets
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from detection.budget import exhausted_in
from detection.types import Action, ActionKind, Dimension, Mode, Series
from proxy import config
from proxy.admin import control_keys
from proxy.admin.control_common import enforcement_of, may_see, read_body, read_json
from proxy.admin.control_openapi import PATHS
from proxy.admin.deps import AdminDeps
from proxy.admin.guard import json_response
from proxy.admin.principal import Role, principal_of, require, require_all_projects
from proxy.admin.reader import told_if_away
from proxy.context import RequestContext
from proxy.enforcement import Enforcement
from proxy.enforcement_codec import to_json
from proxy.gate_explain import explain as explained
from proxy.gate_explain import standing
from proxy.gate_rules import Counter
from proxy.providers.base import RequestFacts

OPENAPI_PATHS: dict[str, Any] = PATHS
_MOST_AUDIT = 1000
_LONGEST_SECONDS = 366 * 86_400.0


class NewAction(BaseModel):
    """The body of ``POST /api/v1/actions``."""

    model_config = ConfigDict(extra="forbid")

    kind: ActionKind
    dimension: Dimension
    value: str = Field("", max_length=512)
    seconds: float | None = Field(None, gt=0, le=_LONGEST_SECONDS)
    rate_per_second: float | None = Field(None, gt=0)
    models: dict[str, str] = Field(default_factory=dict)
    cut: bool = True
    mode: Mode = Mode.ENFORCE
    reason: str = Field("", max_length=500)
    incident: str = Field("", max_length=200)


class ControlRoutes:
    """Handlers bound to the parts they need."""

    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps

    def routes(self) -> list[web.RouteDef]:
        """To be mounted by the server."""
        return [
            web.get("/api/v1/actions", self.actions),
            web.post("/api/v1/actions", self.act),
            web.delete("/api/v1/actions/{id}", self.release),
            web.get("/api/v1/budgets", self.budgets),
            web.get("/api/v1/shadow", self.shadow),
            web.get("/api/v1/explain", self.explain),
            web.get("/api/v1/policy", self.policy),
            web.post("/api/v1/policy/check", self.check_policy),
            web.get("/api/v1/audit", self.audit),
        ]

    async def actions(self, request: web.Request) -> web.StreamResponse:
        """What is in force, the newest first."""
        control, principal = enforcement_of(self._deps), principal_of(request)
        found = [a for a in control.gate.actions() if may_see(principal, a.series)]
        found.sort(key=lambda a: a.since, reverse=True)
        return json_response({"actions": [shown(a, control) for a in found]})

    async def act(self, request: web.Request) -> web.StreamResponse:
        """Block, throttle, downgrade, disable or cut by hand."""
        principal = require(request, Role.OPERATOR)
        control = enforcement_of(self._deps)
        asked = await read_body(request, NewAction)
        if asked.kind in (ActionKind.NOTIFY, ActionKind.WEBHOOK):
            raise web.HTTPBadRequest(text="this kind of action is not taken by hand")
        if asked.kind is ActionKind.THROTTLE and asked.rate_per_second is None:
            raise web.HTTPBadRequest(text="a throttle needs rate_per_second")
        if asked.kind is ActionKind.DOWNGRADE and not asked.models:
            raise web.HTTPBadRequest(text="a downgrade needs models")
        if asked.kind is ActionKind.DISABLE_KEY and asked.dimension is not Dimension.KEY:
            raise web.HTTPBadRequest(text="only a key can be disabled")
        if (asked.value == "") is not (asked.dimension is Dimension.TOTAL):
            raise web.HTTPBadRequest(text="value must be given, and is empty for total alone")
        value = asked.value
        if asked.dimension is Dimension.KEY:
            value = control.keys.resolve(value)
        series = Series(asked.dimension, value)
        if not may_see(principal, series):
            raise web.HTTPNotFound(text="not found")
        now = self._deps.clock()
        action = Action(
            id="act_" + secrets.token_hex(8),
            kind=asked.kind,
            series=series,
            since=now,
            until=None if asked.seconds is None else now + asked.seconds,
            mode=asked.mode,
            rule="manual",
            reason=asked.reason,
            rate_per_second=asked.rate_per_second,
            models=asked.models,
            cut=asked.cut and asked.kind is ActionKind.BLOCK,
            origin="manual",
            actor=principal.name,
            incident=asked.incident,
        )
        control.act(action, by=principal.name)
        return json_response(shown(action, control), 201)

    async def release(self, request: web.Request) -> web.StreamResponse:
        """Take an action back."""
        principal = require(request, Role.OPERATOR)
        control = enforcement_of(self._deps)
        action = control.gate.in_force.get(request.match_info["id"])
        if action is None or not may_see(principal, action.series):
            raise web.HTTPNotFound(text="no such action is in force")
        why = str((await read_json(request)).get("reason", ""))[:500]
        control.release(action.id, by=principal.name, why=why)
        return json_response({"released": shown(action, control)})

    async def budgets(self, request: web.Request) -> web.StreamResponse:
        """Where budgets and limits stand, those nearest their end first."""
        principal, now = principal_of(request), self._deps.clock()
        counters = [
            c
            for c in enforcement_of(self._deps).gate.counters
            if c.span.name and may_see(principal, c.series)
        ]
        counters.sort(key=lambda c: c.used_now / c.rule.limit, reverse=True)
        return json_response(
            {
                "budgets": [self._budget(c, now) for c in counters if c.rule.kind == "budget"],
                "limits": [standing(c, now) for c in counters if c.rule.kind == "limit"][:1000],
                "now": now,
            }
        )

    def _budget(self, counter: Counter, now: float) -> dict[str, Any]:
        used, limit = counter.used_now, counter.rule.limit
        hour = enforcement_of(self._deps).alerts.spent(counter, now, 3600.0)
        left = exhausted_in(max(0, limit - used), hour, 3600.0)
        row = standing(counter, now)
        pace = hour / 3600.0
        if row["resets_at"] is not None:
            row["forecast_nano_usd"] = int(used + pace * (row["resets_at"] - now))
        return row | {
            "name": counter.rule.name,
            "spent_nano_usd": used,
            "limit_nano_usd": limit,
            "spent_last_hour_nano_usd": hour,
            "exhausted_at": None if left is None else now + left,
        }

    async def shadow(self, request: web.Request) -> web.StreamResponse:
        """What shadow mode would have done."""
        principal = principal_of(request)
        shadowed = self._deps.shadowed
        if shadowed is None:
            raise web.HTTPServiceUnavailable(text="enforcement is not running in this worker")
        with told_if_away():
            rows = await shadowed()
        rows = [
            row
            for row in rows
            if may_see(principal, Series(row["series"]["dimension"], row["series"]["value"]))
        ]
        return json_response({"rows": rows})

    async def explain(self, request: web.Request) -> web.StreamResponse:
        """What would happen to a call now, and by which rule."""
        require_all_projects(request)
        control = enforcement_of(self._deps)
        ctx = call_of(request, control)
        return json_response(explained(control.gate, ctx, self._deps.clock()))

    async def policy(self, request: web.Request) -> web.StreamResponse:
        """The settings in force, and the file they came from."""
        require_all_projects(request)
        if self._deps.config is None:
            raise web.HTTPServiceUnavailable(text="no configuration is loaded")
        settings: config.Settings = self._deps.config()
        parts = {"mode", "policies", "limits", "budgets", "protect", "blast_radius"}
        return json_response(
            {
                "path": settings.source,
                "loaded_at": self._deps.runtime.config_loaded_at,
                "text": settings.text,
                "in_force": settings.model_dump(mode="json", include=parts),
            }
        )

    async def check_policy(self, request: web.Request) -> web.StreamResponse:
        """The faults of a text, without taking it. Environment variables count as set."""
        require_all_projects(request)
        text = (await read_json(request)).get("text")
        if not isinstance(text, str):
            raise web.HTTPBadRequest(text='send {"text": "..."}')
        return json_response(
            {
                "faults": [
                    {"line": f.line, "column": f.column, "path": f.path, "message": f.message}
                    for f in config.faults(text)
                ]
            }
        )

    async def audit(self, request: web.Request) -> web.StreamResponse:
        """Who did what, the newest first."""
        require_all_projects(request)
        trail = enforcement_of(self._deps).audit
        if trail is None:
            raise web.HTTPServiceUnavailable(text="this worker keeps no audit trail")
        try:
            limit = min(_MOST_AUDIT, max(1, int(request.query.get("limit", "100"))))
            before = float(request.query["before"]) if "before" in request.query else None
        except ValueError:
            raise web.HTTPBadRequest(text="limit and before must be numbers") from None
        return json_response({"entries": trail.read(limit, before)})


def shown(action: Action, control: Enforcement) -> dict[str, Any]:
    """An action as the API shows it."""
    found = to_json(action)
    series = {"dimension": found["dimension"], "value": found["value"]}
    if action.series.dimension == Dimension.KEY:
        series["label"] = control.keys.label(action.series.value)
    return found | {"series": series}


def call_of(request: web.Request, control: Enforcement) -> RequestContext:
    """The call that a query describes."""
    asked = request.query
    key = control.keys.resolve(asked["key"]) if asked.get("key") else None
    record = control.keys.find(key) if key is not None else None
    tags = dict(part.partition("=")[::2] for part in asked.get("tags", "").split(",") if part)
    try:
        most = int(asked["max_tokens"]) if "max_tokens" in asked else None
        size = int(asked.get("body_bytes", "1000"))
    except ValueError:
        raise web.HTTPBadRequest(text="max_tokens and body_bytes must be whole numbers") from None
    model = asked.get("model") or None
    provider = asked.get("provider") or "openai"
    return RequestContext(
        id="explain",
        provider=provider,
        upstream=provider,
        wire=asked.get("wire", "openai"),
        endpoint=asked.get("endpoint", "chat_completions"),
        key=key,
        agent=asked.get("agent") or None,
        project=asked.get("project") or (record.project if record is not None else None),
        user=asked.get("user") or None,
        session=asked.get("session") or None,
        tags=tags,
        model=model,
        virtual_key=record.id if record is not None else None,
        facts=RequestFacts(model=model, max_output_tokens=most, body_bytes=size),
    )


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""
    return [*ControlRoutes(deps).routes(), *control_keys.KeyRoutes(deps).routes()]
