"""Pools that are replaced: no call of theirs is left without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proxy.http.deadlines import Deadlines
from proxy.http.failures import Failure
from proxy.http.headers import RawHeaders, Scanned
from proxy.http.outbox import Outbox
from proxy.http.pool import Pools
from proxy.http.routing import Destination, resolve
from proxy.http.settings import UpstreamSettings
from proxy.http.upstream import UpstreamConnection
from proxy.metrics import RuntimeMetrics

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Waiting:
    """A call that sends itself when it has a connection, and notes what it hears."""

    method = "GET"

    def __init__(self) -> None:
        self.heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def on_connected(self, connection: UpstreamConnection) -> None:
        connection.start(self, b"GET / HTTP/1.1\r\nHost: u\r\n\r\n")
        connection.expect_answer()

    def on_answer_head(self, status: int, reason: bytes, headers: Scanned) -> None: ...

    def on_answer_data(
        self, data: bytes, done: bool, trailers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        if done:
            self.heard.set_result(data)

    def raw_taker(self) -> None:
        return None

    def broke(self, error: BaseException) -> None:
        self.heard.set_exception(error)

    def on_switched(self, headers: RawHeaders, rest: bytes) -> None: ...

    def on_upstream_failure(self, failure: Failure) -> None:
        self.heard.set_result(failure)

    def on_upstream_paused(self) -> None: ...
    def on_upstream_resumed(self) -> None: ...


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(ANSWER)


def destination(port: int) -> Destination:
    settings = UpstreamSettings(base_url=f"http://127.0.0.1:{port}", max_connections=1)
    return resolve("openai", settings, None)


async def test_calls_that_connect_or_wait_outlive_a_reload() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    pools = Pools(loop, Deadlines(loop), Outbox(loop, RuntimeMetrics()))
    old = pools.of(destination(port))
    connecting, in_line = Waiting(), Waiting()
    assert old.acquire(connecting) is None and old.acquire(in_line) is None
    new = pools.of(destination(port))
    assert new is not old
    assert await asyncio.wait_for(connecting.heard, 5) == b"ok"
    assert await asyncio.wait_for(in_line.heard, 5) == b"ok"
    assert old.size == 0, "nothing of the old pool lies idle"
    pools.close()
    server.close()
