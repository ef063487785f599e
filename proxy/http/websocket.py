"""WebSockets: bytes both ways, read as they pass.

Owns: the two directions of one switched connection, and its end. Must never:
re-frame a message, or answer a ping that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from detection.types import Usage
from proxy.http.failures import Failure
from proxy.http.frames import FrameGuard
from proxy.http.headers import RawHeaders, Scanned
from proxy.http.upstream import UpstreamConnection
from proxy.providers import websocket_parser
from proxy.providers.base import Endpoint, Headers, Refusal

_log = structlog.get_logger("tokenweir.http")
#: Close codes of RFC 6455 section 7.4.1.
_POLICY_VIOLATION, _INTERNAL_ERROR = 1008, 1011


class Peer(Protocol):
    """The client's side of a tunnel."""

    def send(self, data: bytes) -> None: ...
    def close_after(self) -> None: ...
    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """A close frame (RFC 6455 section 5.5.1). A mask of zeros is still a mask."""
    payload = code.to_bytes(2, "big") + reason.encode()[:120]
    if masked:
        return bytes((0x88, 0x80 | len(payload))) + b"\0\0\0\0" + payload
    return bytes((0x88, len(payload))) + payload


def switching_head(headers: RawHeaders) -> bytes:
    """The answer to a client whose upstream switched (RFC 6455 section 4.2.2)."""
    lines = [b"HTTP/1.1 101 Switching Protocols"]
    lines += [n + b": " + v for n, v in headers if n.lower() not in (b"connection", b"upgrade")]
    lines.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    return b"\r\n".join(lines)


class Tunnel:
    """One WebSocket session between a client and an upstream."""

    method = "GET"

    def __init__(
        self,
        endpoint: Endpoint,
        client: Peer,
        connection: UpstreamConnection,
        headers: Headers,
        *,
        max_message_bytes: int,
        on_end: Callable[[Usage, str], None],
    ) -> None:
        self._client = client
        self._connection: UpstreamConnection | None = connection
        self._parser = websocket_parser(endpoint, headers)
        self._sent = FrameGuard(masked=True, max_message_bytes=max_message_bytes)
        self._received = FrameGuard(masked=False, max_message_bytes=max_message_bytes)
        self._on_end = on_end
        self._ended = False

    # -- from the client ---------------------------------------------------------

    def on_client_data(self, data: bytes) -> None:
        """Bytes of the client's frames."""
        if self._connection is not None:
            self._connection.write(data)
            self._parser.feed_client(data)
            self._sent.feed(data)
            self._check(self._sent)

    def client_gone(self) -> None:
        """The client's connection ended."""
        self._end("" if self._closed else "client_disconnected")

    def client_paused(self) -> None:
        """The client reads slowly."""
        if self._connection is not None:
            self._connection.pause()

    def client_resumed(self) -> None:
        """The client reads again."""
        if self._connection is not None:
            self._connection.resume()

    def cut(self, refusal: Refusal) -> None:
        """End the session from outside, with the reason in the close frame."""
        self._close_both(_POLICY_VIOLATION, refusal.message, "cut")

    # -- from the upstream (an AnswerHandler) ------------------------------------

    def on_connected(self, connection: UpstreamConnection) -> None:
        """Never called: the connection was ours before it became a tunnel."""

    def on_answer_head(self, status: int, reason: bytes, headers: Scanned) -> None:
        """Never called: heads ended with the switch."""

    def on_switched(self, headers: RawHeaders, rest: bytes) -> None:
        """Never called: a connection switches once."""

    def raw_taker(self) -> None:
        """Frames are no chunks."""

    def on_answer_data(
        self, data: bytes, done: bool, trailers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Bytes of the upstream's frames."""
        if self._ended:
            return
        self._client.send(data)
        self._parser.feed_server(data)
        self._received.feed(data)
        self._check(self._received)

    def on_upstream_failure(self, failure: Failure) -> None:
        """The upstream's connection ended."""
        self._connection = None
        self._end("" if self._closed else f"upstream_{failure.value}")
        self._client.close_after()

    def broke(self, error: BaseException) -> None:
        """The proxy itself failed on what came."""
        _log.error("tunnel_broke", exc_info=error)
        self._close_both(_INTERNAL_ERROR, "internal error", "internal_error")

    def on_upstream_paused(self) -> None:
        """The upstream reads slowly."""
        self._client.pause()

    def on_upstream_resumed(self) -> None:
        """The upstream reads again."""
        self._client.resume()

    # -- inside ------------------------------------------------------------------

    @property
    def _closed(self) -> bool:
        return self._sent.closed or self._received.closed

    def _check(self, guard: FrameGuard) -> None:
        violation = guard.violation
        if violation is not None and not self._ended:
            self._close_both(violation, "protocol error", "websocket_protocol_error")

    def _close_both(self, code: int, reason: str, outcome: str) -> None:
        if self._ended:
            return
        self._client.send(close_frame(code, reason, masked=False))
        if self._connection is not None:
            self._connection.write(close_frame(code, reason, masked=True))
        self._end(outcome)
        self._client.close_after()

    def _end(self, outcome: str) -> None:
        if self._ended:
            return
        self._ended = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish()
        self._on_end(self._parser.close(complete=not outcome), outcome)
