"""The tests' own bench: a real proxy process, and upstreams that do as they are told.

Owns: starting and ending what the tests drive, each on ports and folders of its
own. Must never: leave a process behind, or send anything but to loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "test-admin-token-0123456789abcdef"


@dataclass
class Proxy:
    """A running ``tokenweir serve``."""

    process: subprocess.Popen[bytes]
    port: int
    admin_port: int
    data_dir: Path
    log: Path
    config: Path
    arguments: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def api(self, path: str, method: str = "GET", body: object = None) -> Any:
        """A call of the admin API as its admin; the decoded answer."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            self.admin + path,
            data=data,
            method=method,
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def text(self, path: str) -> str:
        request = urllib.request.Request(
            self.admin + path, headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def journal(self) -> list[dict[str, Any]]:
        """Every observation on disk, of all workers."""
        found = []
        for path in sorted((self.data_dir / "journal").rglob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    if isinstance(record, dict) and "endpoint" in record:
                        found.append(record)
        return found

    def usage(self, by: str = "total", window: str = "1h") -> list[dict[str, Any]]:
        """The store's rows."""
        rows = self.api(f"/api/v1/usage?by={by}&window={window}")["rows"]
        assert isinstance(rows, list)
        return rows

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 20) -> int:
        """End the proxy; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise


def start_proxy(
    folder: Path,
    settings: dict[str, Any] | None = None,
    *,
    arguments: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    data_dir: Path | None = None,
    ready_seconds: float = 30,
) -> Proxy:
    """Start a proxy and wait until it says that it is ready."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "tokenweir.yaml"
    config.write_text(yaml.safe_dump(settings or {}))
    data = data_dir or folder / "data"
    log = folder / f"proxy-{time.monotonic_ns()}.log"
    ready = folder / f"ready-{time.monotonic_ns()}.json"
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
    command += ["--port", "0", "--admin-port", "0", "--data-dir", str(data), *arguments]
    env = {
        **os.environ,
        "TOKENWEIR_ADMIN_TOKEN": TOKEN,
        "TOKENWEIR_READY_FILE": str(ready),
        **(environment or {}),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)
    deadline = time.monotonic() + ready_seconds
    while time.monotonic() < deadline:
        if ready.exists():
            ports = json.loads(ready.read_text())
            return Proxy(process, ports["port"], ports["admin_port"], data, log, config, command)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    process.wait(5)
    raise AssertionError(f"the proxy did not start:\n{log.read_text()[-4000:]}")


@contextlib.contextmanager
def running_proxy(
    folder: Path, settings: dict[str, Any] | None = None, **more: Any
) -> Iterator[Proxy]:
    """A proxy for the length of a block, and its store gone with it."""
    proxy = start_proxy(folder, settings, **more)
    try:
        yield proxy
    finally:
        with contextlib.suppress(Exception):
            proxy.stop()
        end_store(proxy.data_dir)


def end_store(data_dir: Path) -> None:
    """End the embedded store of a data folder, if it outlived its proxy."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            cwd = os.readlink(entry / "cwd")
            if ("valkey" in line or "redis" in line) and (
                str(data_dir) in line or cwd.startswith(str(data_dir))
            ):
                os.kill(int(entry.name), signal.SIGKILL)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """An upstream on a thread of its own: raw bytes out, everything in recorded."""

    def __init__(self, handler: Handler, *, tls: Any = None) -> None:
        self._handler = handler
        self._tls = tls
        self.port = 0
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> Upstream:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def serve() -> None:
            server = await asyncio.start_server(
                self._handle, "127.0.0.1", 0, ssl=self._tls, backlog=4096, limit=1 << 24
            )
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()

        self._loop.run_until_complete(serve())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(Exception):
                writer.close()


@dataclass
class Received:
    """One request as an upstream saw it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)


async def read_request(reader: asyncio.StreamReader) -> Received | None:
    """Read one request, with its body."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = raw.decode("latin-1").split("\r\n")
    headers = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines[1:] if line)]
    request = Received(lines[0], headers, b"")
    length = request.header("content-length")
    if length is not None:
        request.body = await reader.readexactly(int(length))
    elif "chunked" in (request.header("transfer-encoding") or ""):
        parts = []
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
            if size == 0:
                break
        request.body = b"".join(parts)
    return request


def json_answer(body: object, status: int = 200, **headers: str) -> bytes:
    """A plain JSON answer with its length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(data))}
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} OK\r\n{head}\r\n".encode() + data


def chat_answer(
    model: str = "gpt-4o-mini", prompt: int = 11, completion: int = 7, text: str = "Hello."
) -> dict[str, Any]:
    """A chat completion in OpenAI's shape."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }


class Raw:
    """A raw client: exactly these bytes, and exactly what comes back."""

    def __init__(self, port: int, timeout: float = 10) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.settimeout(timeout)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Raw:
        self.socket.sendall(data)
        return self

    def all(self) -> bytes:
        """Everything until the other side closes (or resets)."""
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65_536):
                parts.append(data)
        return b"".join(parts)

    def until(self, mark: bytes) -> bytes:
        """Everything until a mark has come."""
        data = b""
        while mark not in data:
            piece = self.socket.recv(65_536)
            if not piece:
                break
            data += piece
        return data


def wait_for(condition: Callable[[], object], seconds: float = 10, what: str = "") -> Any:
    """Poll until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {seconds} s: {what}")
        time.sleep(0.05)
