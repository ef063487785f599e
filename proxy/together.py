"""What the replicas judge together: one sweep of the slow lane, and calls that come again.

Owns: who leads the sweep, by a lease that another takes over within ten seconds, and
the exchange of repeats, so that a loop spread over replicas is found. Must never:
judge, or make detection wait for the store.

Counts of calls, errors and dollars travel with the ledger's ticks; repeats are of
fingerprints, which the ledger does not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import structlog
from redis.exceptions import RedisError

from detection.fleet import RepeatShare
from detection.types import Series
from proxy.store.control_book import Record
from proxy.store.errors import StoreError

LEASE = "sweep"
#: The lease lasts so long and is asked for this often: a dead leader's place is taken
#: at most one lease and one look after its last renewal.
LEASE_SECONDS = 6.0
LOOK_SECONDS = 2.0
SWEEP_SECONDS = 60.0

KIND = "repeats"
SHARE_SECONDS = 1.0
#: How long a report is worth reading: half of the default window of repeats.
REPORT_SECONDS = 60.0

_log = structlog.get_logger("tokenweir.together")


class Sweeps(Protocol):
    """Detection, as the sweep sees it."""

    def sweep_in_parts(self, *, lead: bool) -> Iterator[None]: ...


class Repeats(Protocol):
    """Detection, as the exchange of repeats sees it."""

    def repeats(self) -> list[RepeatShare]: ...
    def repeated(self, replica: str, repeats: Sequence[RepeatShare]) -> None: ...


class Documents(Protocol):
    """Small documents that reach every replica within a second."""

    def all(self, kind: str) -> list[Record]: ...
    def on_change(self, kind: str, callback: Callable[[Record], None]) -> None: ...
    def put(
        self, kind: str, id: str, body: dict[str, Any], *, expires_at: float | None = None
    ) -> Record: ...


class Sweeper:
    """Sweeps each minute, and at once where it has come to lead."""

    def __init__(
        self,
        judge: Sweeps,
        lease: Callable[[str, float], Awaitable[bool]],
        monotonic: Callable[[], float],
    ) -> None:
        self._judge = judge
        self._lease = lease
        self._monotonic = monotonic
        self._held_until = 0.0
        self._next = monotonic() + SWEEP_SECONDS

    @property
    def leading(self) -> bool:
        """Whether this replica judges the slow lane now."""
        return self._monotonic() < self._held_until

    async def look(self) -> None:
        """Ask for the lease, then sweep if it is time; to be called every two seconds.

        Where the store is away the leader stays until its lease is over, then nobody
        leads: drift and peers can wait for an hour, and two leaders would tell twice.
        """
        led, asked = self.leading, self._monotonic()
        try:
            if await self._lease(LEASE, LEASE_SECONDS):
                self._held_until = asked + LEASE_SECONDS
            else:
                self._held_until = 0.0
        except (StoreError, RedisError):
            pass
        came = self.leading and not led
        if came:
            _log.info("leads_the_sweep")
        if came or self._monotonic() >= self._next:
            self._next = self._monotonic() + SWEEP_SECONDS
            for _ in self._judge.sweep_in_parts(lead=self.leading):
                await asyncio.sleep(0)


class RepeatExchange:
    """Tells other replicas which calls came again here, and judges what they tell."""

    def __init__(
        self,
        judge: Repeats,
        documents: Documents,
        *,
        replica: str,
        replicas: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        self._judge = judge
        self._documents = documents
        self._replica = replica
        self._replicas = replicas
        self._now = now
        self._told: list[RepeatShare] = []
        documents.on_change(KIND, self._heard)

    def tell(self) -> None:
        """Publish what changed since the last time; nothing where there is nobody else."""
        if self._replicas() < 2:
            return
        found = self._judge.repeats()
        if found == self._told:
            return
        self._told = found
        rows = [[*share.series, share.fingerprint, share.kind, share.calls] for share in found]
        self._documents.put(
            KIND, self._replica, {"rows": rows}, expires_at=self._now() + REPORT_SECONDS
        )

    def _heard(self, record: Record) -> None:
        if record.body is None or record.id == self._replica:
            return
        try:
            shares = [
                RepeatShare(Series(str(dimension), str(value)), str(name), str(kind), int(calls))
                for dimension, value, name, kind, calls in record.body["rows"]
            ]
        except (KeyError, TypeError, ValueError):
            _log.error("repeats_unreadable", replica=record.id)
            return
        self._judge.repeated(record.id, shares)
