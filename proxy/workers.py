"""Processes on the data port: one, or several that share it.

Owns: forking workers, starting them again, signals, and the first lines that a
person sees. Must never: hold state that a worker needs; a worker that dies is
replaced by one that starts from store and journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import structlog
import uvloop

from proxy.app import App
from proxy.config import Settings
from proxy.garbage import settle_memory
from proxy.redact import configure_logging
from proxy.store.errors import StoreError
from proxy.welcome import welcome

_log = structlog.get_logger("tokenweir.workers")
_FAST_DEATH_SECONDS = 2.0
_MOST_FAST_DEATHS = 5


def run(
    settings: Settings,
    *,
    overrides: Callable[[Settings], Settings],
    config_file: Path | None,
    log_json: bool,
    verbose: bool,
) -> int:
    """Serve until told to stop; the exit status."""
    configure_logging(json_lines=log_json, level=10 if verbose else 20, colors=not log_json)
    _raise_file_limit()
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        listeners = _listen(settings)
    except OSError as error:
        return _fail(settings, error)
    if settings.server.workers == 1:
        return _serve(settings, overrides, config_file, listeners[0], index=0)
    return _Supervisor(settings, overrides, config_file, listeners).run()


def _listen(settings: Settings) -> list[socket.socket]:
    """One listening socket a worker on the same port, so that the kernel spreads connections."""
    server = settings.server
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    found: list[socket.socket] = []
    port = server.port
    for _ in range(server.workers):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((server.host, port))
        listener.listen(4096)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        found.append(listener)
    return found


def _serve(
    settings: Settings,
    overrides: Callable[[Settings], Settings],
    config_file: Path | None,
    listener: socket.socket,
    *,
    index: int,
) -> int:
    """One worker's life."""

    async def live() -> int:
        app = App(
            settings, overrides=overrides, config_file=config_file, listener=listener, index=index
        )
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def told() -> None:
            if stop.is_set():
                os._exit(130)  # the second signal: out now
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)
        try:
            await app.start()
        except (StoreError, OSError, ImportError) as error:
            _fail(settings, error)
            os._exit(1)
        except Exception:
            _log.exception("start_failed")
            os._exit(1)
        loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(app.reload()))
        if index == 0:
            _tell_ready(settings, app)
        settle_memory()
        await stop.wait()
        await app.stop()
        return 0

    return uvloop.run(live())


def _tell_ready(settings: Settings, app: App) -> None:
    ready_file = os.environ.get("TOKENWEIR_READY_FILE")
    if ready_file:
        ports = {"port": app.port, "admin_port": app.admin_port}
        part = Path(ready_file + ".part")
        part.write_bytes(orjson.dumps({**ports, "workers": settings.server.workers}))
        part.rename(ready_file)
    sys.stdout.write(welcome(settings, app))
    sys.stdout.flush()


def _fail(settings: Settings, error: Exception) -> int:
    server = settings.server
    text = str(error)
    if isinstance(error, OSError) and error.errno == 98:
        text = (
            f"{server.host}:{server.port} or the admin port {server.admin_port} is taken: stop "
            "what listens there, or choose others with --port and --admin-port"
        )
    sys.stderr.write(f"tokenweir: {text}\n")
    return 1


def _raise_file_limit() -> None:
    """Each call needs two descriptors; take what the system lets us have."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_048_576
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Supervisor:
    """Keeps the workers running."""

    def __init__(
        self,
        settings: Settings,
        overrides: Callable[[Settings], Settings],
        config_file: Path | None,
        listeners: list[socket.socket],
    ) -> None:
        self._settings = settings
        self._overrides = overrides
        self._config_file = config_file
        self._listeners = listeners
        self._workers: dict[int, tuple[int, float]] = {}
        self._stopping = False
        self._fast_deaths = 0

    def run(self) -> int:
        """Fork, watch, and end with the workers."""
        for index in range(len(self._listeners)):
            self._fork(index)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._pass_on)
        status = 0
        while self._workers:
            try:
                pid, code = os.wait()
            except InterruptedError:
                continue
            except ChildProcessError:
                break
            index, began = self._workers.pop(pid, (-1, 0.0))
            if index < 0:
                continue
            code = os.waitstatus_to_exitcode(code)
            if self._stopping:
                status = status or code
                continue
            _log.warning("worker_ended", worker=index, status=code)
            quick = time.monotonic() - began < _FAST_DEATH_SECONDS
            self._fast_deaths = self._fast_deaths + 1 if quick else 0
            if self._fast_deaths >= _MOST_FAST_DEATHS:
                self._pass_on(signal.SIGTERM, None)
                status = code or 1
                continue
            self._fork(index)
        return max(0, status)

    def _fork(self, index: int) -> None:
        pid = os.fork()
        if pid:
            self._workers[pid] = (index, time.monotonic())
            return
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for other, listener in enumerate(self._listeners):
            if other != index:
                listener.close()
        status = 1
        try:
            status = _serve(
                self._settings,
                self._overrides,
                self._config_file,
                self._listeners[index],
                index=index,
            )
        finally:
            os._exit(status)

    def _pass_on(self, number: int, frame: object) -> None:
        if number != signal.SIGHUP:
            self._stopping = True
            # A port that nobody accepts on any more must not go on taking connections.
            for listener in self._listeners:
                listener.close()
        for pid in list(self._workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
