"""Versioned documents with a time index, and who leads a lane.

Owns: incidents, outbox letters, silences and the like, as the store keeps them.
Must never: know what a document means, or keep one past its time to live.

All of a kind's keys share one hash slot: ``tw:{doc}:<kind>:d:<id>``, its time
index ``tw:{doc}:<kind>:i`` and its expiries ``tw:{doc}:<kind>:x``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.store.connection import Connection
from proxy.store.scripts import load
from proxy.store.settings import StoreSettings


@dataclass(frozen=True, slots=True)
class Document:
    """One stored document; ``at`` is its place in the time index, epoch seconds."""

    id: str
    version: int
    at: float
    body: dict[str, Any]


class Documents:
    """Documents by kind and id. Every method may raise a StoreError."""

    def __init__(self, link: Connection, settings: StoreSettings) -> None:
        self._link = link
        self._prefix = f"{settings.key_prefix}:{{doc}}:"
        self._me = uuid.uuid4().hex
        self._put, self._range = load("doc_put"), load("doc_range")
        self._get, self._delete = load("doc_get"), load("doc_delete")
        self._leader = load("lease_leader")

    async def doc_get(self, kind: str, id: str) -> Document | None:
        """The document, or ``None``."""
        keys = [f"{self._prefix}{kind}:d:{id}"]
        reply = await self._link.run(self._get, keys, [id])
        return _document(reply) if reply else None

    async def doc_put(
        self,
        kind: str,
        id: str,
        body: dict[str, Any],
        *,
        at: float,
        expected: int | None = None,
        ttl_seconds: float | None = None,
    ) -> int | None:
        """Write; the new version, or ``None`` where ``expected`` (0: must not exist) didn't hold.

        After a StoreUnavailableError it is unknown whether the document was
        written; read it again before going on from ``expected``.
        """
        base = f"{self._prefix}{kind}:"
        args = [
            id,
            repr(float(at)),
            orjson.dumps(body),
            "" if expected is None else expected,
            "" if ttl_seconds is None else max(1, int(ttl_seconds)),
            f"{base}d:",
        ]
        keys = [f"{base}d:{id}", f"{base}i", f"{base}x"]
        return int(await self._link.run(self._put, keys, args)) or None

    async def doc_delete(self, kind: str, id: str) -> None:
        """Remove; nothing happens where there is none."""
        base = f"{self._prefix}{kind}:"
        await self._link.run(self._delete, [f"{base}d:{id}", f"{base}i", f"{base}x"], [id])

    async def doc_range(
        self, kind: str, since: float, until: float, *, limit: int, newest_first: bool = False
    ) -> list[Document]:
        """Documents whose ``at`` lies in ``[since, until]``, in its order."""
        base = f"{self._prefix}{kind}:"
        args = [repr(float(since)), repr(float(until)), limit, int(newest_first), f"{base}d:"]
        rows = await self._link.run(self._range, [f"{base}i"], args, patient=True)
        return [_document(row) for row in rows]

    async def lease(self, name: str, ttl_seconds: float) -> bool:
        """Lead the lane ``name`` for ``ttl_seconds`` from now, or learn that another does."""
        key = f"{self._prefix}leader:{name}"
        reply = await self._link.run(self._leader, [key], [self._me, int(ttl_seconds * 1000)])
        return bool(reply)


def _document(row: list[Any]) -> Document:
    return Document(
        row[0].decode("utf-8", "replace"), int(row[1]), float(row[2]), orjson.loads(row[3])
    )
