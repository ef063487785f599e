"""The pool of upstream connections, one part per origin.

Owns: connection limits, the waiting line, connects and what is idle. Must
never: retry a call, or connect anywhere but to a configured origin.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque

from proxy.http.connector import Connector
from proxy.http.deadlines import NEVER, Deadlines
from proxy.http.failures import Failure
from proxy.http.known_answer import KnownAnswers
from proxy.http.outbox import Outbox
from proxy.http.routing import Destination, Origin
from proxy.http.settings import UpstreamSettings
from proxy.http.upstream import UpstreamConnection
from proxy.http.upstream_ports import AnswerHandler


class _Waiter:
    """A call in line for a connection."""

    __slots__ = ("_pool", "deadline", "handler")

    def __init__(self, pool: OriginPool, handler: AnswerHandler, deadline: float) -> None:
        self._pool, self.handler, self.deadline = pool, handler, deadline

    def on_deadline(self) -> None:
        if self._pool.leave(self):
            self.handler.on_upstream_failure(Failure.QUEUE_TIMEOUT)


class OriginPool:
    """The connections to one origin."""

    def __init__(
        self,
        origin: Origin,
        settings: UpstreamSettings,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        outbox: Outbox,
    ) -> None:
        self.origin = origin
        self.settings = settings
        self.loop = loop
        self.deadlines = deadlines
        self.outbox = outbox
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._connecting: dict[AnswerHandler | None, asyncio.Task[None]] = {}
        self._waiting: deque[_Waiter] = deque()
        self.connector = Connector(origin, settings, loop)
        self.answers = KnownAnswers()
        self.connects = 0
        self.retired = False

    def acquire(self, handler: AnswerHandler) -> UpstreamConnection | None:
        """A connection now, or ``None``: the handler hears of it later."""
        idle, now = self._idle, self.loop.time()
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is not None and not transport.is_closing() and connection.idle_until > now:
                return connection
            connection.abandon()
        if len(self._all) + len(self._connecting) < self.settings.max_connections:
            self._connecting[handler] = self.loop.create_task(self._connect(handler))
        elif len(self._waiting) < self.settings.queue_limit:
            waiter = _Waiter(self, handler, now + self.settings.queue_timeout_seconds)
            self._waiting.append(waiter)
            self.deadlines.watch(waiter)
        else:
            self.loop.call_soon(handler.on_upstream_failure, Failure.POOL_FULL)
        return None

    def cancel(self, handler: AnswerHandler) -> None:
        """The call is gone: give up its connect or its place in line."""
        task = self._connecting.get(handler)
        if task is not None:
            task.cancel()
            return
        for waiter in self._waiting:
            if waiter.handler is handler:
                self.leave(waiter)
                return

    def leave(self, waiter: _Waiter) -> bool:
        """Take a call out of the line; false if it was served already."""
        self.deadlines.forget(waiter)
        try:
            self._waiting.remove(waiter)
        except ValueError:
            return False
        return True

    def put_back(self, connection: UpstreamConnection, seconds: float) -> None:
        """A connection that can serve again: to the next in line, or idle."""
        if self._waiting:
            self._serve(connection)
            return
        if self.retired:
            connection.abandon()
            return
        connection.idle_until = connection.deadline = self.loop.time() + seconds
        self._idle.append(connection)

    def discard(self, connection: UpstreamConnection) -> None:
        """A connection that is no more."""
        self.deadlines.forget(connection)
        if connection not in self._all:
            return
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and len(self._all) < self.settings.max_connections:
            handler = self._waiting[0].handler
            self.leave(self._waiting[0])
            self._connecting[handler] = self.loop.create_task(self._connect(handler))

    def retire(self) -> None:
        """Take no more calls: those that run, connect or wait in line go on to their ends."""
        self.retired = True
        for connection in list(self._idle):
            connection.abandon()

    def close(self) -> None:
        """Close what is idle and connect no more, at the end of the worker."""
        self.retire()
        for task in list(self._connecting.values()):
            task.cancel()

    @property
    def size(self) -> int:
        """Open connections."""
        return len(self._all)

    def _serve(self, connection: UpstreamConnection) -> None:
        waiter = self._waiting.popleft()
        self.deadlines.forget(waiter)
        connection.deadline = NEVER
        self.loop.call_soon(self._hand_over, waiter.handler, connection)

    def _hand_over(self, handler: AnswerHandler, connection: UpstreamConnection) -> None:
        if connection.transport is None or connection.transport.is_closing():
            self.discard(connection)
            handler.on_upstream_failure(Failure.RESET)
        else:
            handler.on_connected(connection)

    async def _connect(self, handler: AnswerHandler) -> None:
        connection = UpstreamConnection(self)
        failure = None
        try:
            async with asyncio.timeout(self.settings.connect_timeout_seconds):
                await self.connector.connect(lambda: connection)
        except TimeoutError:
            failure = Failure.CONNECT_TIMEOUT
        except ssl.SSLError:
            failure = Failure.TLS
        except OSError as error:
            failure = Failure.DNS if isinstance(error, socket.gaierror) else Failure.REFUSED
        finally:
            self._connecting.pop(handler, None)
        if failure is not None:
            handler.on_upstream_failure(failure)
            self._next_in_line()
            return
        self.connects += 1
        self._all.add(connection)
        handler.on_connected(connection)

    def _next_in_line(self) -> None:
        """A failed connect made room: let the next call try."""
        if self._waiting and len(self._all) + len(self._connecting) < self.settings.max_connections:
            handler = self._waiting[0].handler
            self.leave(self._waiting[0])
            self._connecting[handler] = self.loop.create_task(self._connect(handler))


class Pools:
    """All origins' pools of one worker. Bounded: origins can come from paths."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        outbox: Outbox,
        most: int = 1024,
    ) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._outbox = outbox
        self._most = most
        self._pools: dict[Origin, OriginPool] = {}

    def of(self, destination: Destination) -> OriginPool:
        """The pool of a destination."""
        pool = self._pools.get(destination.origin)
        if pool is None or pool.settings is not destination.settings:
            if pool is not None:
                pool.retire()
            elif len(self._pools) >= self._most:
                self._pools.pop(next(iter(self._pools))).retire()
            pool = OriginPool(
                destination.origin, destination.settings, self._loop, self._deadlines, self._outbox
            )
            self._pools[destination.origin] = pool
        return pool

    def close(self) -> None:
        """Close every idle connection."""
        for pool in self._pools.values():
            pool.close()

    def counts(self) -> dict[str, tuple[int, int]]:
        """Per upstream name: open connections, connects so far."""
        found: dict[str, tuple[int, int]] = {}
        for origin, pool in self._pools.items():
            size, connects = found.get(origin.upstream, (0, 0))
            found[origin.upstream] = (size + pool.size, connects + pool.connects)
        return found
