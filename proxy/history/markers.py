"""What was imported before, so that nothing counts twice.

Owns: ``imports.db``, a file of 64-bit row marks and of the periods whose usage
or cost is known. Must never: hold anything of a row but its mark, or be read on
the request path.
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


class Markers:
    """The marks of one data directory. Not for use by two threads.

    What :meth:`fresh` took is kept only after :meth:`commit`, which the caller
    makes once the rows are safe where they belong.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA cache_size=-65536")
        self._db.execute("CREATE TABLE IF NOT EXISTS seen (mark INTEGER PRIMARY KEY)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS periods"
            " (provider TEXT, day INTEGER, basis TEXT, PRIMARY KEY (provider, day)) WITHOUT ROWID"
        )
        self._db.execute("BEGIN IMMEDIATE")

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
