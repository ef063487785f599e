"""What the store's tests share: real servers, and calls to count.

Owns: starting a server that dies with the test. Must never: talk to a server
that the test did not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from detection.types import Observation, Series
from proxy.store.embedded import find_binary
from proxy.store.series import Counts, series_of
from proxy.store.settings import StoreSettings


def observation(n: int = 0, ts: float | None = None, **given: object) -> Observation:
    """One plausible finished call; ``n`` varies names and numbers."""
    fields: dict[str, object] = {
        "ts": time.time() if ts is None else ts,
        "id": f"call-{n}",
        "key": f"key_{n % 3:012x}",
        "agent": f"agent-{n % 4}",
        "project": "shop",
        "provider": "openai",
        "upstream": "openai",
        "endpoint": "chat",
        "model": f"model-{n % 2}",
        "status": 500 if n % 10 == 9 else 200,
        "input_tokens": 100 + n,
        "cached_input_tokens": n,
        "output_tokens": 10 + n,
        "cost_nano_usd": 1_000_000 + n,
        "usage_source": "reported",
        "finish_reasons": ("stop",),
        "latency_seconds": 0.5,
        "action": "allow",
    }
    return Observation(**(fields | given))  # type: ignore[arg-type]


def expected_usage(calls: Iterable[Observation], by: str) -> dict[str, Counts]:
    """The sums per value of a dimension, counted the slow and plain way."""
    sums: dict[str, Counter[str]] = {}
    for o in calls:
        for series in series_of(o):
            if series.dimension != by:
                continue
            row = sums.setdefault(series.value, Counter())
            row["requests"] += 1
            row["errors"] += (o.status or 0) >= 400 or o.error_type is not None
            for name in ("cost_nano_usd", "input_tokens", "output_tokens", "cached_input_tokens"):
                row[name] += getattr(o, name) or 0
            for name in ("reasoning_tokens", "cache_write_tokens"):
                row[name] += getattr(o, name) or 0
    return {value: Counts(**row) for value, row in sums.items()}


async def until(check: Callable[[], bool | Awaitable[bool]], timeout: float = 5.0) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + timeout
    while True:
        found = check()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, f"never held: {check}"
        await asyncio.sleep(0.01)


def free_port() -> int:
    """A TCP port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real Valkey on a unix socket (and a port where asked), ended with the test."""

    def __init__(self, *arguments: str, port: int = 0, folder: Path | None = None) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="twt-")
        self.folder = folder or Path(self._temporary.name)  # type: ignore[union-attr]
        self.port = port
        self.path = self.folder / "s.sock"
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"unix://{self.path}"

    def settings(self, **given: object) -> StoreSettings:
        """Settings for this server, patient enough for a busy test machine."""
        fields = {"url": self.url, "timeout_seconds": 2.0, "reconcile_seconds": 0.2}
        fields["connect_timeout_seconds"] = 5.0
        return StoreSettings.model_validate(fields | given)

    def start(self) -> None:
        """Start, or start again over the same data."""
        self.path.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                find_binary(), "--port", str(self.port), "--unixsocket", str(self.path),
                "--dir", str(self.folder), "--save", "", "--appendonly", "yes",
                "--enable-debug-command", "yes", *self.arguments,
            ],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-1000:]
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.path))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def command(self, *words: str) -> bytes:
        """One command on a connection of its own; the raw reply's beginning."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(self.path))
            parts = [f"${len(w.encode())}\r\n{w}\r\n" for w in words]
            link.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return link.recv(1 << 16)

    def kill(self, sign: int = signal.SIGKILL) -> None:
        """End the server at once."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, sign)
        self.process.wait(10)

    def close(self) -> None:
        """End the server and drop its data."""
        self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()


def calls_at(now: float, count: int, seed: int = 1) -> list[Observation]:
    """Calls of the last seconds, with every count set somewhere."""
    chance = random.Random(seed)
    return [
        observation(
            n,
            now - chance.random() * 5,
            reasoning_tokens=chance.choice([None, 5]),
            cache_write_tokens=chance.choice([None, 7]),
            tags={"team": "blue"} if n % 5 == 0 else {},
            user=f"user-{n % 7}" if n % 2 else None,
        )
        for n in range(count)
    ]


TOTAL = Series("total", "")
