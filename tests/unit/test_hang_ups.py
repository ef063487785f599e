"""Clients that hang up by the thousand: all are settled, and nobody waits for that."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from proxy.http.deadlines import Deadlines
from proxy.http.outbox import Outbox
from proxy.http.server import DataServer
from proxy.metrics import RuntimeMetrics


class Call:
    settled = 0

    def client_gone(self) -> None:
        Call.settled += 1
        if Call.settled == 5:
            raise ValueError("one that fails")


def server() -> DataServer:
    loop, runtime = asyncio.get_running_loop(), RuntimeMetrics()
    services = SimpleNamespace(runtime=runtime, settings=None)
    return DataServer(services, loop, Deadlines(loop), Outbox(loop, runtime))  # type: ignore[arg-type]


async def test_others_have_turns_between() -> None:
    Call.settled, turns = 0, 0
    port = server()
    for _ in range(10):
        port.leave([Call() for _ in range(100)])
    assert Call.settled == 0
    while Call.settled < 1000:
        before = Call.settled
        await asyncio.sleep(0)
        turns += 1
        assert Call.settled - before <= 32
    assert turns >= 1000 // 32


async def test_a_stop_settles_all() -> None:
    Call.settled = 0
    port = server()
    port.leave([Call() for _ in range(100)])
    await port.drain(0.1)
    assert Call.settled == 100
