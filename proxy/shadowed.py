"""What shadow mode would have done, in all workers of all replicas.

Owns: telling the store what this worker's book holds, and reading what all told.
Must never: be on a call's way, or let one replica's many rows grow without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from proxy.gate_shadow import LATEST, ShadowBook
from proxy.store.documents import Document

KIND = "shadow"
TELL_SECONDS = 3.0
#: A worker that has ended is read for so long after it told the last time.
KEEP_SECONDS = 7 * 86_400.0

_MOST_ROWS = 100
_MOST_CALLS = 10
_MOST_WORKERS = 500

Row = dict[str, Any]


class Documents(Protocol):
    """The store's documents."""

    async def doc_put(
        self, kind: str, id: str, body: dict[str, Any], *, at: float, ttl_seconds: float
    ) -> int | None: ...

    async def doc_range(
        self, kind: str, since: float, until: float, *, limit: int, newest_first: bool
    ) -> list[Document]: ...


class SharedShadow:
    """One worker's book, and those of all others.

    Parameters
    ----------
    replica
        This worker's name in the fleet; with the time of its start, so that what it
        told before a restart stays beside what it counts afresh.
    """

    def __init__(
        self, book: ShadowBook, documents: Documents, replica: str, now: Callable[[], float]
    ) -> None:
        self._book = book
        self._documents = documents
        self._id = f"{replica}.{int(now() * 1000)}"
        self._now = now
        self._told = book.version

    async def tell(self) -> None:
        """Write what the book holds, where that has changed. Raises StoreError."""
        version = self._book.version
        if version == self._told:
            return
        body = {"rows": self._book.rows(_MOST_ROWS, _MOST_CALLS)}
        at = self._now()
        await self._documents.doc_put(KIND, self._id, body, at=at, ttl_seconds=KEEP_SECONDS)
        self._told = version

    async def rows(self) -> list[Row]:
        """Of all workers together, the latest first. Raises StoreError."""
        now = self._now()
        documents = await self._documents.doc_range(
            KIND, now - KEEP_SECONDS, now + 60.0, limit=_MOST_WORKERS, newest_first=True
        )
        others = [document.body["rows"] for document in documents if document.id != self._id]
        return together([self._book.rows(), *others])


def together(books: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Rows of the same kind, rule and series as one.

    >>> row = {"kind": "block", "rule": "r", "series": {"dimension": "key", "value": "k"},
    ...        "calls": 2, "cost_nano_usd": 5, "at": 1.0, "latest": []}
    >>> [(r["calls"], r["at"]) for r in together([[row], [row | {"at": 3.0}]])]
    [(4, 3.0)]
    """
    found: dict[tuple[str, ...], Row] = {}
    for book in books:
        for row in book:
            series = row["series"]
            name = (row["kind"], row["rule"], series["dimension"], series["value"])
            known = found.get(name)
            if known is None:
                found[name] = dict(row)
                continue
            known["calls"] += row["calls"]
            known["cost_nano_usd"] += row["cost_nano_usd"]
            known["at"] = max(known["at"], row["at"])
            calls = [*known["latest"], *row["latest"]]
            known["latest"] = sorted(calls, key=lambda call: -call["ts"])[:LATEST]
    return sorted(found.values(), key=lambda row: -row["at"])
