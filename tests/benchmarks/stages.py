"""Where a request's CPU goes inside the proxy, without sockets.

``python -m tests.benchmarks.stages [--calls N] [--keys N] [--met N] [--profile] [--json FILE]``

A whole worker is built as ``tokenweir serve`` builds it, with everything on (100
limits and a budget, detection, ledger, journal, store). Real requests and answers
are then fed into its connections by hand, over transports that only count bytes:
what is measured is all of our work on a call and none of the kernel's. Calls come
in blocks of 32, as from 32 connections, and the event loop runs between blocks, so
that the store's batches go out as they do in service; what that takes is told apart.
With ``--keys`` the calls come with so many credentials in turn, each of which made
``--met`` calls before (detection books a caller's first calls one by one, and up to
sixteen together later), and the limit that applies is one for all (a key's own share is
fetched before its first call goes out, which a rig without sockets can't wait for).
Blocks of calls with ten of these credentials alone are then played in turn with those
with all: their ratio is what so many callers cost, whatever else the machine does.

Stages are timed in a second run by wrapping their entry points; the wrapper's own
cost is measured on an empty function and taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from proxy import config
from proxy.app import App
from proxy.garbage import settle_memory
from proxy.http.connection import ClientConnection
from proxy.http.upstream import UpstreamConnection
from proxy.redact import configure_logging

BLOCK = 32
FEW_KEYS = 10
#: Of the event loop between two blocks: fewer, and the store's answers come too late.
TURNS = 5


class Sink:
    """A transport that takes everything and sends nothing."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.bytes += len(data)

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 50_000) if name == "peername" else None

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def write_eof(self) -> None: ...

    def can_write_eof(self) -> bool:
        return True


def request(number: int, keys: int) -> bytes:
    """A chat request of 1.5 KB; no two are alike."""
    body = json.dumps(
        {
            "model": "gpt-4o-mini",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant. " * 42},
                {"role": "user", "content": f"What is known about order {number}?"},
            ],
            "max_tokens": 200,
        }
    ).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8787\r\n"
        b"Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
        b"Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.7.0\r\n"
        b"Authorization: Bearer sk-bench-%d\r\nx-stainless-lang: python\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (number % keys, len(body), body)
    )


ANSWER_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "It is on its way. " * 45},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 300,
            "completion_tokens": 200,
            "total_tokens": 500,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_1\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER_BODY), ANSWER_BODY)
)

CONFIG = """\
upstreams: {openai: {base_url: "http://127.0.0.1:9", provider: openai, max_connections: 64}}
budgets:
  - {name: team, by: [project], amount_usd: 1000000, per: month}
limits:
"""


def configuration(keys: int) -> str:
    lines = [
        f"  - {{name: limit-{i}, by: [key], match: {{key: [key_{i:012x}]}}, requests: 9, per: day}}"
        for i in range(99)
    ]
    by = "key" if keys == 1 else "project"
    lines.append(f"  - {{name: everyone, by: [{by}], requests: 1000000000, per: day}}")
    return CONFIG + "\n".join(lines) + "\n"


class Pairs:
    """Client connections, each with the upstream connection that serves it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.clients = [ClientConnection(app.data_server) for _ in range(BLOCK)]
        for client in self.clients:
            client.connection_made(Sink())  # type: ignore[arg-type]
        destination = app.services.router.route("/v1/models", {}).destination
        self.pool = app.services.pools.of(destination)
        for _ in range(BLOCK):
            connection = UpstreamConnection(self.pool)
            connection.transport = Sink()  # type: ignore[assignment]
            self.pool._all.add(connection)
            self.pool.put_back(connection, 3600)

    async def warm(self) -> None:
        """The first call waits for its share of the budget; those behind it don't."""
        idle = list(self.pool._idle)
        self.clients[0].data_received(request(0, 1))
        while not any(connection.handler for connection in idle):
            await asyncio.sleep(0.01)
        self.answer(idle)

    def play(self, requests: list[bytes]) -> None:
        """A block of calls: all requests, then all answers, also to who waited for the store."""
        for client, data in zip(self.clients, requests, strict=True):
            client.data_received(data)
        self.answer(list(self.pool._all))

    def answer(self, connections: list[UpstreamConnection]) -> None:
        for connection in connections:
            if connection.handler is not None:
                connection.data_received(ANSWER)


async def started(folder: Path, keys: int = 1) -> App:
    file = folder / "tokenweir.yaml"
    file.write_text(configuration(keys))
    settings = config.load(file).model_copy(update={"data_dir": folder / "data"})
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.setblocking(False)
    server = settings.server.model_copy(update={"admin_port": 0})
    settings = settings.model_copy(update={"server": server})
    app = App(settings, overrides=lambda s: s, config_file=None, listener=listener, index=0)
    await app.start()
    return app


async def blocks(
    pairs: Pairs, calls: int, first: int, keys: int = 1
) -> tuple[list[float], list[float]]:
    """Microseconds a call, one figure a block: of the calls, and of what ran between them."""
    found: tuple[list[float], list[float]] = ([], [])
    for block in range(calls // BLOCK):
        requests = [request(first + block * BLOCK + i, keys) for i in range(BLOCK)]
        began = time.process_time()
        pairs.play(requests)
        played = time.process_time()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        found[0].append((played - began) / BLOCK * 1e6)
        found[1].append((time.process_time() - played) / BLOCK * 1e6)
    return found


async def in_turn(pairs: Pairs, calls: int, keys: int) -> tuple[list[float], list[float]]:
    """Microseconds a call in blocks with all keys, and in blocks with few of them."""
    found: tuple[list[float], list[float]] = ([], [])
    for first in range(0, calls, 10 * BLOCK):
        for place, some in enumerate((keys, FEW_KEYS)):
            plain, _ = await blocks(pairs, 10 * BLOCK, (2 + place) * 10**7 + first, some)
            found[place].extend(plain)
    return found


def quietest(figures: list[float]) -> float:
    """What the quietest twentieth of them takes at most."""
    return statistics.quantiles(figures, n=20)[0]


class Timer:
    """Exclusive-of-wrapper CPU time of some entry points."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.empty = self._cost_of_wrapper()

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Time every call of ``owner.name`` under a stage's name."""
        function = getattr(owner, name)
        timed = self.timed(function, stage)
        try:
            setattr(owner, name, timed)
        except AttributeError:
            setattr(type(owner), name, lambda _self, *values: timed(*values))

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        self.seconds.setdefault(stage, 0.0)
        seconds, clock = self.seconds, time.thread_time

        def call(*values: Any) -> Any:
            began = clock()
            try:
                return function(*values)
            finally:
                seconds[stage] += clock() - began

        return call

    def _cost_of_wrapper(self) -> float:
        self.seconds = {}
        timed = self.timed(lambda: None, "empty")
        for _ in range(100_000):
            timed()
        return self.seconds.pop("empty") / 100_000


def wrap_stages(app: App, timer: Timer) -> None:
    meter = app.meter
    timer.wrap(meter._gate, "admit", "gate: admit")
    timer.wrap(meter._gate, "settle", "gate: settle")
    timer.wrap(meter._ledger, "record", "ledger and journal: record")
    app.outbox.before = timer.timed(app.journal.flush, "ledger and journal: write")
    timer.wrap(meter._judge, "observe", "detection: observe")
    timer.wrap(meter, "observation", "observation and price")


async def main(options: argparse.Namespace) -> None:
    configure_logging(json_lines=True, level=40, colors=False)
    with tempfile.TemporaryDirectory() as folder:
        app = await started(Path(folder), options.keys)
        try:
            pairs = Pairs(app)
            await pairs.warm()
            settle_memory()
            met = max(options.calls // 4, options.keys * options.met)
            await blocks(pairs, met, 0, options.keys)
            profiler = cProfile.Profile() if options.profile else None
            if profiler:
                profiler.enable()
            plain, between = await blocks(pairs, options.calls, 10**6, options.keys)
            if profiler:
                profiler.disable()
                pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
            timer = Timer()
            wrap_stages(app, timer)
            calls = options.calls // BLOCK * BLOCK
            before = app.runtime.decisions["allow"]
            await blocks(pairs, calls, 10**7, options.keys)
            passed = app.runtime.decisions["allow"] - before
            if passed < 0.99 * calls:
                raise SystemExit(f"only {passed} calls passed: {dict(app.runtime.decisions)}")
            total = statistics.median(plain)
            print(
                f"{'whole call, without sockets':<34}{total:8.1f} us "
                f"(median of blocks; {quietest(plain):.1f} in the quietest twentieth)"
            )
            if options.keys > FEW_KEYS:
                many, few = await in_turn(pairs, options.calls, options.keys)
                halves = statistics.median(many), statistics.median(few)
                print(
                    f"{options.keys} callers beside {FEW_KEYS}{'':<8}"
                    f"{halves[0]:.1f} / {halves[1]:.1f} us = {halves[0] / halves[1]:.3f} (median), "
                    f"{quietest(many):.1f} / {quietest(few):.1f} = "
                    f"{quietest(many) / quietest(few):.3f} (quietest twentieth)"
                )
            print(f"{'the event loop between calls':<34}{statistics.mean(between):8.1f} us (mean)")
            stages = {
                name: max(0.0, (seconds / calls - timer.empty) * 1e6)
                for name, seconds in timer.seconds.items()
            }
            for name, microseconds in stages.items():
                print(f"  {name:<32}{microseconds:8.1f} us")
            ours = sum(v for k, v in stages.items() if k.split(":")[0] in OURS)
            print(f"{'detection + gate + ledger':<34}{ours:8.1f} us")
            if options.json:
                found = {
                    "keys": options.keys,
                    "whole_us": total,
                    "detection_gate_ledger_us": ours,
                    "stages_us": stages,
                }
                options.json.write_text(json.dumps(found, indent=1) + "\n")
        finally:
            await app.stop()


OURS = frozenset(("gate", "ledger and journal", "detection"))

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--calls", type=int, default=32_000)
    arguments.add_argument("--keys", type=int, default=1)
    arguments.add_argument("--met", type=int, default=1, help="calls of each key before")
    arguments.add_argument("--profile", action="store_true")
    arguments.add_argument("--json", type=Path)
    uvloop.run(main(arguments.parse_args()))
