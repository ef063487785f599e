"""What is at risk in each account, where a killed process leaves it.

Owns: a memory-mapped file of numbers that outlives ``kill -9``. Must never: be
needed for anything but the first report after a restart.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MAGIC = b"TWHOLDS1"
_HEADER = 64
_NAME_BYTES = 104
_RECORD = 128
_SLOTS = 8192


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
            size = _HEADER + _SLOTS * _RECORD
            fresh = os.fstat(self._file).st_size != size
            if fresh:
                os.ftruncate(self._file, 0)
                os.ftruncate(self._file, size)
            self._map = mmap.mmap(self._file, size)
        except OSError:
            os.close(self._file)
            raise
        if self._map[:8] != _MAGIC:
            self._map[:] = bytes(size)
            self._map[8:40] = uuid.uuid4().hex.encode()
            self._map[:8] = _MAGIC
        #: The replica's name towards the store; the same after a restart.
        self.replica = self._map[8:40].decode()
        self._numbers = memoryview(self._map).cast("q")
        self.left = list(self._read())
        for i in range(_SLOTS):
            self._clear(i)
        self._free = list(range(_SLOTS - 1, -1, -1))

    @property
    def numbers(self) -> memoryview:
        """The file as whole numbers; index it with what :meth:`assign` gave."""
        return self._numbers

    def assign(self, account: str) -> int:
        """A place for an account, -1 where there is none left."""
        name = account.encode()
        if not self._free or len(name) > _NAME_BYTES:
            return -1
        start = _HEADER + self._free.pop() * _RECORD
        self._map[start + 24 : start + _RECORD] = name.ljust(_NAME_BYTES, b"\0")
        return start // 8

    def release(self, place: int) -> None:
        """An account is no longer used."""
        if place >= 0:
            slot = (place * 8 - _HEADER) // _RECORD
            self._clear(slot)
            self._free.append(slot)

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

    def _clear(self, slot: int) -> None:
        start = _HEADER + slot * _RECORD
        if self._map[start : start + _RECORD] != _EMPTY:
            self._map[start : start + _RECORD] = _EMPTY

    def _read(self) -> Iterator[Remains]:
        for slot in range(_SLOTS):
            start = _HEADER + slot * _RECORD
            name = self._map[start + 24 : start + _RECORD].rstrip(b"\0")
            place = start // 8
            if name and self._numbers[place] > 0:
                yield Remains(
                    name.decode("utf-8", "replace"),
                    self._numbers[place],
                    self._numbers[place + 1],
                    self._numbers[place + 2],
                )


_EMPTY = bytes(_RECORD)
