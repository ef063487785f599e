"""What is at risk in each account, where a killed process leaves it.

Owns: a memory-mapped file of numbers that outlives ``kill -9``. Must never: be
needed for anything but the first report after a restart.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MAGIC = b"TWHOLDS1"
_HEADER = 64
_NAME_BYTES = 104
_RECORD = 128
_SLOTS = 8192
_BYTES = _HEADER + _SLOTS * _RECORD


class Remains(NamedTuple):
    """What an earlier process may have used of an account and not reported.

    A report with ``sent_sequence`` told ``sent_used`` of it, and may have arrived.
    """

    account: str
    at_risk: int
    sent_sequence: int
    sent_used: int


class Mirror:
    """One worker's file. ``numbers[slot]`` is what is at risk in an account.

    Raises
    ------
    OSError
        Where the file can't be used, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not read through the map: a page of it that was once looked at stays in memory.
            content = os.pread(self._file, _BYTES + 1, 0)
            if len(content) != _BYTES or content[:8] != _MAGIC:
                content = b""
                os.ftruncate(self._file, 0)
                os.ftruncate(self._file, _BYTES)
            self._map = mmap.mmap(self._file, _BYTES)
        except OSError:
            os.close(self._file)
            raise
        if not content:
            self._map[8:40] = uuid.uuid4().hex.encode()
            self._map[:8] = _MAGIC
        #: The replica's name towards the store; the same after a restart.
        self.replica = self._map[8:40].decode()
        self._numbers = memoryview(self._map).cast("q")
        self.left = list(self._read(content))
        self._free: list[int] = []
        self._unused = 0

    @property
    def numbers(self) -> memoryview:
        """The file as whole numbers; index it with what :meth:`assign` gave."""
        return self._numbers

    def assign(self, account: str) -> int:
        """A place for an account, -1 where there is none left."""
        name = account.encode()
        if len(name) > _NAME_BYTES:
            return -1
        if self._free:
            slot = self._free.pop()
        elif self._unused < _SLOTS:
            slot, self._unused = self._unused, self._unused + 1
        else:
            return -1
        start = _HEADER + slot * _RECORD
        self._map[start + 24 : start + _RECORD] = name.ljust(_NAME_BYTES, b"\0")
        return start // 8

    def release(self, place: int) -> None:
        """An account is no longer used."""
        if place >= 0:
            start = place * 8
            self._map[start : start + _RECORD] = _EMPTY
            self._free.append((start - _HEADER) // _RECORD)

    def sent(self, place: int, sequence: int, used: int) -> None:
        """A report is on its way."""
        if place >= 0:
            self._numbers[place + 2] = used
            self._numbers[place + 1] = sequence

    def close(self) -> None:
        """Let go of the file."""
        self._numbers.release()
        self._map.close()
        os.close(self._file)

    def _read(self, content: bytes) -> Iterator[Remains]:
        """What a file holds; it is cleared of it."""
        for start in range(_HEADER, len(content), _RECORD):
            record = content[start : start + _RECORD]
            if record == _EMPTY:
                continue
            self._map[start : start + _RECORD] = _EMPTY
            at_risk, sequence, used = struct.unpack_from("=3q", record)
            name = record[24:].rstrip(b"\0")
            if name and at_risk > 0:
                yield Remains(name.decode("utf-8", "replace"), at_risk, sequence, used)


_EMPTY = bytes(_RECORD)
