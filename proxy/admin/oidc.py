"""Sign-in with OpenID Connect: authorization code with PKCE.

Owns: the way to the issuer and back, the checks of the ID token, and the role that its
claims give. Must never: accept a token that came by way of the browser, follow a
redirect of the issuer's endpoints, or let someone in without a role.

The ID token is read only from the answer of the issuer's token endpoint, asked over
TLS, which OpenID Connect Core 1.0 section 3.1.3.7 (6) takes in place of its signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import orjson
import structlog
from aiohttp import web

from proxy.admin.auth import Authenticator, too_many_attempts
from proxy.admin.principal import Principal, Role, role_of
from proxy.admin.settings import OIDCSettings

PURPOSE: Final = "oidc"
COOKIE: Final = "tokenweir_oidc"
_WAY_SECONDS: Final = 600.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_LARGEST_ANSWER: Final = 1 << 20
_DISCOVERY_SECONDS: Final = 3600.0
_LEEWAY_SECONDS: Final = 60.0

log = structlog.get_logger()


class OIDCError(Exception):
    """Why somebody could not be let in; for the log, never for the browser."""


def _is_safe(url: object) -> bool:
    parts = urlsplit(url if isinstance(url, str) else "")
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and local))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def challenge_of(verifier: str) -> str:
    """The S256 challenge of RFC 7636.

    >>> challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'
    """
    return _base64url(hashlib.sha256(verifier.encode("ascii")).digest())


def claims_of(id_token: str) -> dict[str, Any]:
    """The payload of a JWT. Raises :class:`OIDCError` for anything else."""
    try:
        payload = id_token.split(".")[1]
        found = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError):
        found = None
    if not isinstance(found, dict):
        raise OIDCError("the ID token is no JWT")
    return found


def check_claims(claims: Mapping[str, Any], settings: OIDCSettings, nonce: str, now: float) -> None:
    """What OpenID Connect Core 1.0 section 3.1.3.7 asks of an ID token.

    Raises
    ------
    OIDCError
        With the claim that doesn't hold.
    """
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if str(claims.get("iss", "")).rstrip("/") != settings.issuer:
        raise OIDCError("iss is another issuer")
    if settings.client_id not in audiences:
        raise OIDCError("aud is not this client")
    if len(audiences) > 1 and claims.get("azp") != settings.client_id:
        raise OIDCError("azp is not this client")
    expires, issued = claims.get("exp"), claims.get("iat")
    if not isinstance(expires, int | float) or now > expires + _LEEWAY_SECONDS:
        raise OIDCError("exp has passed")
    if not isinstance(issued, int | float) or issued > now + _LEEWAY_SECONDS:
        raise OIDCError("iat lies ahead")
    if not hmac.compare_digest(str(claims.get("nonce", "")), nonce):
        raise OIDCError("nonce is another one")


def principal_of_claims(claims: Mapping[str, Any], settings: OIDCSettings) -> Principal:
    """Who they are, and the highest role that the role claim gives.

    Raises
    ------
    OIDCError
        Where no role is given.
    """
    value = claims.get(settings.role_claim)
    words = value if isinstance(value, list) else [value]
    roles = [
        role_of(settings.roles[w]) for w in words if isinstance(w, str) and w in settings.roles
    ]
    if settings.default_role is not None:
        roles.append(role_of(settings.default_role))
    if not roles:
        raise OIDCError("no role is given to this person")
    email = claims.get("email") if claims.get("email_verified") is not False else None
    name = email or claims.get("preferred_username") or claims.get("sub")
    if not isinstance(name, str) or not name:
        raise OIDCError("the ID token names nobody")
    return Principal(name[:128], Role(max(roles)), via="session")


class OIDCRoutes:
    """``/oidc/start`` and ``/oidc/callback``.

    Parameters
    ----------
    settings
        The issuer and what its claims are worth.
    authenticator
        Starts the session.
    clock
        Epoch seconds.
    url
        How people reach the dashboard, asked at each sign-in.
    """

    def __init__(
        self,
        settings: OIDCSettings,
        authenticator: Authenticator,
        clock: Callable[[], float],
        url: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._clock = clock
        self._url = url
        self._known: dict[str, Any] = {}
        self._known_until = 0.0

    def routes(self) -> list[web.RouteDef]:
        """To be mounted by the server."""
        return [
            web.get("/oidc/start", self.start),
            web.get("/oidc/callback", self.callback),
        ]

    def _redirect_uri(self) -> str:
        return f"{self._url()}/oidc/callback"

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Off to the issuer, with what must come back in a cookie of ten minutes."""
        try:
            issuer = await self._discover()
        except (OIDCError, aiohttp.ClientError, TimeoutError) as error:
            return self._refused(request, error)
        way = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_uri(),
            "scope": " ".join(self._settings.scopes),
            "state": way["state"],
            "nonce": way["nonce"],
            "code_challenge": challenge_of(way["verifier"]),
            "code_challenge_method": "S256",
        }
        target = issuer["authorization_endpoint"]
        mark = "&" if urlsplit(target).query else "?"
        response = web.Response(
            status=303, headers={"Location": f"{target}{mark}{urlencode(query)}"}
        )
        response.set_cookie(
            COOKIE,
            self._authenticator.tickets.issue(PURPOSE, way, _WAY_SECONDS),
            max_age=int(_WAY_SECONDS),
            httponly=True,
            samesite="Lax",  # the issuer's redirect comes from another site
            secure=request.secure or self._url().startswith("https:"),
            path="/oidc",
        )
        return response

    async def callback(self, request: web.Request) -> web.StreamResponse:
        """Back from the issuer: exchange the code, check, start the session."""
        if self._authenticator.is_blocked(request.remote or ""):
            raise too_many_attempts()
        try:
            principal = await self._principal(request)
        except (OIDCError, aiohttp.ClientError, TimeoutError) as error:
            return self._refused(request, error)
        response = web.Response(status=303, headers={"Location": "/"})
        secure = request.secure or self._url().startswith("https:")
        self._authenticator.start_session(response, principal, secure)
        response.del_cookie(COOKIE, path="/oidc")
        return response

    def _refused(self, request: web.Request, error: Exception) -> web.StreamResponse:
        log.warning("oidc sign-in refused", reason=str(error) or type(error).__name__)
        self._authenticator.note_failure(request.remote or "", "oidc")
        response = web.Response(status=303, headers={"Location": "/#/signin/refused"})
        response.del_cookie(COOKIE, path="/oidc")
        return response

    async def _principal(self, request: web.Request) -> Principal:
        way = self._authenticator.tickets.read(PURPOSE, request.cookies.get(COOKIE, ""))
        if way is None:
            raise OIDCError("the sign-in was not begun in this browser, or is too long ago")
        if not hmac.compare_digest(request.query.get("state", ""), way["state"]):
            raise OIDCError("state is another one")
        if "error" in request.query:
            raise OIDCError(f"the issuer says {request.query['error'][:100]!r}")
        code = request.query.get("code", "")
        if not code:
            raise OIDCError("no code came back")
        claims = claims_of(await self._exchange(code, way["verifier"]))
        check_claims(claims, self._settings, way["nonce"], self._clock())
        return principal_of_claims(claims, self._settings)

    async def _exchange(self, code: str, verifier: str) -> str:
        issuer = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri(),
            "client_id": self._settings.client_id,
            "code_verifier": verifier,
        }
        secret = self._settings.client_secret
        methods = issuer.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        headers = {}
        if secret is not None and "client_secret_basic" in methods:
            login = quote(self._settings.client_id, safe="")  # RFC 6749 section 2.3.1
            password = quote(secret.get_secret_value(), safe="")
            headers["Authorization"] = aiohttp.encode_basic_auth(login, password)
        elif secret is not None:
            form["client_secret"] = secret.get_secret_value()
        answer = await self._ask("POST", issuer["token_endpoint"], data=form, headers=headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise OIDCError(f"no ID token came: {str(answer.get('error', 'unknown'))[:100]}")
        return token

    async def _discover(self) -> dict[str, Any]:
        """The issuer's discovery document, kept for an hour."""
        if self._clock() >= self._known_until:
            url = f"{self._settings.issuer}/.well-known/openid-configuration"
            found = await self._ask("GET", url)
            if str(found.get("issuer", "")).rstrip("/") != self._settings.issuer:
                raise OIDCError("the discovery document is of another issuer")
            for name in ("authorization_endpoint", "token_endpoint"):
                if not _is_safe(found.get(name)):
                    raise OIDCError(f"{name} is no https URL")
            self._known, self._known_until = found, self._clock() + _DISCOVERY_SECONDS
        return self._known

    async def _ask(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
            session.request(method, url, allow_redirects=False, **more) as response,
        ):
            body = await response.content.read(_LARGEST_ANSWER)
            status = response.status
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or (status != 200 and "error" not in found):
            raise OIDCError(f"{urlsplit(url).path} answered {status}")
        return found
