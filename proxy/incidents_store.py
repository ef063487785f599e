"""Where incidents are kept: one live document per fingerprint, one history entry per incident.

Owns: the kinds, identities and time index of stored incidents. Must never:
decide anything about an incident's life.

The live document is the truth and changes by compare-and-set, so that replicas
that see the same trouble make one incident of it. The history entry is a copy
under the incident's own id, for search and for links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from proxy.incidents_model import Incident, from_json, short_hash, to_json

HISTORY_SECONDS = 400 * 86_400.0

LIVE = "incident_live"
HISTORY = "incident"

#: Open incidents stand at the far end of the time index, so that one range finds them.
_OPEN_AT = 1e12
_PAGE = 200


class Document(Protocol):
    """One stored document and its version."""

    @property
    def id(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def at(self) -> float: ...
    @property
    def body(self) -> dict[str, Any]: ...


class Documents(Protocol):
    """Versioned documents with a time index, as the store keeps them."""

    async def doc_get(self, kind: str, id: str) -> Document | None: ...

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
        """The new version; ``None`` where ``expected`` (0: must not exist) didn't hold."""

    async def doc_delete(self, kind: str, id: str) -> None: ...

    async def doc_range(
        self, kind: str, since: float, until: float, *, limit: int, newest_first: bool = False
    ) -> list[Any]:
        """Documents whose ``at`` lies in ``[since, until]``."""


class IncidentStore:
    """Reads and writes incidents; every method may raise the store's own error."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def live(self, fingerprint: str) -> tuple[Incident | None, int]:
        """The newest incident of a fingerprint and its version (0: none yet)."""
        document = await self._documents.doc_get(LIVE, short_hash(fingerprint))
        return (None, 0) if document is None else (from_json(document.body), document.version)

    async def save(self, incident: Incident, expected: int) -> bool:
        """Write an incident if nobody else did meanwhile; false where they did."""
        body = to_json(incident)
        at = _OPEN_AT if incident.active else incident.closed_at or incident.updated_at
        version = await self._documents.doc_put(
            LIVE,
            short_hash(incident.fingerprint),
            body,
            at=at,
            expected=expected,
            ttl_seconds=HISTORY_SECONDS,
        )
        if version is None:
            return False
        await self._documents.doc_put(
            HISTORY, incident.id, body, at=incident.opened_at, ttl_seconds=HISTORY_SECONDS
        )
        return True

    async def get(self, incident_id: str) -> Incident | None:
        """One incident by its id, old or new."""
        document = await self._documents.doc_get(HISTORY, incident_id)
        if document is None:
            return None
        copy = from_json(document.body)
        live, _ = await self.live(copy.fingerprint)
        return live if live is not None and live.id == incident_id else copy

    async def active(self) -> list[Incident]:
        """All that are open, escalated or acknowledged."""
        found = await self._documents.doc_range(LIVE, _OPEN_AT, _OPEN_AT, limit=10_000)
        return [from_json(document.body) for document in found]

    async def closed_since(self, since: float) -> list[Incident]:
        """The newest incident of each fingerprint, where it closed after ``since``."""
        found = await self._documents.doc_range(LIVE, since, _OPEN_AT - 1, limit=10_000)
        return [from_json(document.body) for document in found]

    async def search(
        self,
        wanted: Callable[[Incident], bool],
        *,
        since: float,
        until: float,
        limit: int,
        scan: int = 5_000,
    ) -> list[Incident]:
        """History between two times, newest first, at most ``limit`` of ``scan`` looked at."""
        found: list[Incident] = []
        looked = 0
        while looked < scan and len(found) < limit:
            page = await self._documents.doc_range(
                HISTORY, since, until, limit=_PAGE, newest_first=True
            )
            looked += len(page)
            found += [one for one in _read(page) if wanted(one)]
            if len(page) < _PAGE:
                break
            until = min(document.at for document in page) - 1e-6
        return found[:limit]


def _read(page: list[Any]) -> Iterator[Incident]:
    for document in page:
        yield from_json(document.body)
