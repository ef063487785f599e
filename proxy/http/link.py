"""One connection's transport: how it is written to, held back and closed.

Owns: the transport of a client's connection and its deadline. Must never: look at what
passes.
"""

from __future__ import annotations

import asyncio

from proxy.http.deadlines import NEVER
from proxy.http.ports import Port

_LINGER_SECONDS = 1.0


class Link(asyncio.Protocol):
    """What is below the framing. It is held while the reader asked for a pause."""

    __slots__ = (
        "_closing",
        "_held",
        "_loop",
        "_outbox",
        "_paused_by_queue",
        "_server",
        "deadline",
        "transport",
    )

    def __init__(self, server: Port) -> None:
        self._server = server
        self._loop = server.loop
        self._outbox = server.outbox
        self.transport: asyncio.Transport | None = None
        self.deadline = NEVER
        self._held = False
        self._paused_by_queue = False
        self._closing = False

    def send(self, data: bytes) -> None:
        """Write to the client."""
        if self.transport is not None:
            self._outbox.send(self.transport, data)

    def close_after(self) -> None:
        """Close when what was written is out."""
        self._closing = True
        self.deadline = self._loop.time() + self._server.settings.write_timeout_seconds
        self._outbox.flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once, so that the client sees a broken connection."""
        self._closing = True
        self._outbox.flush()
        if self.transport is not None:
            self.transport.abort()

    def linger(self) -> None:
        """Say that no more comes, and read on for a moment.

        A close with unread bytes in the kernel resets the connection, and the reset
        can overtake the answer (RFC 9112 section 9.6).
        """
        self._closing = True
        self._outbox.flush()
        transport = self.transport
        if transport is None:
            return
        if not transport.can_write_eof():
            transport.close()
            return
        self._held = self._paused_by_queue = False
        self._resume_transport()
        transport.write_eof()
        self.deadline = self._loop.time() + _LINGER_SECONDS

    def _rest_of_turn_to_others(self) -> None:
        """Read no more of this connection until the next turn."""
        self._pause_transport()
        self._loop.call_soon(self._resume_transport)

    def _pause_transport(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume_transport(self) -> None:
        if self._held or self._paused_by_queue:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
