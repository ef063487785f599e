"""RFC 6455 through the proxy: what a good server gives directly, it gives behind us.

Every case goes to the server of the `websockets` library directly and through Tokenweir;
both must answer as the RFC asks, with the same frames and the same close code.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.chaos.ws_cases import CLOSE, TEXT, Case, cases
from tests.rig import Proxy, running_proxy

PATH = "/v1/realtime?model=gpt-realtime"
CASES = list(cases())


def echo(connection: ServerConnection) -> None:
    try:
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(echo, "127.0.0.1", 0, max_size=1 << 24, ping_interval=None) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(10)


def port_of(server: Server) -> int:
    return int(server.socket.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    settings = {
        "upstreams": {"openai": {"base_url": f"http://127.0.0.1:{port_of(server)}/v1"}},
        "protect": [{"match": {"total": ["*"]}}],
    }
    with running_proxy(tmp_path_factory.mktemp("websocket"), settings) as running:
        yield running


def outcome(port: int, case: Case) -> tuple[tuple[tuple[int, bytes], ...], int | None]:
    """The frames that come back before the close frame, and its code."""
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        link.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer sk-ws\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n".encode()
        )
        data = b""
        while b"\r\n\r\n" not in data:
            data += link.recv(65_536)
        head, _, data = data.partition(b"\r\n\r\n")
        assert b" 101 " in head, head
        pieces, end = case.pieces()
        try:
            for piece in pieces:
                link.sendall(piece)
            while end and len(frames_of(data)[0]) < len(case.back or ()):
                data += link.recv(1 << 20)
            link.sendall(end)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it said goodbye before it had all
        try:
            while piece := link.recv(1 << 20):
                data += piece
        except ConnectionResetError:
            pass
    return frames_of(data)


def frames_of(data: bytes) -> tuple[tuple[tuple[int, bytes], ...], int | None]:
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + 2 <= len(data):
        opcode, size = data[at] & 15, data[at + 1]
        assert data[at] & 0x80 and size < 128, "whole messages, and no mask of a server's"
        at += 2
        if size == 126:
            size, at = struct.unpack_from(">H", data, at)[0], at + 2
        elif size == 127:
            size, at = struct.unpack_from(">Q", data, at)[0], at + 8
        payload = data[at : at + size]
        at += size
        if at > len(data):
            break
        if opcode == CLOSE:
            return tuple(found), struct.unpack(">H", payload[:2])[0] if payload else 1005
        found.append((opcode, payload))
    return tuple(found), None


def test_every_case_has_its_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_as_the_rfc_asks_and_as_the_server_does(case: Case, server: Server, proxy: Proxy) -> None:
    for port in (port_of(server), proxy.port):
        back, code = outcome(port, case)
        assert code == case.code
        if case.back is not None:
            assert back == case.back


@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("takeover", [True, False])
def test_compressed_messages_come_back_whole(proxy: Proxy, bits: int, takeover: bool) -> None:
    deflate = ClientPerMessageDeflateFactory(
        client_max_window_bits=bits,
        server_max_window_bits=bits,
        client_no_context_takeover=not takeover,
        server_no_context_takeover=not takeover,
    )
    texts = ['{"type":"session.update"}' * (1 << n) for n in range(0, 14, 2)] + ["", "ü" * 70_000]
    with connect(
        f"ws://127.0.0.1:{proxy.port}{PATH}", extensions=[deflate], compression=None,
        additional_headers={"Authorization": "Bearer sk-ws"}, max_size=1 << 24,
    ) as link:  # fmt: skip
        assert link.response is not None
        assert "permessage-deflate" in link.response.headers["Sec-WebSocket-Extensions"]
        for text in texts:
            for message in (text, text.encode()):
                link.send(message)
                assert link.recv(30) == message


def test_sessions_are_recorded(proxy: Proxy, tmp_path: Path) -> None:
    outcome(proxy.port, Case("text", b"\x81\x82\0\0\0\0hi\x88\x80\0\0\0\0", ((TEXT, b"hi"),), 1005))
    assert {o["status"] for o in proxy.journal()} == {101}
