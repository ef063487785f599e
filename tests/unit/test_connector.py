"""Connects: sessions resumed, addresses kept, and those that fail tried last."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from proxy.http.connector import Connector
from proxy.http.deadlines import Deadlines
from proxy.http.outbox import Outbox
from proxy.http.pool import Pools
from proxy.http.routing import Origin, resolve
from proxy.http.settings import UpstreamSettings
from proxy.metrics import RuntimeMetrics
from tests.unit.test_pool import ANSWER, Waiting

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_second_connection_resumes_the_session(
    tmp_path: Path, new_loop: Any, most: ssl.TLSVersion
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = most
    authority.issue_cert("localhost").configure_cert(context)
    resumed: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resumed.append(writer.get_extra_info("ssl_object").session_reused)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await writer.drain()
        writer.close()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        settings = UpstreamSettings(
            base_url=f"https://localhost:{port}", ca_file=str(tmp_path / "ca.pem")
        )
        pools = Pools(loop, Deadlines(loop), Outbox(loop, RuntimeMetrics()))
        pool = pools.of(resolve("openai", settings, None))
        for _ in range(3):
            call = Waiting()
            pool.acquire(call)
            assert await asyncio.wait_for(call.heard, 5) == b"ok"
        server.close()

    loop = new_loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    assert resumed == [False, True, True]


class Names:
    """A resolver that counts, and can fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
        self.asked, self.found, self.now = 0, found, 100.0
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", self.look_up)
        monkeypatch.setattr(loop, "time", lambda: self.now)

    async def look_up(self, host: str, port: int, **_: object) -> list[Any]:
        self.asked += 1
        if not self.found:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in self.found]


async def test_names_are_asked_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = UpstreamSettings(base_url="http://provider.test")
    names = Names(monkeypatch, "127.0.0.2", "127.0.0.3", "127.0.0.2")
    to = Connector(
        Origin("provider.test", 80, tls=False, upstream="u"), settings, asyncio.get_running_loop()
    )
    assert await to._resolve() == await to._resolve() == ["127.0.0.2", "127.0.0.3"]
    assert names.asked == 1
    names.now += 40.0
    names.found = ()
    assert await to._resolve() == ["127.0.0.2", "127.0.0.3"], "the resolver is away"
    names.now += 10.0
    names.found = ("127.0.0.4",)
    assert await to._resolve() == ["127.0.0.4"]


async def test_an_address_that_refuses_is_tried_last(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = UpstreamSettings(base_url=f"http://provider.test:{port}")
    Names(monkeypatch, "127.0.0.9", "127.0.0.1")
    origin = Origin("provider.test", port, tls=False, upstream="u")
    to = Connector(origin, settings, asyncio.get_running_loop())
    await to.connect(asyncio.Protocol)
    assert to._addresses == ["127.0.0.1", "127.0.0.9"]
    server.close()
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await to.connect(asyncio.Protocol)
