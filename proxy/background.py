"""A worker's background work: tasks by name, and their end.

Owns: starting what runs beside the traffic, and ending it. Must never: let a
failure of one round end the work, or end silently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from proxy.store.tasks import cancel

_log = structlog.get_logger("tokenweir")


class Background:
    """The tasks of one worker."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run one piece of work until it ends or :meth:`stop` ends it."""
        self._tasks.append(asyncio.create_task(work, name=name))

    def once(self, name: str, work: Awaitable[Any]) -> None:
        """Run one piece of work whose failure is told and harms nothing else."""

        async def guarded() -> None:
            await _guarded(name, work)

        self.run(name, guarded())

    def every(self, name: str, seconds: float, work: Callable[[], Awaitable[None] | None]) -> None:
        """Do something again and again; a failure is told and does not end it."""

        async def again() -> None:
            while True:
                await asyncio.sleep(seconds)
                await _guarded(name, work)

        self.run(name, again())

    async def stop(self) -> None:
        """End all of it."""
        await cancel(self._tasks)


async def _guarded(name: str, work: Awaitable[Any] | Callable[[], Awaitable[None] | None]) -> None:
    try:
        outcome = work() if callable(work) else work
        if outcome is not None:
            await outcome
    except Exception:
        _log.exception("background_work_failed", work=name)
