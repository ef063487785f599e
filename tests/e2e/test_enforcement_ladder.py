"""The ladder on a real loop: up, half open, down; and whom automation may not stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import Recorder
from tests.e2e.test_enforcement_actions import STUCK
from tests.rig import Proxy, Upstream, running_proxy, wait_for

LADDER = [
    {"action": "throttle", "rate_per_second": 2, "for_seconds": 3, "escalate_after_seconds": 0.5},
    {"action": "block", "for_seconds": 2},
]
#: A loop's evidence ends soon, so that a test needn't wait two minutes for it.
RULES = [{"name": "stop", "match": {"tier": "critical", "dimensions": ["agent"]}, "ladder": LADDER}]


def start(folder: Path, upstream: Upstream, **more: Any) -> Any:
    settings = {
        "upstreams": {"openai": {"base_url": upstream.url}},
        "policies": {"rules": RULES},
        **more,
    }
    return running_proxy(folder, settings)


class Caller:
    """Calls of one agent, one after the other."""

    def __init__(self, proxy: Proxy, agent: str, messages: list[dict[str, Any]] | None) -> None:
        self.proxy, self.agent, self.messages = proxy, agent, messages
        self.number = 0

    def until(self, seen: Callable[[int, str], bool], seconds: float = 30.0) -> list[str]:
        """Call until an answer is as wanted; the words that answers came with, in order."""
        words: list[str] = []

        async def run() -> None:
            deadline = time.monotonic() + seconds
            async with aiohttp.ClientSession() as session:
                while time.monotonic() < deadline:
                    status, text = await self._call(session)
                    word = "allow" if status == 200 else _word(text)
                    if not words or words[-1] != word:
                        words.append(word)
                    if seen(status, text):
                        return
                    await asyncio.sleep(0.03)
            raise AssertionError(f"not seen within {seconds} s: {words}")

        asyncio.run(run())
        return words

    async def _call(self, session: aiohttp.ClientSession) -> tuple[int, str]:
        self.number += 1
        unique = [{"role": "user", "content": f"{self.agent} asks {self.number}"}]
        body = {"model": "gpt-4o-mini", "messages": self.messages or unique, "max_tokens": 20}
        url = f"{self.proxy.url}/@{self.agent}/v1/chat/completions"
        headers = {"Authorization": "Bearer sk-shared"}
        async with session.post(url, json=body, headers=headers) as answer:
            return answer.status, await answer.text()


def _word(text: str) -> str:
    return "probing" if "call by call" in text else "block" if "blocked" in text else "throttle"


def in_force(proxy: Proxy) -> list[dict[str, Any]]:
    rows = proxy.api("/api/v1/actions")["actions"]
    assert isinstance(rows, list)
    return rows


def test_up_the_ladder_then_half_open_and_free(tmp_path: Path) -> None:
    with Upstream(Recorder()) as upstream, start(tmp_path, upstream) as proxy:
        loop = Caller(proxy, "looper", STUCK)
        words = loop.until(lambda status, text: "blocked" in text)
        assert words[:2] == ["allow", "throttle"]
        assert words[-1] == "block"
        healed = Caller(proxy, "looper", None)
        # Blocked at first, then probes, then all pass.
        first = healed.until(lambda status, text: status == 200)
        assert first[0] == "block"
        for _ in range(4):
            healed.until(lambda status, text: status == 200)
        wait_for(lambda: in_force(proxy) == [], 60, "the release")
        assert healed.until(lambda status, text: status == 200) == ["allow"]
        kinds = [e["verb"] for e in reversed(proxy.api("/api/v1/audit")["entries"])]
        assert kinds[:2] == ["throttle", "block"]
        assert any(e["detail"].get("half_open") for e in _after(proxy))
        assert "expire" in kinds


def _after(proxy: Proxy) -> Iterator[dict[str, Any]]:
    for entry in proxy.api("/api/v1/audit")["entries"]:
        if entry["after"]:
            yield entry["after"]


def test_a_failing_probe_keeps_the_door_closed(tmp_path: Path) -> None:
    recorder = Recorder()
    with Upstream(recorder) as upstream, start(tmp_path, upstream) as proxy:
        loop = Caller(proxy, "looper", STUCK)
        loop.until(lambda status, text: "blocked" in text)
        recorder.answer = recorder.answer.replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 500 Oops")
        sick = Caller(proxy, "looper", None)
        sick.until(lambda status, text: status == 500, 60)
        came = len(recorder.requests)
        sick.until(lambda status, text: "call by call" in text)
        assert len(recorder.requests) - came <= 3
        (half_open,) = [a for a in in_force(proxy) if a["detail"].get("half_open")]
        assert half_open["kind"] == "throttle"


def test_protected_callers_and_the_blast_radius(tmp_path: Path) -> None:
    lasting = [{**RULES[0], "ladder": [LADDER[0], {"action": "block", "for_seconds": 600}]}]
    more: dict[str, Any] = {
        "policies": {"rules": lasting},
        "protect": [{"match": {"agent": ["billing-*"]}, "reason": "invoices go out at night"}],
        "blast_radius": {"share": 0.3, "at_least": 1, "throttle_rate_per_second": 1},
    }
    with Upstream(Recorder()) as upstream, start(tmp_path, upstream, **more) as proxy:
        for n in range(3):
            Caller(proxy, f"quiet-{n}", None).until(lambda status, text: status == 200)
        safe = Caller(proxy, "billing-run", STUCK)
        for _ in range(80):
            assert safe.until(lambda status, text: True) == ["allow"]
        assert in_force(proxy) == []
        Caller(proxy, "first", STUCK).until(lambda status, text: "blocked" in text)
        # Two of six callers would be more than their share of 0.3: throttled, and a person is told.
        Caller(proxy, "second", STUCK).until(
            lambda status, text: "a block would stop more than 30% of all callers" in text
        )
        second = [a for a in in_force(proxy) if a["series"]["value"] == "second"]
        assert {a["kind"] for a in second} == {"throttle"}

        def paged() -> list[dict[str, Any]]:
            rows = proxy.api("/api/v1/incidents?state=all")["incidents"]
            return [r for r in rows if r["detail"].get("rule") == "blast_radius"]

        (incident,) = wait_for(paged, 30, "the incident of the blast radius")
        assert incident["tier"] == "emergency"
        assert incident["detail"]["instead_of_blocking"] == "agent second"
