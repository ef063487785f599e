"""One clock for a worker: monotonic, and set by the store's time.

Owns: the translation from this process's monotonic seconds to epoch seconds
as the store counts them. Must never: follow a step of the wall clock, or run
backwards by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_ROUND_TRIP_SECONDS = 0.05
"""A reply slower than this says too little about the other side's time."""

JITTER_SECONDS = 0.005
"""Differences below this are the round trip's noise, not a difference of clocks."""


class Clock:
    """Epoch seconds that start at the wall clock and then follow the store.

    Calling the clock gives epoch seconds. Until the store was heard, that is
    the wall clock at construction plus monotonic time passed, so that a step
    of the machine's clock moves nothing.

    >>> clock = Clock(wall=lambda: 1000.0, monotonic=lambda: 5.0)
    >>> clock()
    1000.0
    >>> clock.heard(1300.0, sent_at=5.0, received_at=5.0)
    >>> clock(), clock.offset_seconds
    (1300.0, 300.0)
    """

    __slots__ = ("_base", "_last", "_start", "heard_at", "monotonic")

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.monotonic = monotonic
        self._base = self._start = wall() - monotonic()
        self._last = 0.0
        self.heard_at: float | None = None

    def __call__(self) -> float:
        monotonic = self.monotonic
        now = self._base + monotonic()
        if now < self._last and self._last - now < 1.0:
            return self._last
        self._last = now
        return now

    @property
    def offset_seconds(self) -> float:
        """How far the store is ahead of this machine's clock at the start."""
        return self._base - self._start

    def heard(self, store_time: float, *, sent_at: float, received_at: float) -> None:
        """Take the store's epoch seconds from a reply; both marks are monotonic.

        A slow reply is used only while nothing better is known.
        """
        slow = received_at - sent_at > MAX_ROUND_TRIP_SECONDS
        if slow and self.heard_at is not None:
            return
        base = store_time - (sent_at + received_at) / 2
        if self.heard_at is None or abs(base - self._base) > JITTER_SECONDS:
            self._base = base
        self.heard_at = received_at
