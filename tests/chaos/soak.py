"""Half an hour at half of capacity, with everything going on that goes on.

Run as ``python -m tests.chaos.soak [--minutes 30] [--most 60] [--json FILE]``.

JSON calls, long streams, WebSockets, clients that hang up, reloads of the
configuration, incidents, and a store that is killed now and then. Printed are
the slope of the memory, descriptors and threads at both ends, and whether
upstream, journal and store have counted alike.

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

from tests.chaos.lab import Fault, Lab, Outcome, chat
from tests.chaos.scenarios.bodies import STREAM, frame, words
from tests.chaos.scripted import STREAM_HEAD, behaviour, chunk, event_stream
from tests.rig import Received, wait_for

CLIENTS = 12
SAMPLE_SECONDS = 3.0
CALIBRATE_SECONDS = 5.0
#: The clients and the upstream run on the same cores as the proxy.
MOST_PER_SECOND = 60.0
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

    def __init__(self, lab: Lab, most: float) -> None:
        self.lab = lab
        self.most = most
        self.began = time.monotonic()
        self.done: dict[str, int] = dict.fromkeys((kind for kind, _ in MIX), 0)
        self.failed: list[str] = []
        self.rate = 0.0
        self.stopping = False
        self._chance = random.Random(5)

    async def run(self, seconds: float) -> None:
        """Keep the clients calling for a while."""
        self.stopping = False
        clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        await asyncio.sleep(seconds)
        self.stopping = True
        await asyncio.gather(*clients)

    async def calibrate(self) -> None:
        """Set the rate to half of what these clients can do here with plain calls, or the most."""
        before, began = sum(self.done.values()), time.monotonic()
        await self.run(CALIBRATE_SECONDS)
        done = sum(self.done.values()) - before
        self.rate = min(done / (time.monotonic() - began) / 2, self.most)

    async def _client(self) -> None:
        link: Streams | None = None
        while not self.stopping:
            began = time.monotonic()
            kind = self._kind() if self.rate else "json"
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
            if self.rate:
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


async def soak(minutes: float, folder: Path, most: float = MOST_PER_SECOND) -> dict[str, Any]:
    """Run, and give everything that was measured."""
    loud = {"name": "loop", "by": ["agent"], "match": {"agent": ["looper"]}, "requests": 5}
    lab = Lab(folder, {"limits": [{**loud, "per": "minute", "tier": "critical"}]})
    lab.begin("r0")
    try:
        run = Soak(lab, most)
        await run.calibrate()
        run.began = time.monotonic()
        gauges = Gauges(lab.proxy.process.pid)
        start = gauges.take()
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        disturbing = loop.run_in_executor(None, disturb, lab, gauges, stop, minutes * 60)
        await run.run(minutes * 60)
        stop.set()
        found: dict[str, Any] = {"minutes": minutes, "rate": round(run.rate, 1), **run.done}
        found |= await disturbing
        found["failed"] = run.failed
        await asyncio.to_thread(settle, lab, start[2])
        found |= await asyncio.to_thread(books, lab)
        end = gauges.take()
    finally:
        lab.close()
    found |= {
        "memory_start_mb": round(start[1], 1),
        "memory_end_mb": round(end[1], 1),
        "memory_by_tenths_mb": gauges.by_tenths(),
        "slope_mb_per_minute": round(gauges.slope_mb_per_minute(), 2),
        "descriptors": [start[2], max(s[2] for s in gauges.samples), end[2]],
        "threads": [start[3], max(s[3] for s in gauges.samples), end[3]],
    }
    found["sound"] = not (found["lost"] or found["doubled"]) and found["cost_differs_nano_usd"] == 0
    return found


def settle(lab: Lab, descriptors: int) -> None:
    """Wait until nothing is under way any more."""
    wait_for(lambda: lab.metric("tokenweir_requests_in_flight") == 0, 60, "no call under way")
    wait_for(lambda: lab.metric("tokenweir_store_up") == 1, 60, "the store is back")
    folder = f"/proc/{lab.proxy.process.pid}/fd"
    with contextlib.suppress(AssertionError):
        wait_for(lambda: len(os.listdir(folder)) <= descriptors + 8, 30, "descriptors given back")


def books(lab: Lab) -> dict[str, Any]:
    """Upstream against journal against store, in calls and in money."""
    outcome = Outcome(0, "soak", 1)
    lab.audit(outcome, Fault(0, "soak", "soak", lambda lab: None))
    spent = sum(o["cost_nano_usd"] or 0 for o in lab.journal())
    counted = sum(row["cost_nano_usd"] for row in lab.proxy.usage(window="24h"))
    incidents = lab.proxy.api("/api/v1/incidents?state=all")["incidents"]
    return {
        "upstream_saw": len(lab.script.arrived),
        "journalled": len(lab.journal()),
        "lost": outcome.lost,
        "doubled": outcome.doubled,
        "cost_differs_nano_usd": counted - spent,
        "incidents": len(incidents),
        "why": outcome.why,
    }


def main() -> int:
    """Run and print; 1 where the books differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--most", type=float, default=MOST_PER_SECOND, help="calls a second")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tw-soak-") as name:
        found = asyncio.run(soak(given.minutes, Path(name), given.most))
    for name, value in found.items():
        print(f"{name:<24}{value}")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))
    return 0 if found["sound"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
