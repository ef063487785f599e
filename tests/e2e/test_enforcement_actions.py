"""Every kind of action, taken by the proxy itself on a real loop, in shadow and in force."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import standardwebhooks

from proxy.keys import KeyRing, install_secret
from proxy.settings import KeysSettings
from tests.e2e.families import Families, upstreams
from tests.rig import Proxy, Received, Upstream, json_answer, read_request, running_proxy, wait_for

SECRET = "whsec_" + base64.b64encode(b"signing-secret-of-the-tests-0001").decode()
TOOL = {"name": "find_invoice", "arguments": '{"order": 4711}'}
STUCK: list[dict[str, Any]] = [
    {"role": "user", "content": "Match order 4711."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": TOOL}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "not found"},
]
STEPS: dict[str, dict[str, Any]] = {
    "notify": {"action": "notify"},
    "throttle": {"action": "throttle", "rate_per_second": 1},
    "downgrade": {"action": "downgrade", "models": {"gpt-5*": "gpt-5-nano"}},
    "block": {"action": "block"},
    "disable_key": {"action": "disable_key"},
    "cut_streams": {"action": "cut_streams"},
    "webhook": {"action": "webhook", "webhook": "gateway"},
}


class Gateway:
    """A user's own gateway: keeps what it is told, checked as Standard Webhooks says."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            self._take(request)
            writer.write(json_answer({}))
            await writer.drain()

    def _take(self, request: Received) -> None:
        headers = {name.lower(): value for name, value in request.headers}
        self.told.append(standardwebhooks.Webhook(SECRET).verify(request.body, headers))


class Stage:
    """A proxy with one policy for each kind, for agents or keys named after it."""

    def __init__(self, proxy: Proxy, families: Families, gateway: Gateway) -> None:
        self.proxy, self.families, self.gateway = proxy, families, gateway

    def loop(self, kind: str, calls: int = 60) -> Counter[tuple[int, str | None]]:
        """A loop of calls: how often which status came with which header of ours."""
        seen: Counter[tuple[int, str | None]] = Counter()
        header = "x-tokenweir-would"

        async def run() -> None:
            async with aiohttp.ClientSession() as session:
                for _ in range(calls):
                    async with self.call(session, kind) as answer:
                        await answer.read()
                        seen[answer.status, answer.headers.get(header)] += 1
                    await asyncio.sleep(0.02)

        asyncio.run(run())
        return seen

    def call(self, session: aiohttp.ClientSession, kind: str) -> Any:
        body = {"model": "gpt-5", "messages": STUCK, "max_tokens": 20}
        headers = {"Authorization": f"Bearer sk-{kind}"}
        return session.post(
            f"{self.proxy.url}/@{kind}/v1/chat/completions", json=body, headers=headers
        )

    def incident(self, kind: str) -> dict[str, Any]:
        """The incident whose timeline holds the action."""

        def found() -> dict[str, Any] | None:
            rows = self.proxy.api("/api/v1/incidents?state=all")["incidents"]
            for row in rows:
                if any(a["kind"] == kind and a["rule"] == f"on-{kind}" for a in row["actions"]):
                    return dict(row)
            return None

        return dict(wait_for(found, 30, f"an incident with a {kind}"))

    def in_force(self, kind: str) -> list[dict[str, Any]]:
        rows = self.proxy.api("/api/v1/actions")["actions"]
        return [row for row in rows if row["rule"] == f"on-{kind}" and row["kind"] == kind]


KEY = "sk-disable_key"
INSTALL_SECRET = "install-secret-of-the-tests"


def settings(upstream: str, gateway: str, mode: str) -> dict[str, Any]:
    """A policy for each kind, on the agent that bears its name; one on a key."""
    rules: list[dict[str, Any]] = []
    for kind, step in STEPS.items():
        match: dict[str, Any] = {"tier": "critical", "dimensions": ["agent"], "values": [kind]}
        if kind == "disable_key":
            match = {"signals": ["hard_limit"], "dimensions": ["key"]}
        ladder = [{**step, "for_seconds": 60}]
        rules.append({"name": f"on-{kind}", "match": match, "ladder": ladder})
    ring = KeyRing(install_secret(Path(), INSTALL_SECRET), KeysSettings(), time.time)
    limit = {"metric": "requests", "limit": 20, "dimension": "key"}
    return {
        "mode": mode,
        "upstreams": upstreams(upstream),
        "keys": {"install_secret": INSTALL_SECRET},
        "detection": {"limits": [{**limit, "values": [ring.identify(KEY).key]}]},
        "policies": {"rules": rules},
        "blast_radius": {"share": 1.0},
        "alerts": {
            "allow_addresses": ["127.0.0.1/32"],
            "receivers": [{"name": "gateway", "type": "webhook", "url": gateway, "secret": SECRET}],
        },
    }


def stage(folder: Path, mode: str) -> Iterator[Stage]:
    families, gateway = Families(), Gateway()
    with (
        Upstream(families) as upstream,
        Upstream(gateway) as told,
        running_proxy(folder, settings(upstream.url, told.url, mode)) as proxy,
    ):
        yield Stage(proxy, families, gateway)


@pytest.fixture(scope="module")
def enforced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    yield from stage(tmp_path_factory.mktemp("enforce"), "enforce")


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    yield from stage(tmp_path_factory.mktemp("shadow"), "shadow")


def models(stage: Stage, kind: str) -> set[str]:
    """The models that reached the upstream from an agent's key."""
    mine = [r for r in stage.families.seen if r.header("authorization") == f"Bearer sk-{kind}"]
    return {json.loads(request.body)["model"] for request in mine}


def statuses(seen: Counter[tuple[int, str | None]]) -> Counter[int]:
    found: Counter[int] = Counter()
    for (status, _), count in seen.items():
        found[status] += count
    return found


def test_notify_tells_and_lets_pass(enforced: Stage) -> None:
    assert set(statuses(enforced.loop("notify"))) == {200}
    assert enforced.incident("notify")["actions"][0]["mode"] == "enforce"


@pytest.mark.parametrize(("kind", "status"), [("throttle", 429), ("block", 429)])
def test_what_holds_back(enforced: Stage, kind: str, status: int) -> None:
    seen = statuses(enforced.loop(kind))
    assert set(seen) == {200, status}
    assert seen[status] >= 10
    (action,) = enforced.in_force(kind)
    assert action["series"] == {"dimension": "agent", "value": kind}
    assert enforced.incident(kind)["actions"][-1]["until"] is not None


def test_a_downgrade_changes_the_model_and_nothing_else(enforced: Stage) -> None:
    assert set(statuses(enforced.loop("downgrade"))) == {200}
    assert models(enforced, "downgrade") == {"gpt-5", "gpt-5-nano"}
    enforced.incident("downgrade")


def test_a_key_is_disabled_until_a_person_lifts_it(enforced: Stage) -> None:
    assert set(statuses(enforced.loop("disable_key"))) == {200, 403}
    (action,) = enforced.in_force("disable_key")
    assert action["until"] is None
    enforced.proxy.api(f"/api/v1/actions/{action['id']}", "DELETE", {"reason": "mended"})
    assert statuses(enforced.loop("disable_key", calls=1)) == {200: 1}
    audit = enforced.proxy.api("/api/v1/audit")["entries"]
    assert [e["reason"] for e in audit if e["verb"] == "release"] == ["mended"]


class Listener(threading.Thread):
    """A client that reads an endless stream; how it ended."""

    def __init__(self, proxy: Proxy, agent: str) -> None:
        super().__init__(daemon=True)
        self.client = openai.OpenAI(base_url=f"{proxy.url}/@{agent}/v1", api_key=f"sk-{agent}")
        self.pieces = 0
        self.stop = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        messages: list[Any] = [{"role": "user", "content": "Tell a long story."}]
        try:
            for _ in self.client.chat.completions.create(
                model="gpt-5", messages=messages, stream=True
            ):
                self.pieces += 1
                if self.stop.is_set():
                    return
        except Exception as error:
            self.error = error


def test_running_streams_are_cut_and_new_calls_pass(enforced: Stage) -> None:
    listener = Listener(enforced.proxy, "cut_streams")
    listener.start()
    wait_for(lambda: listener.pieces, 30, "the stream")
    seen = statuses(enforced.loop("cut_streams"))
    listener.join(30)
    assert isinstance(listener.error, openai.APIError)
    assert "cut_streams" in str(listener.error)
    assert set(seen) == {200}
    enforced.incident("cut_streams")


def test_a_gateway_is_called_once_for_each_tier_and_signed(enforced: Stage) -> None:
    enforced.loop("webhook")
    incident = enforced.incident("webhook")

    def calls() -> list[dict[str, Any]]:
        return [t for t in enforced.gateway.told if t["type"] == "incident.action"]

    wait_for(calls, 30, "the call of the gateway")
    time.sleep(1.0)
    # Once for the verdict, and once more where it got worse.
    tiers = [told["severity"] for told in calls()]
    assert sorted(set(tiers)) == sorted(tiers)
    told = calls()[-1]
    assert told["policy"] == "on-webhook"
    assert told["incidentId"] == incident["id"]
    assert told["scope"] == {"dimension": "agent", "value": "webhook"}


@pytest.mark.parametrize("kind", STEPS)
def test_in_shadow_nothing_changes_but_headers_metrics_and_incidents(
    shadowed: Stage, kind: str
) -> None:
    listener = Listener(shadowed.proxy, kind) if kind == "cut_streams" else None
    if listener is not None:
        listener.start()
        wait_for(lambda: listener.pieces, 30, "the stream")
    seen = shadowed.loop(kind)
    assert set(statuses(seen)) == {200}
    assert models(shadowed, kind) == {"gpt-5"}
    incident = shadowed.incident(kind)
    assert {a["mode"] for a in incident["actions"]} == {"shadow"}
    if listener is not None:
        before = listener.pieces
        wait_for(lambda: listener.pieces > before + 5, 30, "more of the stream")
        assert listener.error is None
        listener.stop.set()
        listener.join(30)
    would = {"throttle": "throttle", "downgrade": "downgrade"}
    would |= {"block": "block", "disable_key": "block"}
    if kind in would:
        assert {w for _, w in seen} == {None, would[kind]}
        rows = shadowed.proxy.api("/api/v1/shadow")["rows"]
        assert [r["kind"] for r in rows if r["rule"] == f"on-{kind}"] == [would[kind]]
        text = shadowed.proxy.text("/metrics")
        assert f'decision="would_{would[kind]}"' in text
    assert not [t for t in shadowed.gateway.told if t["type"] == "incident.action"]
