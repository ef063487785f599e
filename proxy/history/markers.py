"""What was imported before, so that nothing counts twice.

Owns: ``imports.db``: 64-bit row marks, the periods whose usage or cost is known,
the sizes of the archive's files, and batches on their way to the store. Must
never: keep a name or a text of a row, or be read on the request path.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from proxy.history.rows import DAY_SECONDS, Aggregate, Row

_CHUNK: Final = 10_000


class ImportBusyError(RuntimeError):
    """Another import writes this data directory."""


class Markers:
    """The marks of one data directory. Not for use by two threads.

    What :meth:`fresh` took is kept only after :meth:`commit`, which the caller
    makes once the rows are safe where they belong.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=2.0)
        path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA cache_size=-65536")
        self._db.execute("CREATE TABLE IF NOT EXISTS seen (mark INTEGER PRIMARY KEY)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS periods"
            " (provider TEXT, day INTEGER, basis TEXT, PRIMARY KEY (provider, day)) WITHOUT ROWID"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, bytes INTEGER)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS outgoing"
            " (number INTEGER PRIMARY KEY AUTOINCREMENT, shard INTEGER, payload BLOB)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS sent (shard INTEGER PRIMARY KEY, last INTEGER)"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT)")
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            self._db.close()
            raise ImportBusyError(f"another import holds {path}") from error

    def fresh(self, rows: Sequence[Row]) -> list[Row]:
        """The rows not seen before, each once, in their order."""
        marks = [_mark(row.id) for row in rows]
        known: set[int] = set()
        ordered = sorted(set(marks))
        for at in range(0, len(ordered), _CHUNK):
            chunk = ordered[at : at + _CHUNK]
            holes = ",".join("?" * len(chunk))
            known.update(
                mark
                for (mark,) in self._db.execute(
                    f"SELECT mark FROM seen WHERE mark IN ({holes})",  # noqa: S608 only holes
                    chunk,
                )
            )
        found: list[Row] = []
        added: list[tuple[int]] = []
        for mark, row in zip(marks, rows, strict=True):
            if mark not in known:
                known.add(mark)
                added.append((mark,))
                found.append(row)
        self._db.executemany("INSERT INTO seen VALUES (?)", sorted(added))
        return found

    def counted_otherwise(self, row: Aggregate) -> bool:
        """Whether this provider's day was imported from the other kind of export.

        A usage export priced by us and a cost export are the same money; the
        kind that came first for a day keeps it.
        """
        key = (row.provider or "", int(row.start // DAY_SECONDS))
        self._db.execute("INSERT OR IGNORE INTO periods VALUES (?, ?, ?)", (*key, row.basis))
        (basis,) = self._db.execute(
            "SELECT basis FROM periods WHERE provider = ? AND day = ?", key
        ).fetchone()
        return bool(basis != row.basis)

    def file_bytes(self, name: str) -> int:
        """How much of an archive file is whole, as of the last commit."""
        row = self._db.execute("SELECT bytes FROM files WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def note_file(self, name: str, size: int) -> None:
        """An archive file has grown to this size."""
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (name, size))

    def queue(self, shard: int, payload: bytes) -> None:
        """A batch is to be sent; it is kept until :meth:`delivered`."""
        self._db.execute("INSERT INTO outgoing (shard, payload) VALUES (?, ?)", (shard, payload))

    def waiting(self) -> list[tuple[int, int, bytes]]:
        """The batches to be sent, as (number, shard, payload), oldest first."""
        found = self._db.execute("SELECT number, shard, payload FROM outgoing ORDER BY number")
        return [(int(n), int(s), bytes(p)) for n, s, p in found]

    def last_sent(self, shard: int) -> int:
        """The number of the last batch that the store has of this shard, 0 for none."""
        row = self._db.execute("SELECT last FROM sent WHERE shard = ?", (shard,)).fetchone()
        return int(row[0]) if row else 0

    def delivered(self, number: int, shard: int) -> None:
        """The store has counted a batch."""
        self._db.execute("INSERT OR REPLACE INTO sent VALUES (?, ?)", (shard, number))
        self._db.execute("DELETE FROM outgoing WHERE number = ?", (number,))

    def fact(self, name: str, made: str) -> str:
        """A text that is made once and then kept."""
        self._db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, made))
        return str(
            self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]
        )

    def commit(self) -> None:
        self._db.execute("COMMIT")
        self._db.execute("BEGIN IMMEDIATE")

    def __enter__(self) -> Markers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._db.close()


def _mark(identity: str) -> int:
    digest = hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
