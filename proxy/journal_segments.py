"""Segments of the journal: names, headers, repair and reading.

Owns: how a directory of segments is laid out and read back. Must never: write
records (``proxy.journal`` is the single writer), or fail on a torn or foreign
line: it is counted and passed over.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import orjson

from detection.types import Observation
from proxy.observation_json import SCHEMA, SCHEMA_VERSION, decode

SUFFIX = ".jsonl"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Segment:
    """One file: the number of its first record and where it is."""

    first: int
    path: Path

    def size(self) -> int:
        """Bytes on disk, 0 where it is gone."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def modified(self) -> float:
        """Epoch seconds of the last write, by the file system."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    def count_records(self) -> int:
        """Whole lines after the header."""
        return _whole_lines(self.path)[0]


def segment_name(first: int) -> str:
    """File names sort as their records do."""
    return f"{first:020d}{SUFFIX}"


def header_line(first: int, replica: str, base: int, created: float) -> bytes:
    """The first line of a segment: which schema its records are in."""
    row = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "first_record": first,
        "replica": replica,
        "base": base,
        "created": created,
    }
    return orjson.dumps(row) + b"\n"


def list_segments(directory: Path) -> list[Segment]:
    """The segments of one journal, oldest first."""
    return sorted(
        (
            Segment(int(path.stem), path)
            for path in directory.glob(f"*{SUFFIX}")
            if path.stem.isdigit()
        ),
        key=lambda s: s.first,
    )


def _whole_lines(path: Path) -> tuple[int, int]:
    """How many records a segment holds, and the bytes up to its last newline."""
    newlines = end = position = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            newlines += block.count(b"\n")
            cut = block.rfind(b"\n")
            if cut >= 0:
                end = position + cut + 1
            position += len(block)
    return max(0, newlines - 1), end


def repair(path: Path) -> tuple[int, int]:
    """Cut off a line that a crash tore; gives (records, bytes) of what is whole.

    (0, 0) means that not even the header is.
    """
    records, end = _whole_lines(path)
    if end != path.stat().st_size:
        os.truncate(path, end)
    return records, end


class SegmentReader:
    """Reads a journal forward, also while it is being written.

    ``position`` is the number of the last record given out; ``skipped`` counts
    lines that could not be read, whose numbers are passed over.
    """

    def __init__(self, directory: Path, after: int) -> None:
        self._directory = directory
        self.position = after
        self.skipped = 0
        self._file: IO[bytes] | None = None
        self._next = 0

    def take(self, limit: int, up_to: int = 2**63) -> list[tuple[int, Observation]]:
        """Up to ``limit`` records, none after number ``up_to``; empty at the present end."""
        found: list[tuple[int, Observation]] = []
        while len(found) < limit:
            file = self._file or self._open_for(self.position + 1)
            line = file.readline() if file else b""
            if file is None or not line:
                if file is None or not self._open_following(file):
                    break
                continue
            if not line.endswith(b"\n") or self._next > up_to:
                file.seek(-len(line), os.SEEK_CUR)
                break
            number = self._next
            self._next += 1
            if number <= self.position:
                continue
            self.position = number
            try:
                observation = decode(line)
            except (ValueError, TypeError, KeyError):
                self.skipped += 1
                continue
            if observation is not None:
                found.append((number, observation))
        return found

    def _open_for(self, number: int) -> IO[bytes] | None:
        """Open the segment that holds ``number``, or the first one after it."""
        segments = list_segments(self._directory)
        chosen = next((s for s in reversed(segments) if s.first <= number), None)
        return self._open(chosen or (segments[0] if segments else None))

    def _open_following(self, file: IO[bytes]) -> bool:
        following = [s for s in list_segments(self._directory) if s.first >= self._next]
        if not following or file.name == str(following[0].path):
            return False
        return self._open(following[0]) is not None

    def _open(self, segment: Segment | None) -> IO[bytes] | None:
        self.close()
        if segment is None:
            return None
        try:
            file = segment.path.open("rb")
        except OSError:
            return None
        if not file.readline().endswith(b"\n"):
            file.close()
            return None
        self._file, self._next = file, segment.first
        return file

    def close(self) -> None:
        """Free the open file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_observations(path: Path) -> Iterator[Observation]:
    """Every record of a file, of one journal, or of a folder of journals.

    Several journals are merged by time. Lines that aren't observations are
    passed over.
    """
    if path.is_file():
        yield from _lines_of(path)
        return
    own = list_segments(path)
    if own:
        for segment in own:
            yield from _lines_of(segment.path)
        return
    workers = [d for d in sorted(path.rglob("*")) if d.is_dir() and list_segments(d)]
    yield from heapq.merge(*(read_observations(d) for d in workers), key=lambda o: o.ts)


def _lines_of(path: Path) -> Iterator[Observation]:
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                observation = decode(line)
            except (ValueError, TypeError, KeyError):
                continue
            if observation is not None:
                yield observation
