"""What the engine has learned, kept over restarts.

Owns: the file that the engine's state is written to and read from. Must never:
stop a start because the file is broken; it is set aside and told.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import orjson
import structlog

from detection.engine import Engine

_log = structlog.get_logger("tokenweir.keeping")


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
    """Write the engine's state, whole or not at all."""
    state = engine.dump()
    await asyncio.to_thread(_write, path, state)


def _write(path: Path, state: object) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS))
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
