"""Sign-in with OpenID Connect against an issuer that checks what it is sent."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from aiohttp import web

from proxy.admin.auth import SESSION_COOKIE
from proxy.admin.oidc import COOKIE, OIDCError, challenge_of, check_claims, principal_of_claims
from proxy.admin.principal import Role
from proxy.admin.settings import AdminSettings, OIDCSettings
from tests.unit.admin.conftest import at

CLIENT, SECRET = "tokenweir", "the-client-secret"


class Issuer:
    """A small issuer: one-time codes, PKCE S256, client authentication, strict redirect URIs."""

    def __init__(self) -> None:
        self.url = ""
        self.claims: dict = {"sub": "u1", "email": "ada@example.com", "groups": ["oncall"]}
        self.overrides: dict = {}
        self.codes: dict[str, dict] = {}
        self.discovery: dict = {}
        self.asked: list[dict] = []

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self.configuration)
        app.router.add_post("/token", self.token)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def configuration(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                **self.discovery,
            }
        )

    def authorize(self, location: str) -> str:
        """What the person's browser is sent back to after they agreed."""
        asked = {k: v[0] for k, v in parse_qs(urlsplit(location).query).items()}
        assert asked["response_type"] == "code" and asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        self.asked.append(asked)
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self.codes.pop(str(form.get("code")), None)
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {basic}":
            return web.json_response({"error": "invalid_client"}, status=401)
        if (
            asked is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != asked["redirect_uri"]
            or challenge_of(str(form["code_verifier"])) != asked["code_challenge"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = time.time()
        claims = {
            "iss": self.url, "aud": CLIENT, "exp": now + 300, "iat": now,
            "nonce": asked["nonce"], **self.claims, **self.overrides,
        }  # fmt: skip
        parts = [{"alg": "RS256"}, claims]
        body = ".".join(
            base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts
        )
        return web.json_response({"id_token": f"{body}.c2lnbmF0dXJl", "token_type": "Bearer"})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    await made.start()
    yield made
    await made.stop()


def settings_for(issuer: Issuer, **more) -> AdminSettings:
    values = {"roles": {"oncall": "operator"}, "client_secret": SECRET, **more}
    return AdminSettings(oidc=OIDCSettings(issuer=issuer.url, client_id=CLIENT, **values))


async def begin(client, server) -> tuple[str, str]:
    """The issuer's address and our cookie."""
    async with client.get(at(server, "/oidc/start"), allow_redirects=False) as answer:
        assert answer.status == 303
        cookie = SimpleCookie("; ".join(answer.headers.getall("Set-Cookie", [])))
        if COOKIE in cookie and cookie[COOKIE].value:
            assert cookie[COOKIE]["httponly"] and cookie[COOKIE]["samesite"] == "Lax"
        return answer.headers["Location"], cookie[COOKIE].value


async def back(client, server, url: str, cookie: str) -> tuple[str, str]:
    """Where the callback leads, and the session it starts."""
    parts = urlsplit(url)
    headers = {"Cookie": f"{COOKIE}={cookie}", "Sec-Fetch-Site": "cross-site"}
    path = f"{parts.path}?{parts.query}"
    async with client.get(at(server, path), headers=headers, allow_redirects=False) as answer:
        assert answer.status == 303
        session = answer.cookies.get(SESSION_COOKIE)
        if session is not None:
            assert session["httponly"] and session["samesite"] == "Strict"
        return answer.headers["Location"], session.value if session else ""


async def who(client, server, session: str) -> dict:
    headers = {"Cookie": f"{SESSION_COOKIE}={session}"}
    async with client.get(at(server, "/api/v1/session"), headers=headers) as answer:
        return await answer.json()


async def test_a_person_with_a_role_gets_in(start, client, issuer) -> None:
    server = await start(settings_for(issuer), clock=time.time)
    location, cookie = await begin(client, server)
    assert location.startswith(f"{issuer.url}/authorize?")
    target, session = await back(client, server, issuer.authorize(location), cookie)
    assert target == "/"
    found = await who(client, server, session)
    assert (found["name"], found["role"]) == ("ada@example.com", "operator")
    assert len({asked["state"] for asked in issuer.asked}) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "another"},
        {"aud": ["another", CLIENT], "azp": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"iat": 9e12},
        {"nonce": "another"},
        {"groups": ["nobody"]},
        {"groups": None},
        {"groups": {"oncall": 1}},
    ],
)
async def test_anything_wrong_in_the_token_is_refused(start, client, issuer, wrong) -> None:
    issuer.overrides = wrong
    server = await start(settings_for(issuer), clock=time.time)
    location, cookie = await begin(client, server)
    target, session = await back(client, server, issuer.authorize(location), cookie)
    assert (target, session) == ("/#/signin/refused", "")


async def test_state_cookie_and_code_must_belong_together(start, client, issuer) -> None:
    server = await start(settings_for(issuer), clock=time.time)
    location, cookie = await begin(client, server)
    other_location, other_cookie = await begin(client, server)
    good = issuer.authorize(location)
    refused = ("/#/signin/refused", "")
    assert await back(client, server, good, "") == refused
    assert await back(client, server, good, other_cookie) == refused
    assert await back(client, server, good.replace("state=", "state=x"), cookie) == refused
    assert await back(client, server, f"{good}&error=access_denied", cookie) == refused
    # A code of another sign-in does not fit this one's verifier.
    stolen = issuer.authorize(other_location)
    code = parse_qs(urlsplit(stolen).query)["code"][0]
    mixed = good.replace(parse_qs(urlsplit(good).query)["code"][0], code)
    assert await back(client, server, mixed, cookie) == refused
    # The true one still works, and only once.
    assert (await back(client, server, good, cookie))[0] == "/"
    assert await back(client, server, good, cookie) == refused


async def test_a_wrong_secret_or_issuer_lets_nobody_in(start, client, issuer) -> None:
    server = await start(settings_for(issuer, client_secret="wrong"), clock=time.time)
    location, cookie = await begin(client, server)
    assert (await back(client, server, issuer.authorize(location), cookie))[1] == ""
    issuer.discovery = {"issuer": "https://evil.example"}
    server = await start(settings_for(issuer), clock=time.time)
    location, _ = await begin(client, server)
    assert location == "/#/signin/refused"
    issuer.discovery = {"token_endpoint": "http://evil.example/token"}
    server = await start(settings_for(issuer), clock=time.time)
    assert (await begin(client, server))[0] == "/#/signin/refused"


async def test_without_the_section_there_is_no_such_door(start, client) -> None:
    server = await start()
    for path in ("/oidc/start", "/oidc/callback?code=x&state=y"):
        async with client.get(at(server, path), allow_redirects=False) as answer:
            assert answer.status == 404


async def test_failures_count_against_the_client(start, client, issuer) -> None:
    server = await start(settings_for(issuer), clock=time.time)
    for _ in range(10):
        await back(client, server, "/oidc/callback?code=x&state=y", "forged")
    async with client.get(at(server, "/oidc/callback?code=x"), allow_redirects=False) as answer:
        assert answer.status == 429


def test_the_highest_role_counts_and_the_default_is_none() -> None:
    settings = OIDCSettings(
        issuer="https://id.example", client_id=CLIENT, roles={"a": "viewer", "b": "admin"}
    )
    assert principal_of_claims({"sub": "x", "groups": ["a", "b"]}, settings).role is Role.ADMIN
    with pytest.raises(OIDCError):
        principal_of_claims({"sub": "x"}, settings)
    unverified = {"sub": "x", "email": "boss@example.com", "email_verified": False, "groups": "a"}
    assert principal_of_claims(unverified, settings).name == "x"
    with pytest.raises(OIDCError, match="exp"):
        check_claims({"iss": "https://id.example", "aud": CLIENT}, settings, "", 0.0)
