"""The data port's queue of new connections.

Owns: taking connections out of the kernel's queue. Must never: let them wait there
while those that were taken in are served, or read a byte of them.

libuv takes one connection a turn of the loop. When hundreds come at once and a turn is
full of calls, the last of them would wait for seconds before their first byte is read,
so the queue is emptied here, a good part at a time. Where descriptors have run out, one
that was kept for it lets each further client be told so at once, rather than wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable

from proxy.http.errors import bare

_AT_ONCE = 64
#: How long to wait where no descriptor is left at all: calls that end free some.
_PAUSE_SECONDS = 0.05
#: How long a stop waits for handshakes that have begun: a client can drag one out.
_LAST_HANDSHAKES_SECONDS = 2.0
_FULL = frozenset((errno.EMFILE, errno.ENFILE))


class Listening:
    """A listening socket (non-blocking) whose connections go to ``protocol``."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._protocol = protocol
        self._tls = tls
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._spare = _nothing()
        listener.setblocking(False)
        self._loop.add_reader(listener, self._take)

    async def close(self) -> None:
        """Close the port; who had connected by then and waits in its queue is taken in."""
        self._loop.remove_reader(self._listener)
        self._stay()
        while self._take_some():
            pass
        self._stay()  # the last look at the queue can have begun a pause
        self._listener.close()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        if self._opening:
            _, slow = await asyncio.wait(self._opening, timeout=_LAST_HANDSHAKES_SECONDS)
            for task in slow:
                task.cancel()

    def _take(self) -> None:
        self._take_some()

    def _take_some(self) -> bool:
        """Take some; may there be more?"""
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return False
            except ConnectionError:
                continue  # gone before it was taken
            except OSError as error:
                if error.errno in _FULL and self._turn_away():
                    continue
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self._again)
                return False
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        return True

    def _turn_away(self) -> bool:
        """Answer the next one 503 by the spare descriptor; false where there is none."""
        if self._spare < 0:
            self._spare = _nothing()
            return False
        os.close(self._spare)
        try:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.setblocking(False)
                if self._tls is None:
                    connection.send(bare(503, "no file descriptors left"))
                    # What is left unread would end the connection before the answer is read.
                    connection.recv(1 << 16)
        except OSError:
            return False
        finally:
            self._spare = _nothing()
        return True

    def _stay(self) -> None:
        """No look at the queue by itself any more."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._take)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls)
        except (OSError, asyncio.CancelledError):  # a handshake that failed, or took too long
            with contextlib.suppress(OSError):
                connection.close()


def _nothing() -> int:
    """A descriptor of nothing, to be given up for another; -1 where none is left."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
