"""Local endpoints that take alerts as the vendors do, and refuse what the vendors refuse.

Owns: the checks of Slack's blocks by Slack's own package, of PagerDuty's events
by the fields that PagerDuty publishes, of webhooks by the reference library of
Standard Webhooks, and a real SMTP server. Must never: take what a vendor would
not; every refusal is kept in ``faults``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import standardwebhooks
from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

#: developer.pagerduty.com, "Events API v2: send an event to PagerDuty" and "PD-CEF".
PAGERDUTY_EVENT = json.loads((Path(__file__).parent / "pagerduty_event.json").read_text())


def pagerduty_faults(event: Any) -> list[str]:
    """What PagerDuty would not take of an event."""
    validator = jsonschema_rs.validator_for(PAGERDUTY_EVENT, validate_formats=True)
    return [f"{list(e.instance_path)}: {e.message}" for e in validator.iter_errors(event)]


def slack_faults(payload: Any) -> list[str]:
    """What Slack would not take of a message, by its own package's rules and its page on limits.

    docs.slack.dev/reference/block-kit/blocks, docs.slack.dev/reference/methods/chat.postMessage
    """
    pytest.importorskip("slack_sdk", reason="the package slack_sdk is not installed")
    from slack_sdk.errors import SlackObjectFormationError
    from slack_sdk.models.blocks import Block

    found = []
    if not payload.get("text") or len(payload["text"]) > 40_000:
        found.append("text: 1 to 40,000 characters")
    blocks = payload.get("blocks", [])
    if not 1 <= len(blocks) <= 50:
        found.append("blocks: 1 to 50")
    for block in blocks:
        try:
            parsed = Block.parse(block)
            if parsed is None or parsed.to_dict() != block:
                found.append(f"{block.get('type')}: not a block as Slack reads it")
                continue
        except SlackObjectFormationError as error:
            found.append(f"{block['type']}: {error}")
        found += [f"{block['type']}: {fault}" for fault in _text_faults(block)]
    return found


def _text_faults(block: dict[str, Any]) -> Iterator[str]:
    """Lengths that the package leaves to the server."""
    if block["type"] == "section":
        if not 1 <= len(block.get("text", {"text": "x"})["text"]) <= 3_000:
            yield "text: 1 to 3,000 characters"
        if any(not 1 <= len(one["text"]) <= 2_000 for one in block.get("fields", ())):
            yield "fields: 1 to 2,000 characters each"
    if block["type"] == "context" and any(not one["text"] for one in block["elements"]):
        yield "elements: no empty text"


@dataclass
class Mailbox:
    """A real SMTP server's handler: wants TLS and a login where it is given a password."""

    password: str | None = None
    mails: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, how: str, data: Any) -> Any:
        good = (
            isinstance(data, LoginPassword)
            and self.password is not None
            and data.password == self.password.encode()
        )
        return AuthResult(success=good, handled=False)


class Vendors:
    """Slack, PagerDuty, a webhook's owner and a mail server, on a thread of their own."""

    def __init__(
        self, *, secret: str, slack_token: str, mail_password: str | None = None, tls: Any = None
    ) -> None:
        self.faults: list[str] = []
        self.slack: list[dict[str, Any]] = []
        self.pagerduty: list[dict[str, Any]] = []
        self.hooks: list[tuple[float, str, dict[str, Any]]] = []
        self.raw: list[bytes] = []
        self.mailbox = Mailbox(mail_password)
        self.clock: Callable[[], float] = lambda: 0.0
        #: How many requests of each path are answered by 503 first.
        self.refuse = 0
        self._verifier = standardwebhooks.Webhook(secret)
        self._slack_token = slack_token
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""
        self.mail_port = 0

    def __enter__(self) -> Vendors:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self._serve())
        self._started.set()
        self._loop.run_forever()
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(runner.cleanup())

    async def _serve(self) -> web.AppRunner:
        app = web.Application(middlewares=[self._maybe_refuse])
        app.router.add_post("/slack/chat.postMessage", self._on_slack)
        app.router.add_post("/v2/enqueue", self._on_pagerduty)
        app.router.add_post("/hook", self._on_hook)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        mail = await asyncio.get_running_loop().create_server(self._session, "127.0.0.1", 0)
        self.mail_port = mail.sockets[0].getsockname()[1]
        return runner

    def _session(self) -> SMTP:
        guarded = self.mailbox.password is not None
        return SMTP(
            self.mailbox,
            hostname="mail.test",
            tls_context=self._tls,
            require_starttls=self._tls is not None,
            auth_required=guarded,
            auth_require_tls=guarded,
            authenticator=self.mailbox.authenticate,
        )

    @web.middleware
    async def _maybe_refuse(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.raw.append(await request.read())
        if self.refuse > 0:
            self.refuse -= 1
            return web.Response(status=503, headers={"Retry-After": "1"})
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _on_slack(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self._slack_token}":
            self.faults.append("slack: invalid_auth")
            return web.json_response({"ok": False, "error": "invalid_auth"})
        payload = await request.json()
        faults = slack_faults(payload)
        if not payload.get("channel"):
            faults.append("channel is missing")
        if faults:
            self.faults += [f"slack: {fault}" for fault in faults]
            return web.json_response({"ok": False, "error": "invalid_blocks"})
        self.slack.append(payload)
        return web.json_response({"ok": True, "ts": f"1700000000.{len(self.slack):06}"})

    async def _on_pagerduty(self, request: web.Request) -> web.Response:
        event = await request.json()
        faults = pagerduty_faults(event)
        if faults:
            self.faults += [f"pagerduty: {fault}" for fault in faults]
            return web.json_response({"status": "invalid event", "errors": faults}, status=400)
        self.pagerduty.append(event)
        return web.json_response({"status": "success", "dedup_key": event["dedup_key"]}, status=202)

    async def _on_hook(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            self._verifier.verify(body, headers)
        except standardwebhooks.WebhookVerificationError as error:
            self.faults.append(f"webhook: {error}")
            return web.Response(status=401)
        self.hooks.append((self.clock(), headers["webhook-id"], json.loads(body)))
        return web.Response(status=204)
