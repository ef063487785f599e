"""Signing in and out of the dashboard.

Owns: the one-time link, the sign-in form's call, and who-am-I. Must never: put
a token into a URL, a page or a log, or tell a wrong token from a spent code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from proxy.admin.auth import Authenticator
from proxy.admin.guard import json_response
from proxy.admin.principal import Principal, Role, require

_LONGEST_FORM_BYTES = 8192


class SessionRoutes:
    """Handlers bound to the authenticator."""

    def __init__(
        self, authenticator: Authenticator, link: Callable[[], str], *, oidc: bool
    ) -> None:
        self._authenticator = authenticator
        self._link = link
        self._oidc = oidc

    def routes(self) -> list[web.RouteDef]:
        """To be mounted by the server."""
        return [
            web.get("/signin", self.by_link),
            web.get("/api/v1/session", self.show),
            web.post("/api/v1/session", self.by_token),
            web.delete("/api/v1/session", self.leave),
            web.post("/api/v1/sign-in-links", self.make_link),
        ]

    async def by_link(self, request: web.Request) -> web.StreamResponse:
        """``GET /signin?code=``: spend the code, start a session, open the dashboard."""
        principal = self._authenticator.sign_in(
            request.remote or "", code=request.query.get("code", "")
        )
        if principal is None:
            return web.Response(status=303, headers={"Location": "/#/signin/expired"})
        response = web.Response(status=303, headers={"Location": "/"})
        self._authenticator.start_session(response, principal, request.secure)
        return response

    async def by_token(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/v1/session {"token": ...}`` from the sign-in page."""
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="send JSON")
        body = await request.content.read(_LONGEST_FORM_BYTES)
        try:
            token = orjson.loads(body)["token"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            token = None
        if not isinstance(token, str):
            raise web.HTTPBadRequest(text='send {"token": "..."}')
        principal = self._authenticator.sign_in(request.remote or "", token=token.strip())
        if principal is None:
            raise web.HTTPUnauthorized(text="this token is not known")
        response = json_response(self._describe(principal))
        self._authenticator.start_session(response, principal, request.secure)
        return response

    async def make_link(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/v1/sign-in-links``: a fresh link that signs in once, as admin."""
        require(request, Role.ADMIN)
        return json_response({"link": self._link()}, 201)

    async def leave(self, request: web.Request) -> web.StreamResponse:
        """``DELETE /api/v1/session``: end it everywhere."""
        response = json_response({"signed_in": False})
        self._authenticator.end_session(request, response)
        return response

    async def show(self, request: web.Request) -> web.StreamResponse:
        """``GET /api/v1/session``: who is signed in; 200 also for nobody."""
        principal = None
        if self._authenticator.has_credentials(request):
            principal = self._authenticator.authenticate(request)
        return json_response(self._describe(principal))

    def _describe(self, principal: Principal | None) -> dict[str, Any]:
        if principal is None:
            return {"signed_in": False, "oidc": self._oidc}
        return {
            "signed_in": True,
            "oidc": self._oidc,
            "name": principal.name,
            "role": principal.role.label,
            "projects": None if principal.projects is None else sorted(principal.projects),
        }


OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/session": {
        "get": {
            "summary": "Who is signed in",
            "security": [],
            "responses": {"200": {"description": "Name, role and projects, or signed_in false"}},
        },
        "post": {
            "summary": "Start a dashboard session with a token",
            "security": [],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["token"],
                            "properties": {"token": {"type": "string"}},
                        }
                    }
                },
            },
            "responses": {
                "200": {"description": "Signed in; the answer sets a cookie"},
                "400": {"description": "Not the expected JSON"},
                "401": {"description": "Unknown token"},
                "403": {"description": "The request came from another site"},
                "415": {"description": "Not JSON"},
                "429": {"description": "Too many failed attempts"},
            },
        },
        "delete": {
            "summary": "End the dashboard session",
            "security": [],
            "responses": {"200": {"description": "Ended"}},
        },
    },
    "/api/v1/sign-in-links": {
        "post": {
            "summary": "Make a link that signs in once, within a quarter of an hour",
            "responses": {"201": {"description": "The link"}},
        }
    },
}
