"""Three readers of HTTP before one upstream that writes down what reaches it.

Owns: nginx, haproxy, the recording upstream, and how a raw request is put to
each. Must never: mend a request on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import h11

from tests.rig import Proxy, Upstream, start_proxy, wait_for
from tests.unit.store.support import free_port

SENTINEL = b"GET /v1/sentinel HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"
_PATIENCE_SECONDS = 0.4


class Read(NamedTuple):
    """One request as a strict reader understands it."""

    method: bytes
    path: bytes
    body: bytes


class Recorder:
    """Reads what arrives by the letter of RFC 9112, and keeps the bytes."""

    def __init__(self) -> None:
        self.raw: list[bytearray] = []
        self.requests: list[Read] = []
        self.fields: list[tuple[bytes, bytes]] = []
        self.faults: list[str] = []
        self.open = 0

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = bytearray()
        self.raw.append(raw)
        self.open += 1
        try:
            await self._serve(reader, writer, raw)
        except h11.RemoteProtocolError as fault:
            if raw:
                self.faults.append(str(fault))
        finally:
            self.open -= 1

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytearray
    ) -> None:
        link = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        head: h11.Request | None = None
        body = b""
        while True:
            event = link.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65_536)
                raw += data
                link.receive_data(data)
                if not data and head is None:
                    return
            elif isinstance(event, h11.Request):
                head, body = event, b""
                self.fields += list(event.headers)
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                self.requests.append(Read(head.method, path_of(head.target), body))
                fields = [("Content-Length", "2")]
                writer.write(link.send(h11.Response(status_code=200, headers=fields)) or b"")
                writer.write(link.send(h11.Data(data=b"ok")) or b"")
                writer.write(link.send(h11.EndOfMessage()) or b"")
                await writer.drain()
                head = None
                if link.our_state is h11.MUST_CLOSE:
                    return
                link.start_next_cycle()
            else:
                return


def path_of(target: bytes) -> bytes:
    """The path of any form of target: who forwards an absolute one changes nothing of it."""
    if b"://" in target.split(b"/", 1)[0] + target[:12]:
        rest = target.split(b"://", 1)[1]
        return b"/" + rest.partition(b"/")[2]
    return target


NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/a; uwsgi_temp_path {folder}/b; scgi_temp_path {folder}/c;
  merge_slashes off;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_request_buffering off;
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server up 127.0.0.1:{upstream}
"""


class Parties:
    """Tokenweir, nginx and haproxy before one recorder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder = Recorder()
        self.upstream = Upstream(self.recorder)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.proxy: Proxy
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.upstream.__enter__()
        settings = {
            "upstreams": {"openai": {"base_url": self.upstream.url}},
            "detection": {"enabled": False},
        }
        self.proxy = start_proxy(self.folder / "proxy", settings)
        self.ports["tokenweir"] = self.proxy.port
        self._serve("nginx", NGINX, ["nginx", "-p", str(self.folder), "-c"])
        self._serve("haproxy", HAPROXY, ["haproxy", "-db", "-f"])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait(10)
        with contextlib.suppress(Exception):
            self.proxy.stop()
        self.upstream.__exit__()

    def _serve(self, name: str, template: str, command: list[str]) -> None:
        port = free_port()
        file = self.folder / f"{name}.conf"
        values = {"folder": self.folder, "port": port, "upstream": self.upstream.port}
        file.write_text(template.format(**values))
        log = (self.folder / f"{name}.out").open("wb")
        self._processes.append(subprocess.Popen([*command, str(file)], stdout=log, stderr=log))
        self.ports[name] = port

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_for(listens, 20, f"{name} listens")

    def put(self, party: str, raw: bytes) -> Recorder:
        """Send raw bytes and a sentinel to a party; what reached the upstream."""
        recorder, found = self.recorder, Recorder()
        recorder.clear()
        with socket.create_connection(("127.0.0.1", self.ports[party]), 5) as link:
            link.settimeout(_PATIENCE_SECONDS)
            with contextlib.suppress(OSError):
                link.sendall(raw + SENTINEL)
                while link.recv(65_536):
                    pass
        self._rest()
        found.__dict__.update(recorder.__dict__)
        return found

    def _rest(self) -> None:
        """Until nothing more arrives."""
        until, size = time.monotonic() + 1.0, -1
        while time.monotonic() < until:
            now = sum(map(len, self.recorder.raw))
            if now == size:
                return
            size = now
            time.sleep(0.01)
