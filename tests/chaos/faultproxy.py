"""A small TCP proxy that does to bytes what networks do.

Owns: standing between a client and a real server, and breaking what a test
asks to break. Must never: know what the bytes mean, or listen beyond loopback.

    async with FaultProxy("/path/to.sock") as proxy:        # or ("127.0.0.1", 6379)
        connect to proxy.host, proxy.port
        proxy.latency_seconds = 0.2
        proxy.lose_replies(1)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

CHUNK = 1 << 16


class FaultProxy:
    """Forwards connections to ``target``; the faults are attributes, changed at any time.

    ``latency_seconds`` delays every chunk each way; ``bytes_per_second`` limits
    each way; ``slice_bytes`` cuts chunks into pieces of that size;
    ``black_hole`` takes bytes and passes nothing on, keeping connections open;
    ``refuse`` closes new connections at once.
    """

    def __init__(self, target: str | tuple[str, int]) -> None:
        self.target = target
        self.host, self.port = "127.0.0.1", 0
        self.latency_seconds = 0.0
        self.bytes_per_second = 0.0
        self.slice_bytes = 0
        self.black_hole = False
        self.refuse = False
        self.connections = 0
        self.replies_lost = 0
        self._lose = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- one-off faults ----

    def cut(self, *, reset: bool = False) -> None:
        """End every open connection now; with ``reset`` by RST instead of FIN."""
        for writer in list(self._writers):
            _end(writer, reset=reset)

    def lose_replies(self, count: int) -> None:
        """Let the next ``count`` requests through and close the connection before their reply."""
        self._lose = count

    # ---- forwarding ----

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.refuse:
            _end(writer, reset=True)
            return
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if isinstance(self.target, str):
                far_reader, far_writer = await asyncio.open_unix_connection(self.target)
            else:
                far_reader, far_writer = await asyncio.open_connection(*self.target)
            both = (writer, far_writer)
            self._writers.update(both)
            try:
                await asyncio.gather(
                    self._pump(reader, far_writer, replies=False),
                    self._pump(far_reader, writer, replies=True),
                )
            finally:
                for one in both:
                    self._writers.discard(one)
                    _end(one)
        _end(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.latency_seconds:
                    await asyncio.sleep(self.latency_seconds)
                if self.black_hole:
                    continue
                if replies and self._lose:
                    self._lose -= 1
                    self.replies_lost += 1
                    break
                await self._send(writer, data)
        _end(writer)

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = self.slice_bytes or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            writer.write(piece)
            await writer.drain()
            if self.bytes_per_second:
                await asyncio.sleep(len(piece) / self.bytes_per_second)
            elif self.slice_bytes:
                await asyncio.sleep(0)


def _end(writer: asyncio.StreamWriter, *, reset: bool = False) -> None:
    if reset:
        raw = writer.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()
