"""Python's collector of cycles, kept out of the traffic's way.

Owns: when it runs, and what it looks at. Must never: look at all that this process
keeps while calls wait.

Reference counts free what calls leave behind; the collector is there for cycles, of
which the traffic makes none and all else few. Left alone it goes through hundreds of
thousands of objects in one go as callers become many, and the event loop stands still
for a tenth of a second, again and again. So what a short pass over new objects leaves
is set aside at once, and everything is looked at when nobody waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

from proxy.http.outbox import UnderWay

#: New objects that stay before they are looked at: a pass over these takes 6 ms at most.
_NEW = 5_000
_NEVER = 1_000_000
#: Between two looks at everything, where no call is under way, and in any case.
_IDLE_SECONDS = 3_600.0
_LONGEST_SECONDS = 86_400.0


def settle_memory() -> None:
    """Set aside what was built at the start, and from now on what stays of new objects."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()
    gc.set_threshold(_NEW, _NEVER, _NEVER)
    if _set_aside not in gc.callbacks:
        gc.callbacks.append(_set_aside)


def _set_aside(phase: str, _: Mapping[str, Any]) -> None:
    if phase == "stop":
        gc.freeze()


class WholeLook:
    """Looks at everything, now and then. Reference counts need no such thing; cycles do."""

    def __init__(self, calls: UnderWay, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._monotonic = monotonic
        self._looked_at = monotonic()

    def look(self) -> None:
        """Look, where it is time and no call waits."""
        since = self._monotonic() - self._looked_at
        if since < (_LONGEST_SECONDS if self._calls.inflight else _IDLE_SECONDS):
            return
        self._looked_at = self._monotonic()
        gc.unfreeze()
        gc.collect()
