"""The journal: every finished call, on disk, before it is counted elsewhere.

Owns: one directory per worker with numbered segments of JSON lines, its lock,
its size, and the repair of what a crash left. Must never: block traffic (a
full disk is told, not raised), renumber a record, or hold the text of a prompt.

Record numbers start at 1 and are contiguous across segments; a segment's file
name is the number of its first record. The number is what makes counting
exactly-once: the store remembers, per journal, the last one that it counted.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from detection.types import Observation
from proxy.clock import Clock
from proxy.journal_segments import (
    Segment,
    SegmentReader,
    header_line,
    list_segments,
    repair,
    segment_name,
)
from proxy.observation_json import SCHEMA_VERSION, Encoder

BACKLOG_RECORDS = 10_000
RETRY_SECONDS = 1.0
_MOST_JOURNALS = 1024


class JournalSettings(BaseModel):
    """The YAML section ``journal``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    segment_bytes: int = Field(
        64 * 2**20, ge=4096, description="A segment is closed when it has grown to this size."
    )
    max_bytes: int = Field(
        2**30,
        ge=8192,
        description="All segments of one worker together; the oldest go first, and those that "
        "the store has not counted yet go last.",
    )
    max_age_seconds: float = Field(
        35 * 86400.0, gt=0, description="Counted segments older than this are deleted."
    )
    sync_seconds: float = Field(
        1.0,
        ge=0,
        description="How often the journal is forced to the disk, against power loss; a killed "
        "process loses nothing without it. 0 leaves it to the operating system.",
    )


class JournalBusyError(RuntimeError):
    """Another process writes this journal."""


class Journal:
    """The single writer of one worker's journal.

    ``gather`` is asked at a record whether it may wait for others. Who says yes sees to
    it that :meth:`flush` is called soon, before anyone is told that the call is done.

    Raises
    ------
    JournalBusyError
        Where another process holds the directory.
    OSError
        Where the directory can't be made or read at all.
    """

    def __init__(
        self,
        directory: Path,
        settings: JournalSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self.settings = settings or JournalSettings()
        self._clock = clock
        self._monotonic = monotonic
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_fd = lock(directory)
        self._encode = Encoder().__call__  # bound: a call to an instance looks it up each time
        self._fd = -1
        self._size = 0
        self._backlog: deque[bytes] = deque()
        self._gathered: list[bytes] = []
        self.gather: Callable[[], bool] = _never
        self._retry_at = 0.0
        self._unsynced = False
        self.write_errors = 0
        self.last_error: str | None = None
        self.lost_records = 0
        self.acknowledged = 0
        self.replica, self.base = self._identity()
        self._segments: list[Segment] = []
        self.last = self.opened_at = self._open_tail()

    @property
    def place(self) -> int:
        """Its number among the journals of this machine: no other process has the same."""
        return int(self.directory.name)

    # ---- opening ----

    @classmethod
    def first_free(
        cls, folder: Path, number: int, settings: JournalSettings, clock: Clock
    ) -> Journal:
        """The journal of a number in a folder, or the next that no process holds.

        Raises OSError where all are held.
        """
        for candidate in range(number, _MOST_JOURNALS):
            try:
                return cls(
                    folder / str(candidate), settings, clock=clock, monotonic=clock.monotonic
                )
            except JournalBusyError:
                continue
        raise OSError(f"every journal under {folder} is in use")

    def _identity(self) -> tuple[str, int]:
        """The name under which the store counts this journal, and since which record.

        Without ``meta.json`` the newest segment still knows: a fresh name
        would count its records a second time.
        """
        sources = [self.directory / "meta.json"]
        sources += [segment.path for segment in reversed(list_segments(self.directory))]
        for path in sources:
            try:
                with path.open("rb") as file:
                    meta = orjson.loads(file.readline())
                return str(meta["replica"]), int(meta["base"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        replica = uuid.uuid4().hex
        self._write_identity(replica, 0)
        return replica, 0

    def _write_identity(self, replica: str, base: int) -> None:
        path = self.directory / "meta.json"
        part = path.with_suffix(".part")
        row = {"schema_version": SCHEMA_VERSION, "replica": replica, "base": base}
        try:
            part.write_bytes(orjson.dumps(row))
            part.replace(path)
        except OSError as error:
            self._failed(error)

    def renew_identity(self, base: int) -> None:
        """Count on under a new name, from ``base`` on.

        For a journal that the store knows further than it goes itself (its
        data directory was put back from an older copy).
        """
        self.replica, self.base = uuid.uuid4().hex, base
        self._write_identity(self.replica, base)

    def _open_tail(self) -> int:
        self._segments = list_segments(self.directory)
        while self._segments:
            tail = self._segments[-1]
            records, size = repair(tail.path)
            if size:
                self._fd = os.open(tail.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                self._size = size
                return tail.first + records - 1
            tail.path.unlink()
            self._segments.pop()
        return self.base

    # ---- writing ----

    def append(self, observation: Observation) -> int:
        """Write one record, or gather it; gives its number. Never raises OSError."""
        line = self._encode(observation)
        if not self._gathered and not self.gather():
            return self._write(line, 1)
        self._gathered.append(line)
        self.last += 1
        return self.last

    def append_many(self, observations: Iterable[Observation]) -> int:
        """Write many with one system call; gives the number of the last."""
        self.flush()
        lines = [self._encode(o) for o in observations]
        return self._write(b"".join(lines), len(lines)) if lines else self.last

    def flush(self) -> None:
        """Write what was gathered, with one system call."""
        if self._gathered:
            lines, self._gathered = self._gathered, []
            self.last -= len(lines)
            self._write(b"".join(lines), len(lines))

    def _write(self, data: bytes, count: int) -> int:
        if self._backlog or self._fd < 0 or self._size >= self.settings.segment_bytes:
            return self._write_slowly(data, count)
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._failed(error)
            return self._defer(data, count)
        if written != len(data):
            self._take_back()
            return self._defer(data, count)
        self._size += written
        self._unsynced = True
        self.last += count
        return self.last

    def _write_slowly(self, data: bytes, count: int) -> int:
        """Rotate, or drain what a full disk held up, and then write."""
        if self._backlog:
            if not self.retry():
                return self._keep(data, count)
        elif not self._rotate(self.last + 1):
            return self._defer(data, count)
        return self._write(data, count)

    def _take_back(self) -> None:
        """Remove half a line, so that the next one starts on its own."""
        self.write_errors += 1
        self.last_error = "the disk took only part of a record"
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.write_errors += 1
        self.last_error = f"{error.strerror or error} ({error.filename or self.directory.name})"

    def _defer(self, data: bytes, count: int) -> int:
        """The disk did not take a record: keep it, and leave the disk alone for a while."""
        self._retry_at = self._monotonic() + RETRY_SECONDS
        return self._keep(data, count)

    def _keep(self, data: bytes, count: int) -> int:
        """Keep the record in memory until the disk takes it; bounded."""
        self._backlog.extend(line + b"\n" for line in data.splitlines())
        self.last += count
        while len(self._backlog) > BACKLOG_RECORDS:
            self._backlog.popleft()
            self.lost_records += 1
        return self.last

    def retry(self) -> bool:
        """Write what waits for the disk, once a second; true when nothing waits any more."""
        self.flush()
        if not self._backlog:
            return True
        return self._monotonic() >= self._retry_at and self._drain()

    def _drain(self) -> bool:
        """Write what waited; true when nothing waits any more."""
        first = self.last - len(self._backlog) + 1
        contiguous = self._fd >= 0 and self._written_to() == first - 1
        if not contiguous and not self._rotate(first):
            self._retry_at = self._monotonic() + RETRY_SECONDS
            return False
        while self._backlog:
            line = self._backlog[0]
            try:
                written = os.write(self._fd, line)
            except OSError as error:
                self._failed(error)
                written = 0
            if written != len(line):
                if written:
                    self._take_back()
                self._retry_at = self._monotonic() + RETRY_SECONDS
                return False
            self._size += written
            self._backlog.popleft()
        self.last_error = None
        self._unsynced = True
        return True

    def _written_to(self) -> int:
        """The number of the last record that is in the file."""
        tail = self._segments[-1]
        return tail.first + tail.count_records() - 1

    def _rotate(self, first: int) -> bool:
        path = self.directory / segment_name(first)
        header = header_line(first, self.replica, self.base, self._clock())
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if os.write(fd, header) != len(header):
                os.close(fd)
                path.unlink()
                raise OSError("the disk took only part of a header")
        except OSError as error:
            self._failed(error)
            return False
        self._close_segment()
        self._fd, self._size = fd, len(header)
        if not self._segments or self._segments[-1].path != path:
            self._segments.append(Segment(first, path))
        self.prune()
        return True

    def _close_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---- keeping ----

    def acknowledge(self, number: int) -> None:
        """Every record up to ``number`` is counted in the store."""
        self.acknowledged = max(self.acknowledged, number)

    def prune(self) -> None:
        """Delete segments by age and size, the counted ones first."""
        sizes = {s.first: s.size() for s in self._segments}
        total = sum(sizes.values())
        oldest_wanted = self._clock() - self.settings.max_age_seconds
        while len(self._segments) > 1:
            segment, following = self._segments[0], self._segments[1]
            counted = following.first - 1 <= self.acknowledged
            too_many = total > self.settings.max_bytes
            if not too_many and not (counted and segment.modified() < oldest_wanted):
                return
            if not counted:
                self.lost_records += following.first - max(segment.first, self.acknowledged + 1)
            segment.path.unlink(missing_ok=True)
            total -= sizes[segment.first]
            del self._segments[0]

    def close_segment(self) -> list[Path]:
        """Begin a new segment; the files of the older ones, which are written no more."""
        self.flush()
        if not self._backlog and self._segments and self._segments[-1].first <= self.last:
            self._rotate(self.last + 1)
        return [segment.path for segment in self._segments[:-1]]

    def sync(self) -> None:
        """Force what was written to the disk; blocks, call it in a thread."""
        if self._unsynced and self._fd >= 0:
            self._unsynced = False
            os.fdatasync(self._fd)

    # ---- reading ----

    @property
    def first(self) -> int:
        """The number of the oldest record still on disk; ``last + 1`` when empty."""
        return self._segments[0].first if self._segments else self.last + 1

    @property
    def waiting_for_disk(self) -> int:
        """Records held in memory because the disk would not take them."""
        return len(self._backlog)

    def reader(self, after: int) -> SegmentReader:
        """Read on from the record after number ``after``, up to what was written last."""
        self.flush()
        return SegmentReader(self.directory, after)

    def health(self) -> dict[str, Any]:
        """Facts for the health page."""
        return {
            "replica": self.replica,
            "last_record": self.last,
            "first_record": self.first,
            "acknowledged_record": self.acknowledged,
            "waiting_for_disk": len(self._backlog),
            "write_errors": self.write_errors,
            "lost_records": self.lost_records,
            "last_error": self.last_error,
            "ok": not self._backlog,
        }

    def close(self) -> None:
        """Write what waits if the disk lets it, sync, and free the lock."""
        self.flush()
        if self._backlog:
            self._drain()
        try:
            self.sync()
        except OSError as error:
            self._failed(error)
        self._close_segment()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _never() -> bool:
    return False


def lock(directory: Path) -> int:
    """Keep every other writer out, until the descriptor is closed."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise JournalBusyError(f"another process writes the journal in {directory}") from None
    return fd
