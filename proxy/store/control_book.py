"""The control documents that one worker knows, and their file.

Owns: which version of a document wins, and the snapshot from which blocks are
in force at the first request, store or no store. Must never: talk to the store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

TOMBSTONE_SECONDS = 86_400.0
SNAPSHOT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One control document at one version.

    ``body`` is ``None`` for a deletion; ``expires_at`` epoch seconds, ``None``
    for "until deleted"; ``by`` the person or part that wrote it. The version is
    microseconds of store time: the later write wins everywhere.
    """

    kind: str
    id: str
    version: int
    body: dict[str, Any] | None
    expires_at: float | None = None
    by: str = ""

    @property
    def name(self) -> str:
        """Kind and id together; kinds hold no slash."""
        return f"{self.kind}/{self.id}"

    def dump(self) -> bytes:
        """As kept in the store, announced and snapshotted."""
        row = {
            "kind": self.kind,
            "id": self.id,
            "version": self.version,
            "body": self.body,
            "expires_at": self.expires_at,
            "by": self.by,
        }
        return orjson.dumps(row)


def parse(data: bytes | str | dict[str, Any]) -> Record | None:
    """A record as another version of ourselves may have written it, or ``None``."""
    try:
        row = data if isinstance(data, dict) else orjson.loads(data)
        expires = row.get("expires_at")
        return Record(
            str(row["kind"]),
            str(row["id"]),
            int(row["version"]),
            row["body"] if isinstance(row["body"], dict) else None,
            None if expires is None else float(expires),
            str(row.get("by", "")),
        )
    except (ValueError, KeyError, TypeError):
        return None


class Book:
    """Documents by name, live and deleted.

    ``count`` and ``checksum`` describe the live ones as the store does.
    """

    def __init__(self) -> None:
        self._live: dict[str, Record] = {}
        self._deleted: dict[str, Record] = {}
        self.checksum = 0
        self.last_version = 0

    @property
    def count(self) -> int:
        """Live documents."""
        return len(self._live)

    def known(self, name: str) -> Record | None:
        """What is known under a name, be it a deletion."""
        return self._live.get(name) or self._deleted.get(name)

    def live(self, kind: str) -> Iterator[Record]:
        """Live documents of a kind."""
        return (r for r in list(self._live.values()) if r.kind == kind)

    def everything(self) -> list[Record]:
        """Live documents and deletions."""
        return [*self._live.values(), *self._deleted.values()]

    def take(self, record: Record) -> bool:
        """Keep a record if it is newer than what is known; whether it was."""
        known = self.known(record.name)
        if known is not None and known.version >= record.version:
            return False
        self._drop(record.name)
        self.last_version = max(self.last_version, record.version)
        if record.body is None:
            self._deleted[record.name] = record
        else:
            self._live[record.name] = record
            self.checksum ^= record.version % 2**32
        return True

    def _drop(self, name: str) -> Record | None:
        self._deleted.pop(name, None)
        known = self._live.pop(name, None)
        if known is not None:
            self.checksum ^= known.version % 2**32
        return known

    def forget(self, name: str) -> Record | None:
        """Remove a document without a trace (the store threw its deletion away)."""
        return self._drop(name)

    def expire(self, now: float) -> list[Record]:
        """Drop what has expired by ``now``, and old deletions; the live ones that went."""
        gone = [r for r in self._live.values() if r.expires_at is not None and r.expires_at <= now]
        for record in gone:
            self._drop(record.name)
        oldest = (now - TOMBSTONE_SECONDS) * 1e6
        for name in [r.name for r in self._deleted.values() if r.version < oldest]:
            del self._deleted[name]
        return gone


def save(path: Path, data_name: str, records: list[Record]) -> None:
    """Replace the snapshot file as a whole.

    Raises
    ------
    OSError
        Where the disk would not take it; the old file is intact.
    """
    head = orjson.dumps({"schema_version": SNAPSHOT_VERSION, "data": data_name})
    part = path.with_suffix(".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(b"\n".join([head, *(r.dump() for r in records), b""]))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(folder: Path) -> tuple[str, list[Record]]:
    """All records of every worker's snapshot, and the data name of the newest file."""
    data_name, records = "", []
    for path in sorted(folder.glob("*.jsonl"), key=lambda p: p.stat().st_mtime):
        lines = path.read_bytes().splitlines()
        if not lines:
            continue
        try:
            data_name = str(orjson.loads(lines[0])["data"])
        except (ValueError, KeyError, TypeError):
            continue
        records += [record for line in lines[1:] if (record := parse(line)) is not None]
    return data_name, records
