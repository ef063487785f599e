"""The data port of one worker.

Owns: which connections are open, how many may be, and how they end at a stop.
Must never: read a byte of a request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

import structlog

from proxy.http.connection import ClientConnection
from proxy.http.deadlines import Deadlines
from proxy.http.outbox import Outbox
from proxy.http.ports import Leaving, Member, Services
from proxy.http.settings import ServerSettings

_log = structlog.get_logger("tokenweir.http")
_SEEN_OFF_A_TURN = 32


class DataServer:
    """The listening side of one worker."""

    def __init__(
        self,
        services: Services,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        outbox: Outbox,
    ) -> None:
        self.services = services
        self.loop = loop
        self.outbox = outbox
        self.draining = False
        self._deadlines = deadlines
        self._connections: set[Member] = set()
        self._left: deque[Leaving] = deque()

    def __call__(self) -> ClientConnection:
        """The protocol factory."""
        return ClientConnection(self)

    @property
    def settings(self) -> ServerSettings:
        """Limits in force; a reload can change them."""
        return self.services.settings

    def admit(self, connection: Member) -> bool:
        """Take in a connection, or say that there is no room."""
        self._deadlines.watch(connection)
        self._connections.add(connection)
        self.services.runtime.connections = len(self._connections)
        return len(self._connections) <= self.settings.max_connections

    def forget(self, connection: Member) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._deadlines.forget(connection)
        self.services.runtime.connections = len(self._connections)

    def leave(self, calls: Iterable[Leaving]) -> None:
        """Clients of these calls hung up. When thousands do at once, others have turns between."""
        if not self._left:
            self.loop.call_soon(self._see_off)
        self._left.extend(calls)

    def _see_off(self, most: int = _SEEN_OFF_A_TURN) -> None:
        for _ in range(min(most, len(self._left))):
            try:
                self._left.popleft().client_gone()
            except Exception:
                _log.exception("hang_up_broke")
        if self._left:
            self.loop.call_soon(self._see_off)

    @property
    def connections(self) -> int:
        """Open connections of clients."""
        return len(self._connections)

    async def drain(self, timeout_seconds: float) -> None:
        """Let running calls finish, then close all; no new connections come any more."""
        self.draining = True
        for connection in list(self._connections):
            connection.drain()
        until = self.loop.time() + timeout_seconds
        while self._connections and self.loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # the aborted connections say so in the next turn
        self._see_off(len(self._left))
