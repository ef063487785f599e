"""What stands in front of every admin handler.

Owns: the middlewares: error bodies, security headers, the Host check against
DNS rebinding, the cross-site check, authentication and the default role per
method. Must never: know a route's business, or answer with a stack trace.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.admin.auth import Authenticator
from proxy.admin.principal import Role
from proxy.admin.settings import AdminSettings

CSP = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
#: Sent with every call of the dashboard that changes something. Another site
#: can't add it without asking first, and is never told yes.
CSRF_HEADER = "X-Tokenweir-Request"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

#: What is served to anyone: the dashboard's files (no data is in them), probes,
#: signing in, and the widget, whose link is signed. All else needs credentials.
_OPEN_PATHS = frozenset({"/", "/favicon.svg", "/signin", "/api/v1/session"})
_OPEN_PREFIXES = ("/assets/", "/health/", "/embed/", "/oidc/", "/incidents/")

log = structlog.get_logger()


def json_response(value: object, status: int = 200) -> web.Response:
    """A JSON answer that no cache keeps."""
    return web.Response(
        body=orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def problem(status: int, message: str) -> web.Response:
    """An error's body, the same everywhere: ``{"error": {"status", "message"}}``."""
    return json_response({"error": {"status": status, "message": message}}, status)


def host_is_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Whether a Host value can't come from a rebound name of another site.

    Addresses, localhost and single-label names can't be pointed here by a
    stranger's DNS; other names must be configured.

    >>> host_is_allowed("127.0.0.1:8788", frozenset())
    True
    >>> host_is_allowed("evil.example:8788", frozenset())
    False
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if not name or set(host) & set("/@?# \t\\"):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(".localhost") or name in allowed
    return True


def is_cross_site(request: web.Request) -> bool:
    """Whether a browser says that another site made this request."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()


class Guard:
    """The middlewares, outermost first in :attr:`middlewares`."""

    def __init__(self, settings: AdminSettings, authenticator: Authenticator) -> None:
        names = {name.lower() for name in settings.allowed_hosts}
        if settings.public_url:
            names.add(urlsplit(settings.public_url).hostname or "")
        self._hosts = frozenset(names)
        self._authenticator = authenticator
        self._open_metrics = settings.metrics_access == "open"

    @property
    def middlewares(self) -> list[Middleware]:
        """For ``web.Application(middlewares=...)``."""
        return [self._answer, self._admit]

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                response = error
            else:
                response = problem(error.status, error.text or error.reason)
                for name in ("Allow", "Retry-After", "WWW-Authenticate"):
                    if name in error.headers:
                        response.headers[name] = error.headers[name]
        except Exception:
            log.exception("admin handler failed", path=request.path)
            response = problem(500, "internal error; the log has the reason")
        if not response.prepared:
            response.headers.setdefault("Content-Security-Policy", CSP)
            response.headers.update(_HEADERS)
        return response

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not host_is_allowed(request.headers.get("Host", ""), self._hosts):
            raise web.HTTPMisdirectedRequest(
                text="this Host is not known here; add it to admin.allowed_hosts"
            )
        if request.method not in _SAFE and is_cross_site(request):
            raise web.HTTPForbidden(text="cross-site request refused")
        if not self._needs_credentials(request):
            return await handler(request)
        principal = self._authenticator.authenticate(request)
        if principal is None:
            raise web.HTTPUnauthorized(
                text="a valid admin token is needed", headers={"WWW-Authenticate": "Bearer"}
            )
        if request.method not in _SAFE:
            if principal.via != "token" and CSRF_HEADER not in request.headers:
                raise web.HTTPForbidden(text=f"the header {CSRF_HEADER} is missing")
            if principal.role < Role.OPERATOR:
                raise web.HTTPForbidden(text="this needs the role operator")
        request["principal"] = principal
        return await handler(request)

    def _needs_credentials(self, request: web.Request) -> bool:
        path = request.path
        if path == "/metrics":
            return not self._open_metrics
        if path in _OPEN_PATHS or path.startswith(_OPEN_PREFIXES):
            return False
        unknown = request.match_info.http_exception is not None
        return not unknown or path.startswith(("/api/", "/billing/"))
