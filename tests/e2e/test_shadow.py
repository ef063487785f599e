"""What shadow mode would have stopped, of all workers, and still after a restart."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from tests.conftest import Recorder
from tests.rig import Proxy, Raw, Upstream, running_proxy, wait_for

MOST_CALLS = 2_000
SETTINGS = {
    "mode": "shadow",
    "server": {"workers": 2},
    "limits": [{"name": "slow-down", "by": ["agent"], "requests": 1, "per": "day"}],
    "alerts": {"enabled": False},
}


def call(proxy: Proxy, agent: str) -> None:
    """One call on a connection of its own, which the kernel gives to either worker."""
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-x\r\n"
        f"x-tokenweir-agent: {agent}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    with Raw(proxy.port) as raw:
        assert b" 200 " in raw.send(head.encode()).all()


def rows(proxy: Proxy, agent: str) -> list[dict[str, Any]]:
    found = proxy.api("/api/v1/shadow")["rows"]
    return [row for row in found if row["series"] == {"dimension": "agent", "value": agent}]


def journalled(proxy: Proxy) -> Counter[str]:
    """Calls in each worker's journal that shadow mode would have stopped."""
    return Counter(
        row["id"].partition("-")[0]
        for row in proxy.journal()
        if str(row["action"]).startswith("shadow")
    )


def all_journalled(proxy: Proxy, made: int) -> bool:
    return len(proxy.journal()) == made


def test_calls_of_all_workers_are_told_and_outlive_a_restart(tmp_path: Path) -> None:
    with Upstream(Recorder()) as upstream:
        settings = SETTINGS | {
            "upstreams": {"openai": {"base_url": upstream.url, "wire": "openai"}}
        }
        with running_proxy(tmp_path, settings) as proxy:
            # The kernel spreads connections over the workers as it likes.
            stopped: Counter[str] = Counter()
            for made in range(20, MOST_CALLS, 20):
                for _ in range(20):
                    call(proxy, "busy")
                wait_for(partial(all_journalled, proxy, made), 30, "every call in the journals")
                stopped = journalled(proxy)
                if len(stopped) == 2 and min(stopped.values()) >= 12:
                    break
            assert len(stopped) == 2, "one worker never had a call to stop"
            every = sum(stopped.values())
            assert every >= made - 2, "each worker may let one pass before it hears of the other"
            wait_for(
                lambda: sum(r["calls"] for r in rows(proxy, "busy")) == every, 30, "both's calls"
            )
            (row,) = rows(proxy, "busy")
            assert (row["kind"], row["rule"]) == ("block", "slow-down")
            assert row["cost_nano_usd"] > 0
            assert len(row["latest"]) == 20
            times = [made["ts"] for made in row["latest"]]
            assert times == sorted(times, reverse=True)
            table = proxy.text("/api/v1/shadow?format=csv&table=calls").splitlines()
            assert len(table) == 1 + len(row["latest"])
            proxy.stop()
        with running_proxy(tmp_path, settings) as proxy:
            call(proxy, "busy")
            wait_for(
                lambda: sum(r["calls"] for r in rows(proxy, "busy")) >= every, 30, "what was told"
            )
