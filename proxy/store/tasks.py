"""Ending background tasks for good.

Owns: cancelling until it took. Must never: leave a task running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


async def cancel(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks and wait for their end.

    Libraries swallow a cancellation that meets their own timeout, so it is
    repeated until each task is over.
    """
    pending = {task for task in tasks if task is not None and not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.13)
