"""Two replicas on one store find together what neither would find alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.store.store import Store
from proxy.together import LEASE_SECONDS, LOOK_SECONDS, Sweeper
from tests.rig import (
    Proxy,
    Raw,
    Upstream,
    chat_answer,
    json_answer,
    read_request,
    running_proxy,
    wait_for,
)
from tests.unit.store.support import Server, until


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader) is not None:
        writer.write(json_answer(chat_answer()))
        await writer.drain()


def call(proxy: Proxy, agent: str, result: str) -> None:
    """One step of an agent that hands in a tool's result."""
    tool = {"id": "t1", "type": "function", "function": {"name": "search", "arguments": '{"q":1}'}}
    body: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "user", "content": "find it"},
            {"role": "assistant", "tool_calls": [tool]},
            {"role": "tool", "tool_call_id": "t1", "content": result},
        ],
    }
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-x\r\n"
        f"x-tokenweir-agent: {agent}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with Raw(proxy.port) as raw:
        assert b" 200 " in raw.send(head.encode() + data).all()


def loops(proxy: Proxy, agent: str) -> list[dict[str, Any]]:
    found = proxy.api("/api/v1/incidents?limit=100")["incidents"]
    return [r for r in found if "agent_loop" in json.dumps(r) and agent in json.dumps(r)]


def test_a_loop_spread_over_two_replicas_is_found(tmp_path: Path, server: Server) -> None:
    with Upstream(answer) as upstream:
        settings = {
            "keys": {"install_secret": "the same for both"},
            "store": {"url": server.url},
            "upstreams": {"openai": {"base_url": upstream.url, "wire": "openai"}},
            "alerts": {"enabled": False},
        }
        with (
            running_proxy(tmp_path / "a", settings) as one,
            running_proxy(tmp_path / "b", settings) as two,
        ):
            for proxy in (one, two):
                for _ in range(8):
                    call(proxy, "spread", "nothing found")
            for _ in range(8):
                call(one, "alone", "nothing found")
            wait_for(lambda: loops(one, "spread") or loops(two, "spread"), seconds=30)
            assert not loops(one, "alone")


async def test_a_dead_leaders_sweep_is_taken_over_within_ten_seconds(
    tmp_path: Path, server: Server
) -> None:
    assert LEASE_SECONDS + LOOK_SECONDS < 10

    class Judge:
        """Notes when it was asked to lead a sweep."""

        def __init__(self) -> None:
            self.led = 0

        def sweep_in_parts(self, *, lead: bool) -> Iterator[None]:
            self.led += lead
            yield

    stores = [
        await Store.open(server.settings(), tmp_path / name, worker=name) for name in ("a", "b")
    ]
    try:
        judges = [Judge(), Judge()]
        sweepers = [
            Sweeper(judge, store.documents.lease, store.clock.monotonic)
            for judge, store in zip(judges, stores, strict=True)
        ]
        first, second = sweepers
        await first.look()
        await second.look()
        assert (first.leading, second.leading) == (True, False)
        assert (judges[0].led, judges[1].led) == (1, 0)
        await first.look()
        assert judges[0].led == 1, "once a minute"

        # The first one is never heard of again.
        began = stores[1].clock.monotonic()

        async def taken() -> bool:
            await second.look()
            return second.leading

        await until(taken, timeout=30)
        assert stores[1].clock.monotonic() - began <= LEASE_SECONDS + LOOK_SECONDS
        assert judges[1].led == 1, "and it sweeps at once"
        assert not first.leading, "by its own clock, before any answer"
    finally:
        for store in stores:
            await store.stop()


async def test_a_leader_cut_off_from_the_store_stops_leading(
    tmp_path: Path, server: Server
) -> None:
    store = await Store.open(server.settings(), tmp_path / "a", worker="a")

    class Judge:
        def sweep_in_parts(self, *, lead: bool) -> Iterator[None]:
            self.lead = lead
            yield

    now = 100.0
    sweeper = Sweeper(Judge(), store.documents.lease, lambda: now)
    try:
        await sweeper.look()
        assert sweeper.leading
        server.close()
        now += LEASE_SECONDS / 2
        await sweeper.look()
        assert sweeper.leading, "nobody else can have it yet"
        now += LEASE_SECONDS
        await sweeper.look()
        assert not sweeper.leading
    finally:
        await store.stop()
