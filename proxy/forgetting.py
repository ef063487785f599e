"""Forgetting one user, project or key: in files and memories of one data directory.

Owns: what stays of a call whose name is erased (numbers without names), and how a
running worker is asked to do its part. Must never: change how many records a
journal holds (the store counts by their numbers), or keep the name in what it reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from detection.engine import Engine
from detection.types import Dimension, unpair
from proxy import engine_file
from proxy.journal import Journal, JournalBusyError, lock
from proxy.journal_segments import list_segments

#: What names somebody, or could tell who it was; all of it goes, whichever name was asked for.
IDENTITY: Final = (
    "key",
    "agent",
    "project",
    "user",
    "session",
    "tags",
    "client",
    "fingerprint",
    "fingerprint_kind",
    "trace",
)
_PAIRS: Final = {Dimension.KEY_MODEL: Dimension.KEY}
_FOLDER: Final = "forget"


class Name(NamedTuple):
    """Whom to forget."""

    dimension: str
    value: str

    def is_of(self, row: Mapping[str, Any]) -> bool:
        """Is this call, or sum of calls, theirs?"""
        return bool(row.get(self.dimension) == self.value)

    def owns(self, dimension: str, value: str) -> bool:
        """Is this series theirs, or a pair with them in it?

        >>> Name("key", "key_1").owns("key_model", "key_1|gpt-5")
        True
        """
        if dimension == self.dimension:
            return value == self.value
        first = _PAIRS.get(Dimension(dimension))
        return first == self.dimension and unpair(value)[0] == self.value


def anonymous(row: Mapping[str, Any]) -> dict[str, Any]:
    """A call as a number without a name."""
    kept = {name: None if name in IDENTITY else value for name, value in row.items()}
    if "tags" in kept:
        kept["tags"] = {}
    return kept


# -- files ------------------------------------------------------------------------


def in_segment(path: Path, name: Name) -> int:
    """Erase the name in a closed segment, in place; how many records were theirs."""
    count = 0
    lines: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            row = None
        if isinstance(row, dict) and name.is_of(row):
            count += 1
            line = orjson.dumps(anonymous(row)) + b"\n"
        lines.append(line)
    if count:
        _replace(path, b"".join(lines))
    return count


def in_archive(data_dir: Path, name: Name) -> int:
    """Erase the name in what was imported; how many rows were theirs.

    Raises ImportBusyError while an import runs.
    """
    folder = data_dir / "history"
    if not folder.exists():
        return 0
    from proxy.history.markers import Markers  # a database, which serving needs for nothing else

    count = 0
    with Markers(data_dir / "imports.db") as markers:
        for path in sorted(folder.glob("*/*.jsonl.gz")):
            with gzip.open(path, "rb") as file:
                rows = [orjson.loads(line) for line in file]
            theirs = sum(map(name.is_of, rows))
            if not theirs:
                continue
            count += theirs
            lines = (orjson.dumps(_without(row) if name.is_of(row) else row) for row in rows)
            _replace(path, gzip.compress(b"\n".join([*lines, b""]), compresslevel=1))
            markers.note_file(str(path.relative_to(folder)), path.stat().st_size)
            markers.commit()
    return count


def in_memory_file(path: Path, name: Name) -> int:
    """Erase the name in a file that an engine's memory was written to; series forgotten."""
    engine = Engine()
    try:
        engine_file.read(engine, path)
    except FileNotFoundError:
        return 0
    count = engine.forget(name.owns, name.dimension, name.value)
    engine_file.rewrite(engine, path)
    return count


def in_data_dir(data_dir: Path, name: Name) -> dict[str, int]:
    """Erase the name in all files of a data directory that no running worker holds."""
    records = 0
    for folder in _journals(data_dir):
        with _alone(folder) as alone:
            if alone:
                records += sum(in_segment(s.path, name) for s in list_segments(folder))
    found = {
        "journal records": records,
        "imported rows": in_archive(data_dir, name),
        "series of imported baselines": in_memory_file(data_dir / "imported-baselines.json", name),
    }
    if not busy_workers(data_dir):
        engines = data_dir.glob("engine-*.json")
        found["series of the engine"] = sum(in_memory_file(path, name) for path in engines)
    return found


def busy_workers(data_dir: Path) -> int:
    """How many workers run on a data directory."""
    count = 0
    for folder in _journals(data_dir):
        with _alone(folder) as alone:
            count += not alone
    return count


def _journals(data_dir: Path) -> list[Path]:
    return sorted(path.parent for path in (data_dir / "journal").glob("*/lock"))


@contextlib.contextmanager
def _alone(journal: Path) -> Iterator[bool]:
    """Keep other writers of a journal out; false where one is there already."""
    try:
        descriptor = lock(journal)
    except JournalBusyError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def _without(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in IDENTITY}


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.chmod(0o600)
    part.replace(path)


# -- running workers ---------------------------------------------------------------


def ask(data_dir: Path, identity: str, name: Name) -> None:
    """Ask the running workers of a data directory to forget."""
    folder = data_dir / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    _replace(folder / f"{identity}.json", orjson.dumps(name._asdict()))


def answers(data_dir: Path, identity: str) -> list[dict[str, int]]:
    """What the workers have done so far."""
    found = (data_dir / _FOLDER).glob(f"{identity}.*.done")
    return [orjson.loads(path.read_bytes()) for path in found]


def settle(data_dir: Path, identity: str) -> None:
    """Take the question away, and with it the name."""
    for path in (data_dir / _FOLDER).glob(f"{identity}.*"):
        path.unlink(missing_ok=True)


def _asked(data_dir: Path, worker: str) -> Iterator[tuple[Path, Name]]:
    for path in (data_dir / _FOLDER).glob("*.json"):
        done = path.with_suffix(f".{worker}.done")
        if not done.exists():
            yield done, Name(**orjson.loads(path.read_bytes()))


async def attend(
    data_dir: Path,
    worker: str,
    engine: Engine,
    journal: Journal,
    also: Callable[[Name], object],
) -> None:
    """Do what was asked of this worker: its own journal, its engine's memory, and what
    ``also`` is to forget."""
    for done, name in _asked(data_dir, worker):
        series = engine.forget(name.owns, name.dimension, name.value)
        also(name)
        records = 0
        for path in journal.close_segment():
            # Pruning may take a segment away meanwhile.
            with contextlib.suppress(FileNotFoundError):
                records += await asyncio.to_thread(in_segment, path, name)
        _replace(done, orjson.dumps({"journal records": records, "series of the engine": series}))
