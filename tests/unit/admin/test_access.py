"""Who gets in: tokens, sessions, hosts, other sites, roles, projects."""

from __future__ import annotations

import stat
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict

from proxy.admin.auth import SESSION_COOKIE, load_admin_token
from proxy.admin.guard import CSRF_HEADER, host_is_allowed
from proxy.admin.sessions import Tickets
from proxy.admin.settings import AdminSettings, AdminToken, TrustedHeader
from tests.unit.admin.conftest import TOKEN, Clock, at, bearer

VIEWER = "viewer-token-0123456789"
OPERATOR = "operator-token-0123456789"
SETTINGS = AdminSettings(
    tokens=(
        AdminToken(name="vera", token=VIEWER, role="viewer"),
        AdminToken(name="otto", token=OPERATOR, role="operator"),
    )
)


def test_the_first_start_makes_a_token_only_its_owner_can_read(tmp_path: Path) -> None:
    token, new = load_admin_token(tmp_path / "data", {})
    path = tmp_path / "data" / "admin-token"
    assert new and len(token) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_admin_token(tmp_path / "data", {}) == (token, False)
    path.chmod(0o644)
    load_admin_token(tmp_path / "data", {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_torn_token_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("")
    token, new = load_admin_token(tmp_path, {})
    assert new and (tmp_path / "admin-token").read_text().strip() == token


def test_the_variable_wins_and_a_weak_one_is_refused(tmp_path: Path) -> None:
    assert load_admin_token(tmp_path, {"TOKENWEIR_ADMIN_TOKEN": TOKEN}) == (TOKEN, False)
    assert not (tmp_path / "admin-token").exists()
    with pytest.raises(ValueError, match="16 characters"):
        load_admin_token(tmp_path, {"TOKENWEIR_ADMIN_TOKEN": "short"})


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer wrong")],
        [("Authorization", f"Bearer {TOKEN} {TOKEN}")],
        [("Authorization", f"Bearer {TOKEN},Bearer {TOKEN}")],
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
        [("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {TOKEN}")],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", TOKEN)],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Cookie", f"{SESSION_COOKIE}={TOKEN}")],
        [("X-Forwarded-User", "admin")],
    ],
)
async def test_none_wrong_empty_doubled_are_401(start, client, headers) -> None:
    server = await start()
    for path in ("/api/v1/health", "/api/v1/openapi.json", "/api/v1/nothing", "/billing/x"):
        async with client.get(at(server, path), headers=CIMultiDict(headers)) as answer:
            assert answer.status == 401, path
            assert TOKEN not in await answer.text()


async def test_the_token_opens(start, client) -> None:
    server = await start()
    async with client.get(at(server, "/api/v1/health"), headers=bearer()) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"


async def test_metrics_and_probes_are_open_and_metrics_can_be_closed(start, client) -> None:
    server = await start()
    for path in ("/metrics", "/health/liveness", "/health/readiness"):
        async with client.get(at(server, path)) as answer:
            assert answer.status == 200, path
    closed = await start(AdminSettings(metrics_access="token"))
    async with client.get(at(closed, "/metrics")) as answer:
        assert answer.status == 401
    async with client.get(at(closed, "/metrics"), headers=bearer()) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../admin-token",
        "/assets/../admin-token",
        "/assets/../../auth.py",
        "/assets/..%2f..%2fauth.py",
        "/assets/%2e%2e/%2e%2e/auth.py",
        "/assets//etc/passwd",
        "/assets/",
        "/nothing",
    ],
)
async def test_no_path_names_a_file(start, client, path) -> None:
    server = await start()
    async with client.get(at(server, path)) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8788", True),
        ("[::1]:8788", True),
        ("localhost", True),
        ("tokenweir:8788", True),
        ("weir.example.com", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("a/admin?x=", False),
        ("localhost@evil.example", False),
        ("", False),
    ],
)
def test_host(host: str, allowed: bool) -> None:
    assert host_is_allowed(host, frozenset({"weir.example.com"})) is allowed


async def test_a_rebound_name_is_refused_even_with_the_token(start, client) -> None:
    server = await start()
    headers = {**bearer(), "Host": "evil.example:8788"}
    async with client.get(at(server, "/api/v1/health"), headers=headers) as answer:
        assert answer.status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_post_of_another_site_is_403(start, client, headers) -> None:
    server = await start()
    for path in ("/api/v1/session", "/api/v1/anything"):
        async with client.post(
            at(server, path), headers={**bearer(), **headers}, json={"token": TOKEN}
        ) as answer:
            assert answer.status == 403
            assert "Set-Cookie" not in answer.headers


async def sign_in(server, client: aiohttp.ClientSession, token: str = TOKEN) -> dict[str, str]:
    async with client.post(at(server, "/api/v1/session"), json={"token": token}) as answer:
        assert answer.status == 200, await answer.text()
        cookie = answer.headers["Set-Cookie"]
        for word in ("HttpOnly", "SameSite=Strict", "Path=/"):
            assert word in cookie
    return {"Cookie": cookie.split(";")[0]}


async def test_a_session_reads_but_changes_nothing_without_our_header(start, client) -> None:
    server = await start(SETTINGS)
    cookie = await sign_in(server, client, OPERATOR)
    async with client.get(at(server, "/api/v1/session"), headers=cookie) as answer:
        assert (await answer.json())["name"] == "otto"
    async with client.post(at(server, "/api/v1/anything"), headers=cookie) as answer:
        assert answer.status == 403
        assert CSRF_HEADER in await answer.text()
    async with client.post(
        at(server, "/api/v1/anything"), headers={**cookie, CSRF_HEADER: "1"}
    ) as answer:
        assert answer.status == 404


async def test_a_viewer_changes_nothing(start, client) -> None:
    server = await start(SETTINGS)
    async with client.post(at(server, "/api/v1/anything"), headers=bearer(VIEWER)) as answer:
        assert answer.status == 403


async def test_sign_out_ends_the_session_everywhere(start, client) -> None:
    server = await start()
    cookie = await sign_in(server, client)
    async with client.get(at(server, "/api/v1/health"), headers=cookie) as answer:
        assert answer.status == 200
    async with client.delete(at(server, "/api/v1/session"), headers=cookie) as answer:
        assert answer.status == 200
    async with client.get(at(server, "/api/v1/health"), headers=cookie) as answer:
        assert answer.status == 401


async def test_a_session_ends_by_itself_and_cannot_be_forged(start, client, clock: Clock) -> None:
    server = await start()
    cookie = await sign_in(server, client)
    forged = Tickets("another-admin-token", clock).issue(
        "session", {"name": "x", "role": "admin", "projects": None}, 600
    )
    other_purpose = server.authenticator.tickets.issue(
        "embed", {"name": "x", "role": "admin", "projects": None}, 600
    )
    for value in (forged, other_purpose, "x.y", "....", "é"):
        headers = {"Cookie": f"{SESSION_COOKIE}={value}"}
        async with client.get(at(server, "/api/v1/health"), headers=headers) as answer:
            assert answer.status == 401, value
    clock.now += 12 * 3600 + 1
    async with client.get(at(server, "/api/v1/health"), headers=cookie) as answer:
        assert answer.status == 401


async def test_the_printed_link_signs_in_once(start, client, clock: Clock) -> None:
    server = await start()
    link = server.sign_in_link()
    async with client.get(link, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = {"Cookie": answer.headers["Set-Cookie"].split(";")[0]}
    async with client.get(at(server, "/api/v1/health"), headers=cookie) as answer:
        assert answer.status == 200
    late = server.sign_in_link()
    clock.now += 901
    for spent in (link, late, f"{server.url}/signin", f"{server.url}/signin?code="):
        async with client.get(spent, allow_redirects=False) as answer:
            assert "Set-Cookie" not in answer.headers
            assert "expired" in answer.headers["Location"]


async def test_guessing_is_slowed_down(start, client, clock: Clock) -> None:
    server = await start(AdminSettings(sign_in_attempts_per_minute=3))
    for _ in range(3):
        async with client.post(at(server, "/api/v1/session"), json={"token": "no"}) as answer:
            assert answer.status == 401
    async with client.post(at(server, "/api/v1/session"), json={"token": TOKEN}) as answer:
        assert answer.status == 429
        assert answer.headers["Retry-After"] == "60"
    async with client.get(at(server, "/api/v1/health"), headers=bearer()) as answer:
        assert answer.status == 429
    clock.now += 61
    await sign_in(server, client)


async def test_a_reverse_proxy_is_believed_only_from_its_network(start, client) -> None:
    trusted = TrustedHeader(networks=("127.0.0.0/8",), roles={"alice": "operator"})
    server = await start(AdminSettings(trusted_header=trusted))
    for user, status in (("alice", 200), ("mallory", 401), ("", 401)):
        headers = {"X-Forwarded-User": user}
        async with client.get(at(server, "/api/v1/health"), headers=headers) as answer:
            assert answer.status == status, user
    elsewhere = TrustedHeader(networks=("10.0.0.0/8",), default_role="admin")
    server = await start(AdminSettings(trusted_header=elsewhere))
    headers = {"X-Forwarded-User": "alice"}
    async with client.get(at(server, "/api/v1/health"), headers=headers) as answer:
        assert answer.status == 401


async def test_every_answer_carries_the_security_headers(start, client) -> None:
    server = await start()
    for path in ("/metrics", "/api/v1/health", "/nothing", "/health/liveness"):
        async with client.get(at(server, path)) as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_a_handler_that_breaks_tells_nothing(start, client, capsys) -> None:
    server = await start()

    def broken() -> str:
        raise RuntimeError("the-secret-reason")

    server._deps.scrape = broken
    async with client.get(at(server, "/metrics")) as answer:
        assert answer.status == 500
        assert "the-secret-reason" not in await answer.text()
