"""One scrape for all workers of a host.

Owns: a private socket on which each worker gives its exposition, and the merge
of all. Must never: be reachable from another machine, or hold a scrape up for a
worker that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from proxy.metrics_merge import merge_expositions

_TIMEOUT_SECONDS = 2.0
_LONGEST_FOLDER_BYTES = 85


def socket_folder(data_dir: Path) -> Path:
    """Beside the data where the kernel's limit on socket paths allows, else private."""
    folder = data_dir.absolute() / "run"
    if len(os.fsencode(folder)) <= _LONGEST_FOLDER_BYTES:
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tokenweir-{os.getuid()}-{name}"


class Peers:
    """This worker's exposition, offered to the others, and theirs."""

    def __init__(self, folder: Path, place: int, scrape: Callable[[], Awaitable[str]]) -> None:
        self._folder = folder
        self._path = folder / f"worker-{place}.sock"
        self._scrape = scrape
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Offer this worker's numbers."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, self._path)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stop offering."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def scrape(self) -> str:
        """The sum over all workers of this host."""
        others = [path for path in sorted(self._folder.glob("worker-*.sock")) if path != self._path]
        if not others:
            return await self._scrape()
        texts = await asyncio.gather(self._scrape(), *(self._ask(path) for path in others))
        return await asyncio.to_thread(merge_expositions, [text for text in texts if text])

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write((await self._scrape()).encode())
            await writer.drain()
        writer.close()

    async def _ask(self, path: Path) -> str:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(path)
                data = await reader.read(-1)
                writer.close()
                return data.decode()
        except (OSError, TimeoutError):
            return ""
