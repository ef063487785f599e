"""Virtual keys over the API: create, list, disable, enable, rotate, expire, delete.

Owns: `/api/v1/keys`. Must never: show a secret a second time, or a hash at all.
"""

from __future__ import annotations

import secrets
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from detection.types import Action, ActionKind, Dimension, Series
from proxy.admin.control_common import enforcement_of, read_body
from proxy.admin.deps import AdminDeps
from proxy.admin.guard import json_response
from proxy.admin.principal import Principal, Role, principal_of, require
from proxy.enforcement import Enforcement
from proxy.keys import KeyRecord
from proxy.settings import BudgetSettings, LimitSettings, PatternText


class NewKey(BaseModel):
    """The body of ``POST /api/v1/keys``."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=128)
    owner: str = Field("", max_length=128)
    project: str | None = Field(None, max_length=128)
    models: tuple[PatternText, ...] = ()
    providers: tuple[PatternText, ...] = ()
    limits: tuple[LimitSettings, ...] = ()
    budgets: tuple[BudgetSettings, ...] = ()
    expires_in_seconds: float | None = Field(None, gt=0)


class Change(BaseModel):
    """The body of a change: why, and by when."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field("", max_length=500)
    overlap_seconds: float | None = Field(None, ge=0)
    in_seconds: float = Field(0.0, ge=0)


class KeyRoutes:
    """Handlers bound to the parts they need."""

    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps

    def routes(self) -> list[web.RouteDef]:
        """To be mounted by the server."""
        return [
            web.get("/api/v1/keys", self.show),
            web.post("/api/v1/keys", self.create),
            web.post("/api/v1/keys/{id}/disable", self.disable),
            web.post("/api/v1/keys/{id}/enable", self.enable),
            web.post("/api/v1/keys/{id}/rotate", self.rotate),
            web.post("/api/v1/keys/{id}/expire", self.expire),
            web.delete("/api/v1/keys/{id}", self.delete),
        ]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Virtual keys, and passed-through keys that have a name or are disabled."""
        principal, control = principal_of(request), enforcement_of(self._deps)
        keys = [
            {"issued": True, **record.public()}
            for record in control.keys.records()
            if principal.allows_project(record.project)
        ]
        if principal.projects is None:
            keys += self._passed_through(control)
        return json_response({"keys": keys})

    def _passed_through(self, control: Enforcement) -> list[dict[str, Any]]:
        issued = {record.key for record in control.keys.records()}
        disabled = {
            a.series.value: a.reason
            for a in control.gate.actions()
            if a.kind is ActionKind.DISABLE_KEY
        }
        aliases = control.keys.settings.aliases
        return [
            {
                "issued": False,
                "id": key,
                "key": key,
                "name": aliases.get(key, ""),
                "disabled": key in disabled,
                "disabled_reason": disabled.get(key, ""),
            }
            for key in sorted({*aliases, *disabled} - issued)
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """A new key; its secret is in this answer and nowhere else."""
        principal = require(request, Role.ADMIN)
        control = enforcement_of(self._deps)
        asked = await read_body(request, NewKey)
        if not principal.allows_project(asked.project):
            raise web.HTTPNotFound(text="not found")
        if asked.name and control.keys.find(asked.name) is not None:
            raise web.HTTPConflict(text=f"a key is named {asked.name} already")
        expires = asked.expires_in_seconds
        record, secret = control.keys.issue(
            name=asked.name,
            owner=asked.owner,
            project=asked.project,
            models=asked.models,
            providers=asked.providers,
            limits=asked.limits,
            budgets=asked.budgets,
            expires_at=None if expires is None else self._deps.clock() + expires,
        )
        control.put_key(record, by=principal.name)
        return json_response({"secret": secret, **record.public()}, 201)

    async def disable(self, request: web.Request) -> web.StreamResponse:
        """Dead everywhere within a second, until a person enables it."""
        principal, control, record = self._asked(request, Role.OPERATOR)
        asked = await read_body(request, Change) if request.can_read_body else Change()
        if record is None:
            return self._disable_passed_through(request, control, principal, asked.reason)
        changed = record.model_copy(update={"disabled": True, "disabled_reason": asked.reason})
        control.put_key(changed, by=principal.name)
        return json_response(changed.public())

    def _disable_passed_through(
        self, request: web.Request, control: Enforcement, principal: Principal, reason: str
    ) -> web.StreamResponse:
        key = control.keys.resolve(request.match_info["id"])
        if not key.startswith("key_") or principal.projects is not None:
            raise web.HTTPNotFound(text="no such key")
        action = Action(
            id="act_" + secrets.token_hex(8),
            kind=ActionKind.DISABLE_KEY,
            series=Series(Dimension.KEY, key),
            since=self._deps.clock(),
            until=None,
            rule="manual",
            reason=reason,
            cut=True,
            origin="manual",
            actor=principal.name,
        )
        control.act(action, by=principal.name)
        return json_response({"issued": False, "id": key, "key": key, "disabled": True})

    async def enable(self, request: web.Request) -> web.StreamResponse:
        """Let a disabled key in again."""
        principal, control, record = self._asked(request, Role.OPERATOR)
        key = control.keys.resolve(request.match_info["id"]) if record is None else record.key
        if record is None and principal.projects is not None:
            raise web.HTTPNotFound(text="no such key")
        lifted = [
            a
            for a in control.gate.actions()
            if a.kind is ActionKind.DISABLE_KEY and a.series == Series(Dimension.KEY, key)
        ]
        for action in lifted:
            control.release(action.id, by=principal.name)
        if record is None:
            if not lifted:
                raise web.HTTPNotFound(text="no such key is disabled")
            return json_response({"issued": False, "id": key, "key": key, "disabled": False})
        changed = record.model_copy(update={"disabled": False, "disabled_reason": ""})
        control.put_key(changed, by=principal.name)
        return json_response(changed.public())

    async def rotate(self, request: web.Request) -> web.StreamResponse:
        """A new secret; the old one works on for the overlap."""
        principal, control, record = self._asked(request, Role.ADMIN)
        if record is None:
            raise web.HTTPNotFound(text="only a key that the proxy issued can be rotated")
        asked = await read_body(request, Change) if request.can_read_body else Change()
        changed, secret = control.keys.rotated(record, asked.overlap_seconds)
        control.put_key(changed, by=principal.name)
        return json_response({"secret": secret, **changed.public()})

    async def expire(self, request: web.Request) -> web.StreamResponse:
        """End a key at a time, or now."""
        principal, control, record = self._asked(request, Role.ADMIN)
        if record is None:
            raise web.HTTPNotFound(text="only a key that the proxy issued can expire")
        asked = await read_body(request, Change) if request.can_read_body else Change()
        end = self._deps.clock() + asked.in_seconds
        changed = record.model_copy(update={"expires_at": end})
        control.put_key(changed, by=principal.name)
        return json_response(changed.public())

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Forget a key for good."""
        principal, control, record = self._asked(request, Role.ADMIN)
        if record is None:
            raise web.HTTPNotFound(text="no such key")
        control.delete_key(record, by=principal.name)
        return json_response({"deleted": record.id})

    def _asked(
        self, request: web.Request, role: Role
    ) -> tuple[Principal, Enforcement, KeyRecord | None]:
        principal = require(request, role)
        control = enforcement_of(self._deps)
        record = control.keys.find(request.match_info["id"])
        if record is not None and not principal.allows_project(record.project):
            raise web.HTTPNotFound(text="no such key")
        return principal, control, record
