"""What the engine has learned, kept over restarts.

Owns: the file that the engine's state is written to and read from, and what comes
into it or goes out of it from beside: imported baselines, names to be forgotten.
Must never: stop a start because the file is broken; it is set aside and told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import structlog

from detection.engine import Engine
from proxy.forgetting import Name, attend
from proxy.history.baselines import take
from proxy.journal import Journal

_log = structlog.get_logger("tokenweir.keeping")
_ROWS = ("cells", "states", "owners")


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

    def recall(self) -> None:
        """Take what was kept at the last stop, and what was imported since."""
        restore(self._engine(), self._file)
        self.take_imported()

    async def keep(self) -> None:
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


def restore(engine: Engine, path: Path) -> bool:
    """Load the engine's state; false where there is none that can be used."""
    try:
        saved = orjson.loads(path.read_bytes())
        engine.load(saved)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        aside = path.with_suffix(".broken")
        try:
            path.rename(aside)
        except OSError:
            aside = path
        _log.warning("engine_state_unusable", file=str(aside), reason=str(error)[:200])
        return False
    return True


async def keep(engine: Engine, path: Path) -> None:
    """Write the engine's state, whole or not at all; calls are served in between."""
    told: dict[str, list[bytes]] = {name: [] for name in _ROWS}
    for name, part in engine.dump_in_parts():
        text = orjson.dumps(part, option=orjson.OPT_NON_STR_KEYS)
        if name in _ROWS:
            told[name] += [text[1:-1]] if part else []
        else:
            told[name] = [text]
        await asyncio.sleep(0)
    await asyncio.to_thread(_write, path, _joined(told))


def _joined(told: dict[str, list[bytes]]) -> Iterator[bytes]:
    """One JSON object of the parts."""
    for place, (name, parts) in enumerate(told.items()):
        yield (b"," if place else b"{") + orjson.dumps(name) + b":"
        if name in _ROWS:
            yield b"["
            for number, part in enumerate(parts):
                yield b"," + part if number else part
            yield b"]"
        else:
            yield parts[0]
    yield b"}"


def _write(path: Path, parts: Iterator[bytes]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
