"""What we send, judged by the receivers' own rules and by real counterparts."""

from __future__ import annotations

import asyncio
import base64
import shutil
import socket
from collections.abc import AsyncIterator
from datetime import datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import standardwebhooks
from pydantic import SecretStr, TypeAdapter, ValidationError

from detection.types import Series, Tier
from proxy.alerts.receivers import AnyReceiverSettings, build_receiver
from proxy.alerts.receivers.mail import Email, EmailSettings
from proxy.alerts.receivers.pagerduty import PagerDuty, PagerDutySettings
from proxy.alerts.receivers.slack import Slack, SlackSettings
from proxy.alerts.receivers.webhook import sign
from tests.contract.vendors import pagerduty_faults, slack_faults
from tests.unit.alerts.rig import (
    AGENT,
    NOW,
    REPORT,
    answer,
    endpoint,
    incident,
    message,
    network,
)

LONG = incident(Series("agent", "a" * 5_000), story="s" * 9_000, next_step="n" * 9_000)


def receiver(**raw: Any) -> Any:
    """As from YAML."""
    settings = TypeAdapter(AnyReceiverSettings).validate_python({"name": "r", **raw})
    return build_receiver(settings)


@pytest.mark.parametrize("kind", ["firing", "acknowledged", "resolved", "digest", "report"])
def test_slack_takes_every_message(kind: str) -> None:
    slack = Slack(SlackSettings(name="s", webhook_url=SecretStr("https://hooks.slack.test/x")))
    payload = slack.payload(message(LONG, *[incident()] * 30, kind=kind, lines=("l" * 4_000,)))
    assert slack_faults(payload) == []


def test_the_checks_refuse_what_the_vendors_refuse() -> None:
    duty = PagerDuty(PagerDutySettings(name="p", routing_key=SecretStr("k" * 32)))
    event = duty.payload(message())
    assert pagerduty_faults({**event, "routing_key": "short"})
    assert pagerduty_faults({**event, "event_action": "fire"})
    assert pagerduty_faults({n: v for n, v in event.items() if n != "payload"})
    assert pagerduty_faults({**event, "payload": {**event["payload"], "severity": "P1"}})
    slack = Slack(SlackSettings(name="s", webhook_url=SecretStr("https://hooks.slack.test/x")))
    payload = slack.payload(message())
    header = {"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}
    assert slack_faults({**payload, "blocks": [header]})
    assert slack_faults({**payload, "blocks": [{"type": "table_of_contents"}]})
    assert slack_faults({**payload, "blocks": payload["blocks"] * 20})


def test_slack_says_channel_once_where_it_is_critical() -> None:
    slack = Slack(SlackSettings(name="s", token=SecretStr("xoxb-1"), channel="#ops"))
    first = slack.payload(message(page=True))
    again = slack.payload(message())
    assert str(first).count("<!channel>") == 2  # the block, and the text that notifies
    assert "<!channel>" not in str(again)


async def test_slack_keeps_an_incident_in_its_thread() -> None:
    async with endpoint() as here, network() as net:
        slack = receiver(type="slack", token="xoxb-1", channel="#ops", api_url=here.url)
        first = await slack.deliver(message(), net)
        await slack.deliver(message(kind="resolved", receipt=first.receipt), net)
        assert "thread_ts" not in here.seen[0].json()
        assert here.seen[1].json()["thread_ts"] == "171.001"
        here.respond = answer(200, '{"ok": false, "error": "channel_not_found"}')
        assert not (await slack.deliver(message(), net)).retry
        here.respond = answer(200, '{"ok": false, "error": "internal_error"}')
        assert (await slack.deliver(message(), net)).retry


@pytest.mark.parametrize("tier", [Tier.WARNING, Tier.CRITICAL, Tier.EMERGENCY])
def test_pagerduty_takes_every_event(tier: Tier) -> None:
    duty = PagerDuty(PagerDutySettings(name="p", routing_key=SecretStr("k" * 32)))
    for kind in ("firing", "acknowledged", "resolved"):
        for one in (incident(tier=tier), LONG):
            assert pagerduty_faults(duty.payload(message(one, kind=kind))) == []
    event = duty.payload(message(incident(tier=tier)))
    wanted = {Tier.EMERGENCY: "P1", Tier.CRITICAL: "P2", Tier.WARNING: "P3"}[tier]
    assert event["payload"]["custom_details"]["priority"] == wanted


async def test_the_signature_is_good_for_the_reference_library() -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    async with endpoint() as here, network(now=lambda: datetime.now().timestamp()) as net:
        hook = receiver(type="webhook", url=f"{here.url}/h", secret=secret)
        assert (await hook.deliver(message(), net)).delivered
        seen = here.seen[0]
        verified = standardwebhooks.Webhook(secret).verify(
            seen.body, {name.lower(): value for name, value in seen.headers.items()}
        )
        assert verified["signal"] == "agent_loop"
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(secret).verify(
                seen.body + b" ", {n.lower(): v for n, v in seen.headers.items()}
            )
    assert sign(b"k", "a", "1", b"x") != sign(b"k", "a", "1", b"y")


@pytest.mark.parametrize("secret", ["whsec_!!", "whsec_" + "YQ==", "plain"])
def test_weak_or_odd_secrets_are_refused(secret: str) -> None:
    with pytest.raises(ValidationError):
        receiver(type="webhook", url="https://x.test", secret=secret)


def test_mail_is_well_formed_threaded_and_carries_the_report() -> None:
    mail = Email(
        EmailSettings(name="m", to=("a@x.test", "b@x.test"), sender="w@x.test", host="smtp.x.test")
    ).compose(message(LONG, attachment=REPORT))
    parsed = message_from_bytes(bytes(mail), policy=policy.default)
    assert len(parsed["Subject"]) <= 180
    assert parsed["References"] == "<lane1@tokenweir.invalid>"
    kinds = [part.get_content_type() for part in parsed.walk()]
    assert kinds == [
        "multipart/mixed", "multipart/alternative", "text/plain", "text/html", "text/html",
    ]  # fmt: skip
    assert next(parsed.iter_attachments()).get_filename() == "report.html"


def test_a_password_is_never_sent_in_the_clear() -> None:
    with pytest.raises(ValidationError, match="starttls or tls"):
        EmailSettings(
            name="m", to=("a@x.test",), sender="w@x.test", host="h", security="none",
            username="u", password=SecretStr("p"),
        )  # fmt: skip


@pytest.fixture
async def alertmanager(tmp_path: Path) -> AsyncIterator[str]:
    """Debian's Alertmanager, on loopback."""
    binary = shutil.which("prometheus-alertmanager")
    if binary is None:
        pytest.skip("prometheus-alertmanager is not installed")
    config = tmp_path / "am.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        binary, f"--config.file={config}", f"--storage.path={tmp_path}/am",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as client:
            for _ in range(200):
                try:
                    async with client.get(f"{url}/-/ready") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def test_a_real_alertmanager_takes_and_resolves(alertmanager: str) -> None:
    now = datetime.now().timestamp()
    opened = incident(AGENT, now=now - 60)
    async with network(now=lambda: now) as net, aiohttp.ClientSession() as client:
        am = receiver(type="alertmanager", url=alertmanager)

        async def held() -> list[dict[str, Any]]:
            async with client.get(f"{alertmanager}/api/v2/alerts") as response:
                return await response.json()

        assert (await am.deliver(message(opened), net)).delivered
        (alert,) = await held()
        assert alert["labels"]["incident"] == opened.id
        assert alert["annotations"]["severity"] == "critical"
        assert alert["status"]["state"] in ("active", "unprocessed")
        over = message(opened, kind="resolved")
        from dataclasses import replace

        over = replace(over, cards=(replace(over.cards[0], closed_at=now - 1),))
        assert (await am.deliver(over, net)).delivered
        assert await held() == []


async def test_the_time_of_the_resolve_is_told(alertmanager: str) -> None:
    async with network(now=lambda: NOW) as net:
        am = receiver(type="alertmanager", url=alertmanager)
        alert = am.alert(message(kind="resolved").cards[0], NOW)
        assert alert["endsAt"].startswith("2027-01-15T08:10:00")
        assert (await am.deliver(message(kind="resolved"), net)).delivered
