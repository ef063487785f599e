"""Half an hour at half of capacity, with everything going on that goes on.

Run as ``python -m tests.chaos.soak [--minutes 30] [--mixed 60] [--json FILE]``.

A crowd sends plain calls at half of the rate that it reached here a moment before,
going as fast as answers came (``tests/chaos/crowd.py``). Beside it fewer clients do
everything else: long streams, WebSockets, hanging up, loops that become incidents;
the configuration is reloaded and the store killed now and then. Printed are the
slope of the memory, descriptors and threads at both ends, and whether clients,
upstreams, journal and store have counted alike.

Owns: the mix, and what is measured. Must never: call the run sound where books differ.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import random
import resource
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.benchmarks._load import cpu_seconds
from tests.chaos.crowd import Crowd, records
from tests.chaos.lab import Lab, chat
from tests.chaos.scenarios.bodies import STREAM, frame, words
from tests.chaos.scripted import STREAM_HEAD, behaviour, chunk, event_stream
from tests.rig import Received, wait_for

CLIENTS = 12
SAMPLE_SECONDS = 3.0
CALIBRATE_SECONDS = 8.0
#: By the clients in Python, which run on the same cores as the proxy.
MIXED_PER_SECOND = 60.0
MIX = (("json", 0.86), ("stream", 0.08), ("hang-up", 0.03), ("websocket", 0.02), ("loop", 0.01))
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@behaviour("long-stream")
async def long_stream(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    writer.write(STREAM_HEAD)
    for _ in range(20):
        writer.write(chunk(event_stream(words(finish=False), done=False)))
        await writer.drain()
        await asyncio.sleep(0.05)
    usage = {"prompt_tokens": 30, "completion_tokens": 60, "total_tokens": 90}
    writer.write(chunk(event_stream(words(usage=usage))) + chunk(b""))
    return True


class Soak:
    """The clients of one run, and what they did."""

    def __init__(self, lab: Lab, rate: float) -> None:
        self.lab = lab
        self.began = time.monotonic()
        self.done: dict[str, int] = dict.fromkeys((kind for kind, _ in MIX), 0)
        self.failed: list[str] = []
        self.rate = rate
        self.stopping = False
        self._chance = random.Random(5)

    async def run(self, seconds: float) -> None:
        """Keep the clients calling for a while."""
        self.stopping = False
        clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        await asyncio.sleep(seconds)
        self.stopping = True
        await asyncio.gather(*clients)

    async def _client(self) -> None:
        link: Streams | None = None
        while not self.stopping:
            began = time.monotonic()
            kind = self._kind()
            try:
                if kind in ("json", "loop"):
                    link = link or await self._connect()
                    await self._plain(link, kind)
                else:
                    await getattr(self, "_" + kind.replace("-", "_"))()
                self.done[kind] += 1
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                at, took = began - self.began, time.monotonic() - began
                self.failed.append(
                    f"{kind} at {at:.0f} s, {type(error).__name__} after {took:.1f} s"
                )
                if link is not None:
                    link[1].close()
                link = None
            await asyncio.sleep(max(0.0, CLIENTS / self.rate - (time.monotonic() - began)))
        if link is not None:
            link[1].close()

    def _kind(self) -> str:
        kinds, weights = zip(*MIX, strict=True)
        return str(self._chance.choices(kinds, weights)[0])

    async def _connect(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.lab.proxy.port, limit=1 << 22)

    async def _plain(self, link: Streams, kind: str) -> None:
        reader, writer = link
        number = self._chance.randrange(1000)
        agent = "looper" if kind == "loop" else f"agent-{number % 20}"
        text = "again" if kind == "loop" else f"question {number} {self._chance.random()}"
        writer.write(self.lab.raw_request(chat(text), headers={"X-Tokenweir-Agent": agent}))
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)

    async def _stream(self) -> None:
        reader, writer = await self._connect()
        with contextlib.closing(writer):
            writer.write(self.lab.raw_request(STREAM, do="long-stream"))
            async with asyncio.timeout(60):
                await reader.readuntil(b"[DONE]")

    async def _hang_up(self) -> None:
        reader, writer = await self._connect()
        with contextlib.closing(writer):
            writer.write(self.lab.raw_request(STREAM, do="long-stream"))
            async with asyncio.timeout(60):
                await reader.readuntil(b"deux")

    async def _websocket(self) -> None:
        reader, writer = await self._connect()
        handshake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        }
        path = "/v1/realtime?model=gpt-realtime"
        with contextlib.closing(writer):
            writer.write(
                self.lab.raw_request(method="GET", path=path, do="websocket", headers=handshake)
            )
            async with asyncio.timeout(30):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(frame(1, b'{"type":"x"}') + frame(8, b"\x03\xe8"))
                await reader.read()


class Gauges:
    """What the proxy's process holds, sampled as time goes by."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.samples: list[tuple[float, float, int, int]] = []

    def take(self) -> tuple[float, float, int, int]:
        """Monotonic seconds, resident megabytes, descriptors, threads."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        sample = (
            time.monotonic(),
            pages * resource.getpagesize() / 1e6,
            len(os.listdir(f"/proc/{self.pid}/fd")),
            len(os.listdir(f"/proc/{self.pid}/task")),
        )
        self.samples.append(sample)
        return sample

    def by_tenths(self) -> list[float]:
        """The mean of the memory in each tenth of the run, in megabytes."""
        sizes = [sample[1] for sample in self.samples]
        edges = [len(sizes) * part // 10 for part in range(11)]
        parts = [sizes[a:b] for a, b in itertools.pairwise(edges)]
        return [round(statistics.mean(part), 1) for part in parts if part]

    def slope_mb_per_minute(self) -> float:
        """Of the second half of the run: what grows by use is full by then."""
        late = self.samples[len(self.samples) // 2 :]
        times, sizes = [s[0] / 60 for s in late], [s[1] for s in late]
        return statistics.linear_regression(times, sizes).slope if len(late) > 2 else 0.0


def disturb(lab: Lab, gauges: Gauges, stop: threading.Event, seconds: float) -> dict[str, Any]:
    """Reload, kill the store and sample until told to stop; what was done, and when."""
    done = {"reloads": 0, "store_restarts": 0}
    killed_at: list[int] = []
    began = time.monotonic()
    every = max(15.0, seconds / 20)
    next_at = time.monotonic() + every
    text = lab.proxy.config.read_text()
    while not stop.wait(SAMPLE_SECONDS):
        gauges.take()
        if time.monotonic() < next_at:
            continue
        next_at += every
        if sum(done.values()) % 2:
            pid = int((lab.proxy.data_dir / "store" / "server.pid").read_text())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            done["store_restarts"] += 1
            killed_at.append(round(time.monotonic() - began))
        else:
            lab.proxy.config.write_text(f"{text}# {done['reloads']}\n")
            done["reloads"] += 1
    return {**done, "store_killed_at_seconds": killed_at}


async def soak(minutes: float, folder: Path, mixed: float = MIXED_PER_SECOND) -> dict[str, Any]:
    """Run, and give everything that was measured. Raises ``MissingError`` without wrk and cc."""
    loud = {"name": "loop", "by": ["agent"], "match": {"agent": ["looper"]}, "requests": 5}
    settings = {
        "limits": [{**loud, "per": "minute", "tier": "critical"}],
        "journal": {"max_bytes": 2**36},  # the books need every record
    }
    lab = Lab(folder, settings)
    lab.begin("r0")
    try:
        crowd = Crowd(lab)
        port = lab.proxy.port
        capacity = await asyncio.to_thread(crowd.run, port, CALIBRATE_SECONDS)
        rate = capacity.requests / capacity.seconds / 2
        run = Soak(lab, mixed)
        gauges = Gauges(lab.proxy.process.pid)
        start, tasks = gauges.take(), lab.metric("tokenweir_loop_tasks")
        stop = threading.Event()
        cpu = cpu_seconds(lab.proxy.process.pid)
        disturbing = asyncio.to_thread(disturb, lab, gauges, stop, minutes * 60)
        sending = asyncio.to_thread(crowd.run, port, minutes * 60, rate)
        done = asyncio.gather(disturbing, sending)
        await run.run(minutes * 60)
        stop.set()
        disturbed, sent = await done
        busy = (cpu_seconds(lab.proxy.process.pid) - cpu) / (minutes * 60)
        found: dict[str, Any] = {
            "minutes": minutes,
            "capacity_per_second": round(rate * 2),
            "crowd_per_second": round(sent.requests / sent.seconds),
            "crowd_errors": sent.status + sent.socket,
            "proxy_cores_busy": round(busy, 2),
            **run.done,
            **disturbed,
            "failed": run.failed,
        }
        await asyncio.to_thread(settle, lab, start[2])
        found |= await asyncio.to_thread(books, lab, crowd)
        end = gauges.take()
        found["tasks"] = [int(tasks), int(lab.metric("tokenweir_loop_tasks"))]
    finally:
        lab.close()
    return found | {
        "memory_start_mb": round(start[1], 1),
        "memory_end_mb": round(end[1], 1),
        "memory_by_tenths_mb": gauges.by_tenths(),
        "slope_mb_per_minute": round(gauges.slope_mb_per_minute(), 2),
        "descriptors": [start[2], max(s[2] for s in gauges.samples), end[2]],
        "threads": [start[3], max(s[3] for s in gauges.samples), end[3]],
    }


def settle(lab: Lab, descriptors: int) -> None:
    """Wait until nothing is under way any more, and the store counts nothing new."""
    wait_for(lambda: lab.metric("tokenweir_requests_in_flight") == 0, 60, "no call under way")
    wait_for(lambda: lab.metric("tokenweir_store_up") == 1, 60, "the store is back")
    folder = f"/proc/{lab.proxy.process.pid}/fd"
    with contextlib.suppress(AssertionError):
        wait_for(lambda: len(os.listdir(folder)) <= descriptors + 8, 30, "descriptors given back")
    before = -1
    while (now := stored(lab)[0]) != before:
        before = now
        time.sleep(3)


def stored(lab: Lab) -> tuple[int, int]:
    """Calls and nano-USD by the store's count."""
    rows = lab.proxy.usage(window="24h")
    return sum(r["requests"] + r["refused"] for r in rows), sum(r["cost_nano_usd"] for r in rows)


def books(lab: Lab, crowd: Crowd) -> dict[str, Any]:
    """Clients and upstreams against the journal, the journal against the store; and money."""
    written = records(lab.proxy.data_dir)
    calls, cost_nano_usd = stored(lab)
    seen = crowd.upstream_saw()
    arrived = set(lab.script.arrived)
    unnamed = written.sessions["other"]  # names beyond the cap on sessions
    missing = max(0, len(arrived - written.sessions.keys()) - unnamed)
    twice = sum(n - 1 for name, n in written.sessions.items() if name != "other")
    incidents = lab.proxy.api("/api/v1/incidents?state=all")["incidents"]
    found = {
        "crowd_had_answers": crowd.sent.requests,
        "upstreams_saw": seen + len(arrived),
        "journalled": written.calls,
        "stored": calls,
        "lost": missing + max(0, seen - written.crowd) + max(0, written.calls - calls),
        "doubled": twice + max(0, written.crowd - seen) + max(0, calls - written.calls),
        "cost_differs_nano_usd": cost_nano_usd - written.cost_nano_usd,
        "incidents": len(incidents),
    }
    agree = crowd.sent.requests == seen
    agree = agree and not (found["lost"] or found["doubled"] or found["cost_differs_nano_usd"])
    return {**found, "sound": agree}


def main() -> int:
    """Run and print; 1 where the books differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--mixed", type=float, default=MIXED_PER_SECOND, help="calls a second beside the crowd's"
    )
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tw-soak-") as name:
        found = asyncio.run(soak(given.minutes, Path(name), given.mixed))
    for name, value in found.items():
        print(f"{name:<24}{value}")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))
    return 0 if found["sound"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
