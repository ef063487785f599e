"""Time limits of connections, kept by one timer for all.

Owns: the sweep that finds what is overdue. Must never: create a timer per
request; setting a deadline is an assignment.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

NEVER = float("inf")


class Timed(Protocol):
    """Something with a deadline in monotonic seconds (the loop's clock)."""

    deadline: float

    def on_deadline(self) -> None:
        """The deadline has passed. Called once; sets a new one or ends."""


class Deadlines:
    """Watches any number of connections at a fixed grain."""

    def __init__(self, loop: asyncio.AbstractEventLoop, grain_seconds: float = 0.25) -> None:
        self._loop = loop
        self._grain = grain_seconds
        self._watched: set[Timed] = set()
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, timed: Timed) -> None:
        """Begin to watch. The sweep runs only while something is watched."""
        self._watched.add(timed)
        if self._handle is None:
            self._handle = self._loop.call_later(self._grain, self._sweep)

    def forget(self, timed: Timed) -> None:
        """Stop watching; harmless if it wasn't."""
        self._watched.discard(timed)

    def stop(self) -> None:
        """Forget everything."""
        self._watched.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _sweep(self) -> None:
        now = self._loop.time()
        overdue = [timed for timed in self._watched if timed.deadline <= now]
        self._handle = self._loop.call_later(self._grain, self._sweep) if self._watched else None
        for timed in overdue:
            if timed.deadline <= now:
                timed.deadline = NEVER
                timed.on_deadline()
