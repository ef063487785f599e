"""The data port's queue of new connections.

Owns: taking connections out of the kernel's queue. Must never: let them wait there
while those that were taken in are served, or read a byte of them.

libuv takes one connection a turn of the loop. When hundreds come at once and a turn is
full of calls, the last of them would wait for seconds before their first byte is read,
so the queue is emptied here, a good part at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

_AT_ONCE = 64
#: How long to wait where no descriptor is left: calls that end free some.
_PAUSE_SECONDS = 0.05


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
        listener.setblocking(False)
        self._loop.add_reader(listener, self._take)

    async def close(self) -> None:
        """Close the port; who had connected by then and waits in its queue is taken in."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        while self._take_some():
            pass
        self._listener.close()
        if self._opening:
            await asyncio.wait(self._opening)

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
            except OSError:
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self._again)
                return False
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        return True

    def _again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._take)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls)
        except OSError:  # a handshake that failed, or who hung up in it
            with contextlib.suppress(OSError):
                connection.close()
