"""What the engine has learned, kept over restarts.

Owns: when the engine's state is written and read, and what comes into it or goes out
of it from beside: imported baselines, names to be forgotten. Must never: stop a start
because the file is broken; it is set aside and told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic

import structlog

from detection.engine import Engine
from proxy.engine_file import keep, restore
from proxy.forgetting import Name, attend
from proxy.history.baselines import take
from proxy.journal import Journal

_log = structlog.get_logger("tokenweir.keeping")
#: Of a worker's time at most: who knows very many callers writes less often.
_KEEP_SHARE = 0.02


class Memory:
    """What one worker's engine remembers, on disk and from beside.

    ``engine`` gives the engine of the moment: a reload can put another in its place.
    ``forgotten`` is told whose name has to go from other memories.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        journal: Journal,
        data_dir: Path,
        index: int,
        forgotten: Callable[[Name], object],
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._data_dir = data_dir
        self._forgotten = forgotten
        self._worker = str(index)
        self._file = data_dir / f"engine-{index}.json"
        self._next = 0.0

    def recall(self) -> None:
        """Take what was kept at the last stop, and what was imported since."""
        restore(self._engine(), self._file)
        self.take_imported()

    async def keep(self) -> None:
        """Write it down, if the last time is long enough ago for what it took."""
        if monotonic() >= self._next:
            spent = await keep(self._engine(), self._file)
            self._next = monotonic() + spent / _KEEP_SHARE

    async def keep_now(self) -> None:
        """Write it down."""
        await keep(self._engine(), self._file)

    def take_imported(self) -> None:
        """Take baselines that an import has left."""
        engine = self._engine()
        if take(engine, self._data_dir):
            _log.info("imported_baselines_taken", series=engine.health()["series"])

    async def forget(self) -> None:
        """Forget whom a person asked to be forgotten."""
        engine, journal = self._engine(), self._journal
        await attend(self._data_dir, self._worker, engine, journal, self._forgotten)
