"""The admin server: metrics, health, the API and the dashboard on one port.

Owns: which routes are mounted behind which guard, and the listening socket.
Must never: serve proxied traffic, or mount a route past the guard.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import structlog
from aiohttp import web

from proxy.admin import (
    embed_routes,
    events,
    health,
    live,
    months,
    openapi,
    overview_routes,
    series_routes,
    session_routes,
    usage_routes,
)
from proxy.admin.auth import Authenticator, load_admin_token
from proxy.admin.deps import AdminDeps
from proxy.admin.exports import export
from proxy.admin.files import Pages
from proxy.admin.guard import Guard, json_response
from proxy.admin.oidc import OIDCRoutes
from proxy.admin.session_routes import SessionRoutes
from proxy.metrics import CONTENT_TYPE
from proxy.store.tasks import cancel

_LARGEST_BODY_BYTES = 1 << 20


log = structlog.get_logger()


class AdminServer:
    """One process's admin port.

    Parameters
    ----------
    deps
        What the routes need.
    host, port
        Where to listen; port 0 takes a free one (see :attr:`port`).
    tls
        Serve TLS with this context.
    """

    def __init__(
        self, deps: AdminDeps, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._deps = deps
        self._host = host
        self._port = port
        self._tls = tls
        token, self.token_is_new = load_admin_token(deps.data_dir, deps.environ)
        self.authenticator = Authenticator(deps.settings, token, deps.clock, self._count_failure)
        self.app = self._build()
        self._runner = web.AppRunner(
            self.app, access_log=None, handler_cancellation=True, shutdown_timeout=2.0
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _count_failure(self, reason: str) -> None:
        self._deps.runtime.auth_failures[reason] += 1

    def _build(self) -> web.Application:
        deps = self._deps
        app = web.Application(
            middlewares=[*Guard(deps.settings, self.authenticator).middlewares, export],
            client_max_size=_LARGEST_BODY_BYTES,
        )
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/health/liveness", deps.health.liveness),
                web.get("/health/readiness", deps.health.readiness),
                web.get("/api/v1/health", deps.health.detail),
                web.get("/api/v1/events", deps.hub.stream),
            ]
        )
        app.add_routes(
            SessionRoutes(
                self.authenticator, self.sign_in_link, oidc=deps.settings.oidc is not None
            ).routes()
        )
        if deps.settings.oidc is not None:
            app.add_routes(
                OIDCRoutes(
                    deps.settings.oidc, self.authenticator, deps.clock, lambda: self.url
                ).routes()
            )
        widget = embed_routes.EmbedRoutes(deps, self.authenticator, lambda: self.url)
        app.add_routes(widget.routes())
        for module in route_modules():
            app.add_routes(module.routes(deps))
        document = api_document(deps.version)

        async def describe(request: web.Request) -> web.Response:
            return json_response(document)

        app.add_routes([web.get("/api/v1/openapi.json", describe)])
        app.add_routes(Pages().routes())
        live.connect(deps)
        deps.background.append(deps.reader.run)
        return app

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=(await self._deps.scrape()).encode(), headers={"Content-Type": CONTENT_TYPE}
        )

    async def start(self) -> None:
        """Listen.

        Raises
        ------
        OSError
            If the address is taken or not ours.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls)
        await site.start()
        for work in self._deps.background:
            self._tasks.append(asyncio.create_task(self._keep_running(work)))

    async def _keep_running(self, work: Callable[[], Awaitable[None]]) -> None:
        """Background work never ends the server, nor ends because of one failure."""
        while True:
            try:
                return await work()
            except Exception:
                log.exception("background work of the admin port failed")
                await asyncio.sleep(5.0)

    async def stop(self) -> None:
        """End live views, then finish what is being answered."""
        self._deps.hub.close()
        await cancel(self._tasks)
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port in use."""
        addresses: list[Any] = self._runner.addresses
        return int(addresses[0][1]) if addresses else self._port

    @property
    def url(self) -> str:
        """How a person reaches the dashboard."""
        if self._deps.settings.public_url:
            return self._deps.settings.public_url
        host = self._host
        if host in ("0.0.0.0", "::", ""):  # noqa: S104
            host = "127.0.0.1"
        if ":" in host:
            host = f"[{host}]"
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def sign_in_link(self) -> str:
        """A link that signs in once, within a quarter of an hour."""
        return f"{self.url}/signin?code={self.authenticator.codes.issue()}"


def api_document(version: str) -> dict[str, Any]:
    """The description that ``/api/v1/openapi.json`` serves."""
    return openapi.document(
        version, [session_routes, embed_routes, health, events, *route_modules()]
    )


def route_modules() -> list[ModuleType]:
    """Every module with ``routes(deps)`` and ``OPENAPI_PATHS``, in mounting order."""
    others = ("control_routes", "trial_routes", "drill_routes", "incident_routes", "billing_routes")
    return [
        usage_routes,
        series_routes,
        months,
        overview_routes,
        *(
            importlib.import_module(f"proxy.admin.{name}")
            for name in others
            if importlib.util.find_spec(f"proxy.admin.{name}")
        ),
    ]
