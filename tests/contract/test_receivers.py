"""Every receiver keeps the same promises; a new one is found by itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from pydantic import TypeAdapter

from detection.types import Series
from proxy.alerts.net import Net, NetError
from proxy.alerts.outcome import Outcome, Reason
from proxy.alerts.receivers import RECEIVERS, AnyReceiverSettings, build_receiver
from tests.unit.alerts import rig

#: Stands in every secret a receiver is given.
CANARY = "canary-Zx81Qp"
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLvcaNarY"


def settings_of(kind: str, url: str) -> dict[str, Any]:
    """Settings of a kind that lead to a local endpoint."""
    host, port = re.fullmatch(r"http://([^:]+):(\d+)", url).groups()
    return {
        "slack": {"token": f"xoxb-{CANARY}", "channel": "#ops", "api_url": f"{url}/api"},
        "pagerduty": {"routing_key": CANARY, "url": f"{url}/v2/enqueue"},
        "webhook": {
            "url": f"{url}/hook/{CANARY}",
            "secret": SECRET,
            "headers": {"X-Auth": CANARY},
        },
        "alertmanager": {"url": url, "bearer_token": CANARY},
        "teams": {"webhook_url": f"{url}/workflows/{CANARY}"},
        "discord": {"webhook_url": f"{url}/api/webhooks/1/{CANARY}"},
        "apprise": {"url": f"json://user:{CANARY}@{host}:{port}/x"},
        "email": {
            "to": ["ops@example.test"],
            "sender": "weir@example.test",
            "host": host,
            "port": int(port),
            "security": "none",
        },
    }[kind]


def build(kind: str, url: str) -> Any:
    """A receiver, read as from YAML."""
    raw = {"name": "r", "type": kind, **settings_of(kind, url)}
    return build_receiver(TypeAdapter(AnyReceiverSettings).validate_python(raw))


class Mailbox:
    """What a real SMTP server took."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(envelope.content)
        return self.answer


@asynccontextmanager
async def counterpart(
    kind: str,
) -> AsyncIterator[tuple[str, Callable[[], bytes], Callable[..., None]]]:
    """A real server for a kind: its URL, what it got last, and how to make it fail."""
    if kind == "email":
        box = Mailbox()
        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(box, hostname="mail.test"), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]

        def fail(status: int, text: str = "") -> None:
            box.answer = f"{451 if status >= 500 or status == 429 else 550} {text or 'no'}"

        try:
            yield f"http://127.0.0.1:{port}", lambda: box.mails[-1], fail
        finally:
            server.close()
        return
    async with rig.endpoint() as here:

        def fail_http(status: int, text: str = "") -> None:
            here.respond = rig.answer(status, text, Retry_After="7")

        yield here.url, lambda: here.seen[-1].body, fail_http


async def deliver(receiver: Any, message: Any, net: Net) -> Outcome:
    """One try, as the outbox makes it."""
    try:
        return await receiver.deliver(message, net)
    except NetError as error:
        return error.outcome


KINDS = sorted(RECEIVERS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["firing", "acknowledged", "resolved", "digest", "report"])
async def test_delivers_every_kind_of_message_or_says_unsupported(kind: str, what: str) -> None:
    async with counterpart(kind) as (url, _, _), rig.network() as net:
        more: dict[str, Any] = {}
        if what in ("digest", "report"):
            more = {"lines": ("12 incidents", "$3.20"), "title": "Daily digest"}
        if what == "report":
            more["attachment"] = rig.REPORT
        outcome = await deliver(build(kind, url), rig.message(kind=what, **more), net)
        takes = RECEIVERS[kind][0](**{"name": "r", **settings_of(kind, url)}).takes_lists
        if what in ("digest", "report") and not takes:
            assert outcome.reason in (None, Reason.UNSUPPORTED)
        else:
            assert outcome.delivered, outcome


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("status", "retry"), [(500, True), (429, True), (400, False)])
async def test_failures_are_told_apart(kind: str, status: int, retry: bool) -> None:
    async with counterpart(kind) as (url, _, fail), rig.network() as net:
        fail(status)
        outcome = await deliver(build(kind, url), rig.message(), net)
    assert not outcome.delivered
    if kind == "apprise":
        assert outcome.retry  # the library tells success and failure only
        return
    assert outcome.retry is retry
    if status == 429 and kind != "email":
        assert outcome.reason is Reason.RATE_LIMITED
        assert outcome.retry_after_seconds == 7


@pytest.mark.parametrize("kind", KINDS)
async def test_no_secret_leaks(
    kind: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not of the receiver into outcomes and logs, and not of a caller into messages."""
    leaked = "sk-proj-" + "abcdEFGH1234" * 3
    named = rig.incident(Series("agent", f"bot {leaked}"))
    async with counterpart(kind) as (url, got, fail), rig.network() as net:
        receiver = build(kind, url)
        assert (await deliver(receiver, rig.message(named), net)).delivered
        assert leaked.encode() not in got()
        fail(403, f"denied for {CANARY} Bearer {CANARY}")
        outcome = await deliver(receiver, rig.message(named), net)
    async with rig.network(allowed=()) as guarded:
        refused = await deliver(build(kind, "http://127.0.0.1:9"), rig.message(named), guarded)
    said = f"{outcome} {refused} {receiver} {capsys.readouterr()} {caplog.text}"
    assert f"Bearer {CANARY}" not in said
    assert leaked not in said
    assert SECRET not in said
    assert refused.reason is Reason.ADDRESS_REFUSED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_callers_text_is_only_text(kind: str) -> None:
    evil = rig.incident(Series("agent", rig.EVIL))
    async with counterpart(kind) as (url, got, _), rig.network() as net:
        assert (await deliver(build(kind, url), rig.message(evil), net)).delivered
        body = got()
    assert b"\x1b" not in body
    if kind == "email":
        mail = message_from_bytes(body, policy=policy.default)
        assert mail["Bcc"] is None
        html = mail.get_body(("html",)).get_content()
        assert "<img" not in html
        assert "&lt;img" in html
        return
    if kind in ("slack", "discord"):
        text = json.dumps(json.loads(body), ensure_ascii=False)
        assert "<!channel>" not in text.replace("plain_text", "") or kind == "slack"
        assert "@everyone" not in text_of_marked(json.loads(body), kind)
    if kind == "teams":
        card = json.loads(body)["attachments"][0]["content"]
        assert all(block["type"] == "RichTextBlock" for block in card["body"])


def text_of_marked(payload: Any, kind: str) -> str:
    """All text that the medium reads as markup."""
    if kind == "discord":
        assert payload["allowed_mentions"] == {"parse": []}
        return json.dumps(payload, ensure_ascii=False)
    marked = [payload["text"]]
    for block in payload["blocks"]:
        parts = (block.get("text"), *block.get("fields", ()), *block.get("elements", ()))
        marked += [part["text"] for part in parts if part and part.get("type") == "mrkdwn"]
    whole = "\n".join(marked)
    assert "<!channel>" not in whole
    assert "<img" not in whole
    return whole


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("email", "apprise")])
async def test_endless_answers_are_cut(kind: str) -> None:
    async with rig.endpoint() as here, rig.network(answer_bytes=10_000) as net:
        here.respond = rig.endless
        outcome = await deliver(build(kind, here.url), rig.message(), net)
    assert outcome.reason in (None, Reason.BAD_ANSWER)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("email", "apprise")])
async def test_a_silent_receiver_times_out(kind: str) -> None:
    async with rig.endpoint() as here, rig.network(timeout_seconds=0.05) as net:
        here.respond = rig.hanging
        outcome = await deliver(build(kind, here.url), rig.message(), net)
    assert outcome.reason is Reason.TIMEOUT
    assert outcome.retry
