"""No credential is anywhere that it need not be, however a call ends.

Every secret carries one mark. With everything on, calls succeed and fail in
every way; then nothing that left the proxy, stands in the store or on disk, or is
shown to anyone may hold the mark.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
import trustme
import yaml

from proxy.admin.app import api_document
from tests.contract.vendors import Vendors
from tests.e2e.test_runaway import STUCK
from tests.rig import (
    ROOT,
    Proxy,
    Raw,
    Upstream,
    chat_answer,
    json_answer,
    read_request,
    running_proxy,
    wait_for,
)

MARK = "C4nARy7"
BEARER = f"sk-proj-{MARK}bearerAAAAAAAAAAAA"
X_API = f"sk-ant-api03-{MARK}xapikeyAAAAAAA"
PLAIN = f"{MARK}-a-key-of-no-known-form"
GOOGLE = f"AIzaSy{MARK}googleAAAAAAAAAAAAAAAA"
AWS_ID = f"AKIA{MARK}AWSAAAA"
AWS_TOKEN = f"IQoJb3JpZ2lu{MARK}sessiontokenAAAA"
HELD = f"sk-{MARK}held-by-the-proxy-AAAAAAA"
ADMIN = f"{MARK}-admin-token-0123456789"
VIEWER = f"{MARK}-viewer-token-0123456789"
SLACK = f"xoxb-{MARK}-slack-bot-token"
PASSWORD = f"{MARK}-mail-password"
ROUTING = f"{MARK}routingkey".ljust(32, "0")
HEADER = f"{MARK}-header-of-a-webhook"
SIGNING = "whsec_" + base64.b64encode(f"{MARK}-signing-secret-000000".encode()).decode()
INSTALL = f"{MARK}-install-secret-0123456789"
#: The mark as it stands in text, and within the signing secret.
MARKS = (MARK.encode(), SIGNING.removeprefix("whsec_")[:20].encode())

AUTHORIZATION = (
    f"AWS4-HMAC-SHA256 Credential={AWS_ID}/20261121/us-east-1/bedrock/aws4_request, "
    f"SignedHeaders=host;x-amz-date, Signature={MARK.encode().hex()}{'0' * 40}"
)
CREDENTIALS: dict[str, dict[str, str]] = {
    "bearer": {"Authorization": f"Bearer {BEARER}"},
    "basic": {"Authorization": f"Basic {PLAIN}"},
    "anthropic": {"x-api-key": X_API},
    "azure": {"api-key": PLAIN},
    "google": {"x-goog-api-key": GOOGLE},
    "query": {},
    "sigv4": {"Authorization": AUTHORIZATION, "x-amz-security-token": AWS_TOKEN,
              "x-amz-date": "20261121T120000Z"},
    "cookie": {"Authorization": f"Bearer {BEARER}", "Cookie": f"session={PLAIN}",
               "Proxy-Authorization": f"Basic {PLAIN}"},
}  # fmt: skip


class Moody:
    """An upstream that fails in the way that a call's path asks for, saying back what it got."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            said = f"denied: {request.line} {request.headers} {request.body!r}"
            error = {"error": {"message": said, "type": "invalid", "code": BEARER, "param": said}}
            if b"break off" in request.body:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {")
                await writer.drain()
                return
            if b"no answer" in request.body:
                return
            if b"nonsense" in request.body:
                writer.write(b"HTTP/1.1 abc " + said.encode() + b"\r\n\r\n")
                return
            if b"bad json" in request.body:
                writer.write(json_answer(said.encode()))
            elif status := next((s for s in (400, 401, 403, 404, 429, 500, 503)
                                 if f"status {s}".encode() in request.body), None):  # fmt: skip
                writer.write(json_answer(error, status, x_request_id=BEARER))
            else:
                writer.write(json_answer(chat_answer()))
            await writer.drain()


def call(
    proxy: Proxy, how: str, text: str, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, bytes]:
    """A call with one kind of credential; its answer."""
    if how == "query":
        path += f"?key={GOOGLE}&api_key={PLAIN}"
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"{text} my key is {BEARER}"}]
    body = {"model": "gpt-4o-mini", "messages": STUCK if text == "stuck" else messages}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(
        f"{proxy.url}{path}",
        data=json.dumps(body).encode(),
        headers={
            "Content-Type": "application/json",
            "x-tokenweir-agent": f"app-{how}",
            **CREDENTIALS[how],
            **named,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()
    except OSError as error:
        return 0, str(error).encode()


def config(vendors: Vendors, upstream: str, echo: str) -> dict[str, Any]:
    """Everything on: each receiver once where it works and once where it says secrets back."""
    slack = {"type": "slack", "token": SLACK, "channel": "#ops"}
    duty = {"type": "pagerduty", "routing_key": ROUTING}
    mail = {
        "type": "email", "to": ["ops@example.test"], "sender": "weir@example.test",
        "host": "localhost", "port": vendors.mail_port, "username": "weir",
    }  # fmt: skip
    hook = {"type": "webhook", "secret": SIGNING, "headers": {"X-Auth": HEADER}}
    receivers: list[dict[str, Any]] = [
        {"name": "hook", **hook, "url": f"{vendors.url}/hook"},
        {"name": "chat", **slack, "api_url": f"{vendors.url}/slack"},
        {"name": "duty", **duty, "url": f"{vendors.url}/v2/enqueue"},
        {"name": "mail", **mail, "password": PASSWORD},
        {"name": "hook-2", **hook, "url": f"{echo}/{PLAIN}/400"},
        {"name": "chat-2", **slack, "api_url": f"{echo}/200"},
        {"name": "mail-2", **mail, "password": f"{PASSWORD}-that-is-wrong"},
        {"name": "teams-2", "type": "teams", "webhook_url": f"{echo}/{PLAIN}/403"},
        {"name": "discord-2", "type": "discord", "webhook_url": f"{echo}/{PLAIN}/429"},
        {"name": "am-2", "type": "alertmanager", "url": f"{echo}/{PLAIN}", "bearer_token": PLAIN},
        {"name": "gone", "type": "teams", "webhook_url": f"http://127.0.0.1:9/{PLAIN}"},
    ]
    children = [{"receiver": one["name"], "continue": True} for one in receivers]
    return {
        "upstreams": {
            "openai": {"base_url": upstream},
            "held": {"base_url": upstream, "api_key": HELD},
            "nowhere": {"base_url": "http://127.0.0.1:9"},
        },
        "keys": {"install_secret": INSTALL},
        "admin": {"tokens": [{"name": "v", "token": VIEWER, "role": "viewer"}]},
        "limits": [
            {"name": "few", "by": ["agent"], "match": {"agent": ["limited"]},
             "requests": 1, "per": "day"}
        ],
        "budgets": [{"name": "each", "by": ["key"], "amount_usd": 0.01, "per": "month"}],
        "server": {"header_timeout_seconds": 1.0, "body_timeout_seconds": 1.0},
        "alerts": {
            "allow_addresses": ["127.0.0.0/8", "::1/128"],
            "receivers": receivers,
            "route": {"receiver": "hook", "routes": children},
            "outbox": {"first_wait_seconds": 0.2, "attempts": 2},
        },
    }  # fmt: skip


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[Proxy, Vendors]]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    environment = {"SSL_CERT_FILE": str(folder / "ca.pem"), "TOKENWEIR_ADMIN_TOKEN": ADMIN}
    vendors = Vendors(secret=SIGNING, slack_token=SLACK, mail_password=PASSWORD, tls=context)
    with Upstream(Moody()) as upstream, Upstream(says_back) as echo, vendors:
        settings = config(vendors, upstream.url, echo.url)
        with running_proxy(folder, settings, environment=environment) as proxy:
            yield proxy, vendors


async def says_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A receiver that answers with all that it was sent."""
    while (request := await read_request(reader)) is not None:
        status = next((s for s in (200, 400, 403, 429, 500) if f"/{s}" in request.line), 400)
        said = f"{request.line} {request.headers} {request.body!r}"
        writer.write(json_answer({"ok": False, "error": said}, status))
        await writer.drain()


def admin(proxy: Proxy, path: str, token: str = ADMIN, method: str = "GET") -> bytes:
    request = urllib.request.Request(
        proxy.admin + path, method=method, headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as refused:
        return refused.read()


def everything_happens(proxy: Proxy) -> list[bytes]:
    """Calls of all kinds and ends; the answers that the proxy itself made."""
    own: list[bytes] = []
    seen: set[int] = set()
    statuses = deque((400, 401, 403, 404, 429, 500, 503))
    for how in CREDENTIALS:
        statuses.rotate(2)  # who fails too often is held back before its last kind of failure
        seen.add(call(proxy, how, "hello")[0])
        for text in ("bad json", "no answer", "nonsense", "break off"):
            call(proxy, how, text)
        for status in statuses:
            seen.add(call(proxy, how, f"status {status}")[0])
        own.append(call(proxy, how, "hello", "/nowhere/v1/chat/completions")[1])
        own += [call(proxy, how, "hello", "/@limited/v1/chat/completions")[1] for _ in range(2)]
    assert seen >= {200, *statuses}
    for name in ("agent", "user", "project", "session", "tags"):
        call(proxy, "bearer", "hello", **{f"x_tokenweir_{name}": BEARER})
    call(proxy, "bearer", "hello", f"/@{BEARER}/v1/chat/completions")
    own += [call(proxy, "bearer", "hello", f"/{BEARER}/v1/chat/completions")[1]]
    for _ in range(60):
        call(proxy, "bearer", "stuck", "/@looper/v1/chat/completions")
    own.append(call(proxy, "bearer", "stuck", "/@looper/v1/chat/completions")[1])
    for raw in (
        f"GET /v1/models?key={GOOGLE} HTTP/9\r\n\r\n",
        f"GET /v1/models?key={GOOGLE} HTTP/1.1\r\nAuthorization Bearer {BEARER}\r\n\r\n",
        f"POST /v1/x HTTP/1.1\r\nHost: x\r\nx-api-key: {X_API}\r\nContent-Length: a\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nx-api-key: {X_API}{'A' * 100_000}\r\n\r\n",
        f"POST /v1/x HTTP/1.1\r\nHost: x\r\nx-api-key: {X_API}\r\nContent-Length: 9\r\n\r\nabc",
    ):
        with Raw(proxy.port) as client:
            own.append(client.send(raw.encode()).all())
    return own


def dead(proxy: Proxy) -> set[str]:
    """Receivers that messages could not be delivered to."""
    return {one["receiver"] for one in json.loads(admin(proxy, "/api/v1/outbox"))["dead"]}


def admin_is_tried(proxy: Proxy) -> list[bytes]:
    """Wrong tokens in every place, and a configuration that is wrong at its secrets."""
    text = proxy.config.read_text()
    broken = yaml.safe_load(text)
    broken["alerts"]["receivers"][0]["secret"] = f"whsec_{MARK}!!"
    broken["alerts"]["receivers"][1]["token"] = [SLACK]
    broken["upstreams"]["held"]["api_key"] = {"of": HELD}
    proxy.config.write_text(yaml.safe_dump(broken))
    wait_for(lambda: b'outcome="failed"' in admin(proxy, "/metrics"), 30, "the bad file")
    proxy.config.write_text(text)
    wait_for(lambda: b'outcome="ok"' in admin(proxy, "/metrics"), 30, "the good file")
    proxy.config.with_name("broken.yaml").write_text(yaml.safe_dump(broken))
    said = []
    for arguments in (["check", str(proxy.config.with_name("broken.yaml"))],
                      ["check", str(proxy.config)]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "proxy", *arguments], cwd=ROOT, capture_output=True, timeout=60
        )
        said += [done.stdout, done.stderr]
    for token in (PLAIN, BEARER):
        said.append(admin(proxy, f"/api/v1/health?token={PLAIN}", token))
    return said


def pages_of(proxy: Proxy) -> Iterator[tuple[str, bytes]]:
    """Every answer that a reader of the API can get."""
    found = json.loads(admin(proxy, "/api/v1/incidents?state=all"))["incidents"]
    ids = {"incidents": found[0]["id"] if found else "x"}
    for path, item in api_document("")["paths"].items():
        if "get" in item and path != "/api/v1/events":
            kind = path.removeprefix("/api/v1/").split("/")[0]
            actual = path.replace("{id}", ids.get(kind, "x"))
            for by in ("key", "agent", "user", "project", "tag", "model", "session"):
                yield path, admin(proxy, f"{actual}?by={by}&state=all&value=x")
    for path in ("/", "/metrics", "/health/readiness"):
        yield path, admin(proxy, path)


def store_of(proxy: Proxy) -> Iterator[tuple[str, bytes]]:
    """Every key and value of the embedded store."""
    (socket,) = (proxy.data_dir / "store").rglob("*.sock")
    client = redis.Redis(unix_socket_path=str(socket))
    read = {
        b"string": client.get, b"hash": client.hgetall, b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"list": lambda key: client.lrange(key, 0, -1),
        b"stream": client.xrange,
    }  # fmt: skip
    for key in client.scan_iter(count=1000):
        yield "a key of the store", key
        yield f"store {key!r}", repr(read[client.type(key)](key)).encode()
    client.close()


def files_of(proxy: Proxy) -> Iterator[tuple[str, bytes]]:
    """All that stands on disk but the configuration file."""
    for path in proxy.data_dir.rglob("*"):
        if path.is_file():
            yield f"file {path.relative_to(proxy.data_dir)}", path.read_bytes()
    yield "the log", proxy.log.read_bytes()


def test_no_credential_leaks(tmp_path: Path) -> None:
    with running(tmp_path) as (proxy, vendors):
        sinks = [("an answer of the proxy", body) for body in everything_happens(proxy)]
        wait_for(lambda: vendors.hooks, 60, "the webhook")
        wait_for(lambda: vendors.slack and vendors.pagerduty, 60, "Slack and PagerDuty")
        wait_for(lambda: vendors.mailbox.mails, 60, "the mail")

        wanted = {"hook-2", "chat-2", "mail-2", "teams-2", "discord-2", "am-2", "gone"}
        for name in sorted(wanted):
            wait_for(lambda name=name: name in dead(proxy), 60, f"the dead letter of {name}")
        sinks += [("an answer to admins", body) for body in admin_is_tried(proxy)]
        sinks += [("a receiver", body) for body in bodies_of(vendors)]
        time.sleep(1.0)  # one more tick of everything to the store
        sinks += [*pages_of(proxy), *store_of(proxy), *files_of(proxy)]
        assert vendors.faults == []
        proxy.stop()
        sinks += files_of(proxy)
    assert len(sinks) > 300
    leaks = {
        where: body[max(0, at - 80) : at + 60]
        for where, body in sinks
        for mark in MARKS
        if (at := body.find(mark)) >= 0
    }
    assert not leaks, "\n".join(f"{where}: {part!r}" for where, part in leaks.items())


def bodies_of(vendors: Vendors) -> Iterator[bytes]:
    """What receivers were told; PagerDuty's key stands in its body by its own rules."""
    for raw in vendors.raw:
        yield raw.replace(ROUTING.encode(), b"")
    for mail in vendors.mailbox.mails:
        yield bytes(mail)


def test_the_search_would_find_a_leak() -> None:
    assert MARKS[1] in base64.b64encode(f"{MARK}-signing-secret-000000".encode())
    assert all(MARK in secret for secret in (BEARER, X_API, PLAIN, GOOGLE, AWS_ID, AWS_TOKEN, HELD))
    assert all(MARK in str(headers) for how, headers in CREDENTIALS.items() if how != "query")
