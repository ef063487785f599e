"""What goes out: gathered while the event loop goes through what came in, and sent together.

A send wakes who waits for it, on another core, and that costs more than the send. Who
is sent to again a few microseconds later is still awake. So what calls send is kept
until some have, or until the loop has gone through all that it had read.

Owns: when bytes leave, and how much is read of one connection in a turn. Must never:
change the order of what one connection is sent, or keep anything while the loop waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

_log = structlog.get_logger("tokenweir.http")

#: More would leave the other side idle, while it could already be at work on the first.
TOGETHER = 16
#: With fewer calls under way there is hardly a second one in a turn: nothing is kept.
FEW = 2
_LARGE_BYTES = 32_768
#: Of a connection that has this much ready, more is read in the next turn of the loop: left
#: to itself, libuv reads up to 32 such pieces of 256 KB in a row, and all others wait.
ENOUGH_BYTES = 131_072


class UnderWay(Protocol):
    """Knows how many calls there are."""

    inflight: int


class Outbox:
    """One per worker. ``before`` is called before anything leaves."""

    __slots__ = ("_awake", "_calls", "_loop", "_waiting", "before")

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: UnderWay) -> None:
        self._loop = loop
        self._calls = calls
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []
        self._awake = False
        self.before: Callable[[], None] = _nothing

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send now or soon."""
        waiting = self._waiting
        waiting.append((transport, data))
        if len(waiting) >= TOGETHER or len(data) > _LARGE_BYTES or self._calls.inflight <= FEW:
            self.flush()
        elif not self._awake:
            self._wake()

    def gather(self) -> bool:
        """May others wait as well? If so, there will be a flush at the end of this turn."""
        if self._calls.inflight <= FEW:
            return False
        if not self._awake:
            self._wake()
        return True

    def flush(self) -> None:
        """Send all that waits. What was closed or aborted meanwhile gets nothing."""
        self.before()
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                try:
                    transport.write(data)
                except Exception:
                    # One connection's trouble must not keep from the others what is theirs.
                    _log.exception("not_sent")
                    transport.abort()

    def _wake(self) -> None:
        self._awake = True
        self._loop.call_soon(self._end_of_turn)

    def _end_of_turn(self) -> None:
        self._awake = False
        self.flush()


def _nothing() -> None:
    pass
