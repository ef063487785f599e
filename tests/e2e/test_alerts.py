"""From a loop to every receiver, through a running proxy: once, at once, and told when over."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import Recorder
from tests.contract.vendors import Vendors
from tests.e2e.test_runaway import STUCK
from tests.rig import Proxy, Upstream, running_proxy, wait_for

SECRET = "whsec_" + base64.b64encode(b"signing-secret-of-the-tests-0001").decode()
SLACK_TOKEN = "xoxb-test-token-0001"
ROUTING_KEY = "r0" * 16
PASSWORD = "mail-password-of-the-tests"


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """Debian's Alertmanager, on loopback."""
    binary = shutil.which("prometheus-alertmanager")
    if binary is None:
        pytest.skip("prometheus-alertmanager is not installed")
    config = tmp_path / "am.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "am.log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary, f"--config.file={config}", f"--storage.path={tmp_path}/am",
                f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{url}/-/ready"), 30, "Alertmanager")
        yield url
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


@contextlib.contextmanager
def receiving(folder: Path) -> Iterator[tuple[Vendors, dict[str, str]]]:
    """The vendors' endpoints and a mail server with TLS; what a proxy needs to trust it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with Vendors(
        secret=SECRET, slack_token=SLACK_TOKEN, mail_password=PASSWORD, tls=context
    ) as vendors:
        vendors.clock = time.time
        yield vendors, {"SSL_CERT_FILE": str(bundle)}


def alerts(vendors: Vendors, alertmanager: str) -> dict[str, Any]:
    """Every kind of receiver that has a counterpart here, each told of everything."""
    receivers: list[dict[str, Any]] = [
        {"name": "hook", "type": "webhook", "url": f"{vendors.url}/hook", "secret": SECRET},
        {
            "name": "chat", "type": "slack", "token": SLACK_TOKEN, "channel": "#ops",
            "api_url": f"{vendors.url}/slack",
        },
        {
            "name": "duty", "type": "pagerduty", "routing_key": ROUTING_KEY,
            "url": f"{vendors.url}/v2/enqueue",
        },
        {"name": "am", "type": "alertmanager", "url": alertmanager},
        {
            "name": "mail", "type": "email", "to": ["ops@example.test"],
            "sender": "weir@example.test", "host": "localhost", "port": vendors.mail_port,
            "username": "weir", "password": PASSWORD,
        },
    ]  # fmt: skip
    children = [{"receiver": one["name"], "continue": True} for one in receivers]
    return {
        "external_url": "https://weir.example.test",
        "allow_addresses": ["127.0.0.0/8", "::1/128"],
        "receivers": receivers,
        "route": {"receiver": "hook", "routes": children},
        "incidents": {"quiet_seconds": 0},
        "outbox": {"first_wait_seconds": 0.2},
    }


def call(proxy: Proxy, agent: str, messages: list[dict[str, Any]]) -> int:
    request = urllib.request.Request(
        f"{proxy.url}/@{agent}/v1/chat/completions",
        data=json.dumps({"model": "gpt-4o-mini", "messages": messages}).encode(),
        headers={"Authorization": f"Bearer sk-{agent}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def loop_until_an_incident(proxy: Proxy) -> dict[str, Any]:
    """A stuck agent beside a healthy one; its incident, once it pages."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for number in range(10):
            call(proxy, "looper", STUCK)
            call(proxy, "healthy", [{"role": "user", "content": f"{time.monotonic()} {number}"}])
        for incident in proxy.api("/api/v1/incidents")["incidents"]:
            if incident["series"]["value"] == "looper" and incident["worst"] == "emergency":
                found: dict[str, Any] = incident
                return found
    raise AssertionError("no incident of the loop")


def held(alertmanager: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{alertmanager}/api/v2/alerts", timeout=10) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())
        return found


def test_every_receiver_hears_of_a_loop_once_and_of_its_end(
    tmp_path: Path, alertmanager: str
) -> None:
    with Upstream(Recorder()) as upstream, receiving(tmp_path) as (vendors, trust):
        settings = {
            "upstreams": {"openai": {"base_url": upstream.url}},
            "alerts": alerts(vendors, alertmanager),
        }
        vendors.refuse = 4  # everybody's first try: delivery must not depend on luck
        with running_proxy(tmp_path, settings, environment=trust) as proxy:
            incident = loop_until_an_incident(proxy)
            name = incident["id"]
            wait_for(lambda: vendors.hooks, 30, "the webhook")
            wait_for(lambda: vendors.slack, 30, "the Slack message")
            wait_for(lambda: vendors.pagerduty, 30, "the page")
            wait_for(lambda: vendors.mailbox.mails, 30, "the mail")
            wait_for(lambda: held(alertmanager), 30, "the alert in Alertmanager")
            tells_the_story(vendors, incident, held(alertmanager))

            proxy.api(f"/api/v1/incidents/{name}/acknowledge", "POST", {"note": "on it"})
            wait_for(lambda: actions(vendors, name)[-1] == "acknowledge", 30, "the acknowledgement")
            proxy.api(
                f"/api/v1/incidents/{name}/resolve",
                "POST",
                {"resolution": "deploy undone", "root_cause": "prompt 12"},
            )
            wait_for(lambda: actions(vendors, name)[-1] == "resolve", 30, "the end of the page")
            wait_for(lambda: not held(alertmanager), 30, "the end in Alertmanager")
            wait_for(lambda: types(vendors)[-1] == "incident.resolved", 30, "the end by webhook")
            wait_for(lambda: "RESOLVED" in vendors.slack[-1]["text"], 30, "the end in Slack")
            wait_for(
                lambda: "RESOLVED" in vendors.mailbox.mails[-1]["Subject"], 30, "the end by mail"
            )
            assert vendors.faults == []
            assert actions(vendors, name) == ["trigger", "acknowledge", "resolve"]
            assert len({mark for _, mark, _ in vendors.hooks}) == len(vendors.hooks)
            assert types(vendors)[-2:] == ["incident.acknowledged", "incident.resolved"]
            threads = {one.get("thread_ts") for one in vendors.slack[1:]}
            assert threads == {"1700000000.000001"}, "not in the incident's thread"
            said = proxy.api(f"/api/v1/incidents/{name}")
            told = [line["text"] for line in said["timeline"] if line["kind"] == "notified"]
            assert {line.split(":")[0] for line in told} == {"hook", "chat", "duty", "am", "mail"}
            assert said["resolution"] == "deploy undone"
            assert said["root_cause"] == "prompt 12"


def actions(vendors: Vendors, incident: str) -> list[str]:
    return [one["event_action"] for one in vendors.pagerduty if one["dedup_key"] == incident]


def types(vendors: Vendors) -> list[str]:
    return [body["type"] for _, _, body in vendors.hooks]


def tells_the_story(
    vendors: Vendors, incident: dict[str, Any], standing: list[dict[str, Any]]
) -> None:
    """The same facts everywhere, each in its own form."""
    body = next(body for _, _, body in vendors.hooks if body["incidentId"] == incident["id"])
    wanted = {
        "type", "projectId", "signal", "scope", "agentId", "agentName", "severity",
        "observedValue", "baselineValue", "details", "detectedAt",
    }  # fmt: skip
    assert wanted <= set(body)
    assert {"windowMinutes", "mean", "stddev"} <= set(body["details"])
    assert body["signal"] == "agent_loop"
    assert body["scope"] == {"dimension": "agent", "value": "looper"}
    assert body["agentName"] == "looper"
    link = f"https://weir.example.test/incidents/{incident['id']}"
    assert body["link"] == link
    page = next(one for one in vendors.pagerduty if one["dedup_key"] == incident["id"])
    assert page["client_url"] == link
    assert page["payload"]["custom_details"]["priority"] in ("P1", "P2")
    words = json.dumps(vendors.slack, ensure_ascii=False)
    assert words.count("<!channel>") == 2, "one mention: in the block and in the text"
    assert "repeats the same tool call" in words
    (alert,) = [one for one in standing if one["labels"]["incident"] == incident["id"]]
    assert alert["labels"]["alertname"] == "Tokenweir_loop"
    assert "looper" in alert["annotations"]["description"]
    mail = vendors.mailbox.mails[0]
    html = mail.get_body(("html",))
    assert html is not None
    assert link in html.get_content()


def test_two_replicas_make_one_incident_and_one_page(tmp_path: Path) -> None:
    """One loop spread over two proxies with one store: each sees half."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path]
    with (tmp_path / "redis.log").open("wb") as log:
        redis = subprocess.Popen([*command, "--maxmemory-policy", "noeviction"], stdout=log)
    try:
        wait_for(lambda: listens(port), 30, "redis")
        with Upstream(Recorder()) as upstream, receiving(tmp_path) as (vendors, trust):
            told = alerts(vendors, "http://127.0.0.1:9")
            told["receivers"] = [r for r in told["receivers"] if r["name"] in ("hook", "duty")]
            told["route"]["routes"] = [
                {"receiver": name, "continue": True} for name in ("hook", "duty")
            ]
            settings = {
                "upstreams": {"openai": {"base_url": upstream.url}},
                "store": {"url": f"redis://127.0.0.1:{port}/0"},
                "keys": {"install_secret": "one-secret-for-both-replicas-0001"},
                "alerts": told,
                "mode": "observe",
            }
            with (
                running_proxy(tmp_path / "a", settings, environment=trust) as one,
                running_proxy(tmp_path / "b", settings, environment=trust) as other,
            ):
                both_loop(one, other)
                seen = wait_for(lambda: of_the_loop(one), 60, "the incident")
                wait_for(lambda: of_the_loop(other) == seen, 30, "the same one at both")
                assert len(seen) == 1
                wait_for(lambda: vendors.pagerduty, 30, "the page")
                both_loop(one, other)
                other.api(f"/api/v1/incidents/{seen[0]}/resolve", "POST", {"resolution": "done"})
                wait_for(lambda: actions(vendors, seen[0])[-1] == "resolve", 30, "the end")
                assert actions(vendors, seen[0]) == ["trigger", "resolve"]
                marks = [mark for _, mark, _ in vendors.hooks]
                assert len(marks) == len(set(marks))
                assert vendors.faults == []
    finally:
        redis.terminate()
        redis.wait(10)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def both_loop(one: Proxy, other: Proxy) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for _ in range(20):
            call(one, "looper", STUCK)
            call(other, "looper", STUCK)
        if of_the_loop(one) and of_the_loop(other):
            return
    raise AssertionError("no incident of the loop")


def of_the_loop(proxy: Proxy) -> list[str]:
    return [
        one["id"]
        for one in proxy.api("/api/v1/incidents")["incidents"]
        if one["fingerprint"] == "loop:agent:looper"
    ]
