"""The file of what an engine has learned.

Owns: its format, one part of the engine a line as ``[name, value]``, and how it is
written and read. Must never: leave half a file, hold all of it in memory, or keep
calls waiting for longer than one part takes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

import orjson
import structlog

from detection.engine import Engine

_WRITTEN_BYTES = 1_048_576
_AS_LINE = orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE

_log = structlog.get_logger("tokenweir.keeping")


def restore(engine: Engine, path: Path) -> bool:
    """Load the engine's state; false where there is none that can be used."""
    try:
        read(engine, path)
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


def read(engine: Engine, path: Path) -> None:
    """Load the engine's state.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError, IndexError
        There is none, or none that can be used.
    """
    with path.open("rb") as file:
        engine.load_parts(_rows(file))


def _rows(file: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """Each line's name and value, one at a time: all of them would be many times the engine."""
    for line in file:
        name, value = orjson.loads(line)
        yield name, value


async def keep(engine: Engine, path: Path) -> float:
    """Write the engine's state, whole or not at all; calls are served in between.

    One part a line, as ``[name, value]``. Gives the seconds that calls had to wait for it.
    """
    part, spent = path.with_suffix(".part"), 0.0
    lines: list[bytes] = []
    length = 0
    file = await asyncio.to_thread(_open, part)
    try:
        parts = engine.dump_in_parts()
        while True:
            began = perf_counter()
            row = next(parts, None)
            if row is None:
                break
            lines.append(orjson.dumps(row, option=_AS_LINE))
            length += len(lines[-1])
            spent += perf_counter() - began
            if length >= _WRITTEN_BYTES:
                await asyncio.to_thread(file.writelines, lines)
                lines, length = [], 0
            await asyncio.sleep(0)
        await asyncio.to_thread(_finish, file, lines)
    finally:
        file.close()
    part.rename(path)
    return spent


def rewrite(engine: Engine, path: Path) -> None:
    """Write the state of an engine that nobody uses, whole or not at all."""
    part = path.with_suffix(".part")
    with _open(part) as file:
        _finish(file, (orjson.dumps(row, option=_AS_LINE) for row in engine.dump_in_parts()))
    part.rename(path)


def _open(path: Path) -> BinaryIO:
    """For the owner's eyes alone: the names of callers are in it."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))


def _finish(file: BinaryIO, lines: Iterable[bytes]) -> None:
    file.writelines(lines)
    file.flush()
    os.fsync(file.fileno())
