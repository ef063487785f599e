"""What a call costs with few callers and with very many.

``python -m tests.benchmarks.callers [--callers N ..] [--met N] [--rounds N] [--seconds N]``

One worker with everything on, 32 connections, 1.5 KB chat requests. The calls come with
so many keys in turn, so that each connection meets another key with every call: the
worst there is. Slices with ten keys and with more take turns, since the machine is
shared; told is the CPU of a call (of the proxy alone) and its ratio to that with ten.
Every key made ``--met`` calls before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks._load import (
    Callers,
    Reading,
    free_port,
    memory_megabytes,
    running,
    upstream,
    wrk,
)
from tests.benchmarks._peers import Peer, tokenweir

FEW = 10
PROXY_CPU, LOAD_CPU = 0, 1
CONNECTIONS = 32
WARM_SECONDS = 10.0


class Load:
    """Calls of so many callers, each slice going on where the last one ended."""

    def __init__(self, peer: Peer, pid: int, callers: int) -> None:
        self.callers = callers
        self.readings: list[Reading] = []
        self._peer = peer
        self._pid = pid
        self._before = 0

    def play(self, seconds: float) -> Reading:
        """One slice."""
        reading = wrk(
            self._peer,
            self._pid,
            connections=CONNECTIONS,
            seconds=seconds,
            stream=False,
            cpu=LOAD_CPU,
            callers=Callers(self.callers, self._before),
        )
        self._before += reading.calls
        if reading.failed:
            raise SystemExit(f"{reading.failed} calls with {self.callers} callers failed")
        return reading

    def meet(self, times: int) -> None:
        """Have every caller known by so many calls."""
        while self._before < self.callers * times:
            self.play(WARM_SECONDS)


def main(options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(upstream(0, LOAD_CPU))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peer = tokenweir(folder, free_port(), port)
        pid, _ = stack.enter_context(running(peer, folder, PROXY_CPU))
        few = Load(peer, pid, FEW)
        few.meet(1_000)
        print(f"{'callers':>8}{'us a call':>11}{'ratio':>8}{'requests/s':>12}{'MB':>7}")
        for count in options.callers:
            many = Load(peer, pid, count)
            many.meet(options.met)
            rounds = [
                (many.play(options.seconds), few.play(options.seconds))
                for _ in range(options.rounds)
            ]
            cost = statistics.median(m.cpu_us for m, _ in rounds)
            ratio = statistics.median(m.cpu_us / f.cpu_us for m, f in rounds)
            rate = statistics.median(m.requests_per_second for m, _ in rounds)
            print(
                f"{count:8}{cost:11.1f}{ratio:8.3f}{rate:12.0f}{memory_megabytes(pid):7.0f}",
                flush=True,
            )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--callers", type=int, nargs="+", default=[1_000, 20_000, 100_000])
    arguments.add_argument("--met", type=int, default=5)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=float, default=1.0)
    main(arguments.parse_args())
