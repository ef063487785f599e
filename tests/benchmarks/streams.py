"""Many open streams on one worker, and large bodies.

``python -m tests.benchmarks.streams [--streams 10000] [--json FILE]``

1. As many open streams as asked for (or as the limit on open files allows, two
   descriptors a stream), two events a second each: memory per stream, CPU, and by how
   much the gaps between events differ from those without the proxy.
2. Prompts of 100 KB and 1 MB, and an upload of 100 MB, through nginx and through us:
   bytes per second, the longest stall of our event loop, memory.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import uvloop

from tests.benchmarks import _peers as peers
from tests.benchmarks._load import cpu_seconds, free_port, memory_megabytes, running, upstream

PACE_MS = 500
SPARE_FILES = 600
PATH = b"/v1/chat/completions"
NUMBERS = itertools.count()


class Stream(asyncio.Protocol):
    """A client of one stream: notes when each event comes."""

    def __init__(self, request: bytes, gaps: list[float]) -> None:
        self._request, self._gaps = request, gaps
        self._last = 0.0
        self.events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        found = data.count(b"data: {")
        if not found:
            return
        now = time.monotonic()
        if self.events > 2 and found == 1:
            self._gaps.append(abs(now - self._last - PACE_MS / 1e3))
        self._last = now
        self.events += found


def stream_request() -> bytes:
    body = json.dumps(
        {
            "model": "gpt-4o-mini",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "Count."}],
        }
    ).encode()
    return (
        b"POST %b HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer sk-bench\r\nContent-Length: %d\r\n\r\n%b" % (PATH, len(body), body)
    )


async def open_streams(port: int, count: int, seconds: float) -> tuple[list[float], int]:
    """Open streams over eight seconds, let them run; deviations of gaps, and how many ran."""
    gaps: list[float] = []
    loop = asyncio.get_running_loop()
    found: list[Stream] = []
    for start in range(0, count, 100):
        batch = [Stream(stream_request(), gaps) for _ in range(min(100, count - start))]
        await asyncio.gather(
            *(loop.create_connection(lambda s=s: s, "127.0.0.1", port) for s in batch)
        )
        found += batch
        await asyncio.sleep(8 * 100 / count)
    gaps.clear()
    await asyncio.sleep(seconds)
    return list(gaps), sum(stream.events > 2 for stream in found)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3 if ordered else 0.0


def many_streams(count: int, folder: Path) -> dict[str, Any]:
    """The first part."""
    with upstream(PACE_MS, (os.cpu_count() or 1) - 1) as up:
        direct, _ = uvloop.run(open_streams(up, count, 8))
        peer = peers.tokenweir(folder, free_port(), up)
        with running(peer, folder, 0) as (pid, _):
            time.sleep(1)
            before, used = memory_megabytes(pid), cpu_seconds(pid)

            async def through() -> tuple[list[float], int, float]:
                task = asyncio.create_task(open_streams(peer.port, count, 8))
                await asyncio.sleep(14)
                memory = memory_megabytes(pid)
                return *(await task), memory

            gaps, ran, memory = uvloop.run(through())
            used = cpu_seconds(pid) - used
            stall = metric(peer.port + 1, "tokenweir_loop_stall_seconds") * 1e3
    return {
        "streams": ran,
        "kilobytes_per_stream": (memory - before) * 1024 / max(ran, 1),
        "cpu_seconds": used,
        "longest_loop_stall_ms": stall,
        "gap_deviation_p99_ms_direct": percentile(direct, 0.99),
        "gap_deviation_p99_ms": percentile(gaps, 0.99),
        "gap_deviation_p50_ms": percentile(gaps, 0.5),
    }


def metric(admin_port: int, name: str) -> float:
    """The sum of a metric's samples on the admin port."""
    request = Request(f"http://127.0.0.1:{admin_port}/metrics")
    with urlopen(request) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def send_bodies(port: int, size: int, count: int, at_once: int, kind: bytes) -> float:
    """Send bodies and wait for the answers; bytes per second."""
    text = b"lorem ipsum dolor " * (size // 18)
    chat = kind == b"application/json"
    path = PATH if chat else b"/v1/files"

    async def worker(calls: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(calls):
            # No two prompts alike: a prompt that comes back again and again is a loop.
            end = b"%016d" % next(NUMBERS)
            body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"%b%b"}]}' % (
                text,
                end,
            )
            body = body if chat else text
            writer.write(
                b"POST %b HTTP/1.1\r\nHost: b\r\nContent-Type: %b\r\n"
                b"Authorization: Bearer sk-bench\r\nContent-Length: %d\r\n\r\n"
                % (path, kind, len(body))
            )
            for start in range(0, len(body), 262_144):
                writer.write(body[start : start + 262_144])
                await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"a body was refused: {answer[:400]!r}")
            length = re.search(rb"(?i)content-length: (\d+)", answer)
            await reader.readexactly(int(length[1]) if length else 0)
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*(worker(count // at_once) for _ in range(at_once)))
    return size * (count // at_once) * at_once / (time.monotonic() - began)


BODIES = (
    ("prompt of 100 KB", 100_000, 800, 8, b"application/json"),
    ("prompt of 1 MB", 1_000_000, 160, 4, b"application/json"),
    ("upload of 100 MB", 100_000_000, 4, 1, b"application/octet-stream"),
)


def large_bodies(folder: Path) -> dict[str, Any]:
    """The second part."""
    found: dict[str, Any] = {}
    with upstream(0, (os.cpu_count() or 1) - 1) as up:
        (folder / "n").mkdir()
        (folder / "t").mkdir()
        ours = peers.tokenweir(folder / "t", free_port(), up)
        others = [peers.nginx(folder / "n", free_port(), up), ours]
        for peer in filter(None, others):
            with running(peer, folder, 0) as (pid, _):
                time.sleep(1)
                before = memory_megabytes(pid)
                for name, size, count, at_once, kind in BODIES:
                    rates = [
                        uvloop.run(send_bodies(peer.port, size, count, at_once, kind))
                        for _ in range(3)
                    ]
                    found[f"{peer.name}: {name}, MB/s"] = statistics.median(rates) / 1e6
                found[f"{peer.name}: memory grew by MB"] = memory_megabytes(pid) - before
                if peer is ours:
                    stall = metric(peer.port + 1, "tokenweir_loop_stall_seconds")
                    found["longest stall of our loop, ms"] = stall * 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(options.streams, (hard - SPARE_FILES) // 2)
    if count < options.streams:
        print(f"{hard} open files are allowed here: {count} streams instead")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        found["streams"] = many_streams(count, Path(name))
    with tempfile.TemporaryDirectory() as name:
        found["bodies"] = large_bodies(Path(name))
    for part in found.values():
        for name, value in part.items():
            print(f"{name:<44}{value:12.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
