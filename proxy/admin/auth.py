"""Authentication on the admin port: tokens, sessions, a trusted header.

Owns: finding out who asks. Must never: say why a credential was refused, log
one, compare one in variable time, or let a request through unnamed.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from aiohttp import web

from proxy.admin.principal import Principal, Role, role_of
from proxy.admin.sessions import Attempts, Clock, Revoked, SignInCodes, Tickets
from proxy.admin.settings import AdminSettings

SESSION_COOKIE = "tokenweir_session"
_SESSION = "session"
TOKEN_VARIABLE = "TOKENWEIR_ADMIN_TOKEN"  # noqa: S105


def load_admin_token(data_dir: Path, environ: Mapping[str, str]) -> tuple[str, bool]:
    """The admin token, and whether it was made just now.

    ``TOKENWEIR_ADMIN_TOKEN`` wins; else ``data_dir/admin-token``, which the
    first start creates with mode 600.

    Raises
    ------
    ValueError
        If the variable holds fewer than 16 characters.
    OSError
        If the file can't be read or made.
    """
    given = environ.get(TOKEN_VARIABLE, "").strip()
    if given:
        if len(given) < 16:
            raise ValueError(f"{TOKEN_VARIABLE} is shorter than 16 characters")
        return given, False
    path = data_dir / "admin-token"
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        token = path.read_text().strip()
        if len(token) >= 16:
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            return token, False
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)  # a torn first start
    token = "twa_" + secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return token, True


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class Authenticator:
    """Names the caller of a request, or refuses.

    Parameters
    ----------
    settings
        The `admin` section.
    token
        The admin token of :func:`load_admin_token`.
    clock
        Epoch seconds.
    on_failure
        Called with a word for the metric on every refusal.
    """

    def __init__(
        self,
        settings: AdminSettings,
        token: str,
        clock: Clock,
        on_failure: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.tickets = Tickets(token, clock)
        self.codes = SignInCodes(clock)
        self._revoked = Revoked(clock)
        self._attempts = Attempts(clock, settings.sign_in_attempts_per_minute)
        self._settings = settings
        self._on_failure = on_failure
        self._tokens = [(_digest(token), Principal("admin", Role.ADMIN))]
        for entry in settings.tokens:
            principal = Principal(
                entry.name, role_of(entry.role), frozenset(entry.projects) or None
            )
            self._tokens.append((_digest(entry.token.get_secret_value()), principal))
        trusted = settings.trusted_header
        self._networks = [ipaddress.ip_network(n) for n in trusted.networks] if trusted else []

    def has_credentials(self, request: web.Request) -> bool:
        """Whether there is anything to check, so that asking nobody's name is no failure."""
        return (
            "Authorization" in request.headers
            or SESSION_COOKIE in request.cookies
            or self._settings.trusted_header is not None
        )

    def authenticate(self, request: web.Request) -> Principal | None:
        """Who asks, or ``None``. A present but wrong credential is never passed over."""
        if "Authorization" in request.headers:
            return self._by_bearer(request)
        cookie = request.cookies.get(SESSION_COOKIE)
        if cookie:
            principal = self.session(cookie)
            if principal is None:
                self._on_failure("session")
            return principal
        principal = self._by_trusted_header(request)
        if principal is None:
            self._on_failure("missing")
        return principal

    def _by_bearer(self, request: web.Request) -> Principal | None:
        client = request.remote or ""
        if self.is_blocked(client):
            raise too_many_attempts()
        values = request.headers.getall("Authorization")
        scheme, _, token = values[0].partition(" ")
        if len(values) == 1 and scheme.lower() == "bearer":
            principal = self.by_token(token)
            if principal is not None:
                return principal
        self.note_failure(client, "token")
        return None

    def by_token(self, token: str) -> Principal | None:
        """The principal of a token; takes the same time for every wrong one."""
        presented = _digest(token)
        found = None
        for known, principal in self._tokens:
            if hmac.compare_digest(known, presented):
                found = principal
        return found if token else None

    def _by_trusted_header(self, request: web.Request) -> Principal | None:
        trusted = self._settings.trusted_header
        if trusted is None:
            return None
        names = request.headers.getall(trusted.user, [])
        if len(names) != 1 or not names[0].strip() or not self._from_trusted_peer(request):
            return None
        name = names[0].strip()[:128]
        role = trusted.roles.get(name, trusted.default_role)
        return Principal(name, role_of(role), via="header") if role else None

    def _from_trusted_peer(self, request: web.Request) -> bool:
        try:
            peer = ipaddress.ip_address(request.remote or "")
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._networks)

    # -- sessions of the dashboard ------------------------------------------------

    def sign_in(self, client: str, *, token: str = "", code: str = "") -> Principal | None:
        """The principal of a token or one-time code given to the sign-in page.

        Raises
        ------
        aiohttp.web.HTTPTooManyRequests
            After too many failures of this client in a minute.
        """
        if self.is_blocked(client):
            raise too_many_attempts()
        if code and self.codes.redeem(code):
            return Principal("admin", Role.ADMIN, via="session")
        principal = self.by_token(token) if token else None
        if principal is None:
            self.note_failure(client, "sign_in")
        return principal

    def is_blocked(self, client: str) -> bool:
        """Whether this client failed too often in the running minute."""
        return self._attempts.blocked(client)

    def note_failure(self, client: str, reason: str) -> None:
        """Count a failed sign-in against the client."""
        self._attempts.failed(client)
        self._on_failure(reason)

    def start_session(
        self, response: web.StreamResponse, principal: Principal, secure: bool
    ) -> None:
        """Give the browser a session of this principal."""
        seconds = self._settings.session_hours * 3600.0
        payload = {
            "name": principal.name,
            "role": principal.role.label,
            "projects": None if principal.projects is None else sorted(principal.projects),
            "nonce": secrets.token_hex(8),
        }
        response.set_cookie(
            SESSION_COOKIE,
            self.tickets.issue(_SESSION, payload, seconds),
            max_age=int(seconds),
            httponly=True,
            samesite="Strict",
            secure=secure,
            path="/",
        )

    def session(self, cookie: str) -> Principal | None:
        """The principal of a session's cookie, if it is good."""
        payload = self.tickets.read(_SESSION, cookie)
        if payload is None or cookie in self._revoked:
            return None
        projects = payload["projects"]
        return Principal(
            payload["name"],
            role_of(payload["role"]),
            None if projects is None else frozenset(projects),
            via="session",
        )

    def end_session(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the request's session, here and in the browser."""
        cookie = request.cookies.get(SESSION_COOKIE, "")
        payload = self.tickets.read(_SESSION, cookie)
        if payload is not None:
            self._revoked.add(cookie, payload["until"])
        response.del_cookie(SESSION_COOKIE, path="/")


def too_many_attempts() -> web.HTTPTooManyRequests:
    """The refusal of a client that failed too often."""
    return web.HTTPTooManyRequests(
        text="too many failed attempts; wait a minute", headers={"Retry-After": "60"}
    )
