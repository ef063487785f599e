"""The queue of new connections is emptied, however many come at once."""

from __future__ import annotations

import asyncio
import socket
import ssl

import trustme
import uvloop

from proxy.http.listening import Listening


class Port:
    """Counts the connections that were taken in, and holds them open."""

    def __init__(self) -> None:
        self.taken: list[asyncio.BaseTransport] = []

    def __call__(self) -> asyncio.Protocol:
        port = self

        class Taken(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                port.taken.append(transport)

        return Taken()


def crowd(listener: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(count)]


def leave(port: Port, clients: list[socket.socket]) -> None:
    for transport in port.taken:
        transport.close()
    for client in clients:
        client.close()


def test_a_crowd_is_taken_in_within_a_few_turns() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            clients = crowd(listener, 200)
            port = Port()
            listening = Listening(listener, port, None)
            for _ in range(20):  # one a turn would be 20
                await asyncio.sleep(0)
                await asyncio.sleep(0.001)
            assert len(port.taken) == 200
            await listening.close()
        leave(port, clients)

    uvloop.run(run())


def test_who_waits_when_the_port_closes_is_taken_in() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            port = Port()
            listening = Listening(listener, port, None)
            clients = crowd(listener, 150)
            await listening.close()
            assert len(port.taken) == 150
        leave(port, clients)

    uvloop.run(run())


def test_a_handshake_that_is_dragged_out_does_not_hold_up_a_stop() -> None:
    async def run() -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = Port()
            listening = Listening(listener, port, tls)
            clients = crowd(listener, 3)  # they say nothing
            await asyncio.wait_for(listening.close(), 20)  # a handshake may take 60 s
            assert not port.taken
            for client in clients:
                client.settimeout(10)
                assert client.recv(1) == b""
        leave(port, clients)

    uvloop.run(run())
