"""Shares of a budget: each worker spends from its own, without a round trip.

Owns: asking for, keeping and giving back shares (leases) of a shared limit.
Must never: decide about a call, or let the shares of all workers together pass
the limit.

Units are whole numbers of anything: nano-USD, tokens, requests. All figures of
a holder are cumulative over the budget's period, so that a request whose reply
was lost may simply be followed by the next one.

The bound: the sum of all ceilings never passes the limit, and a holder never
spends past its ceiling nor after its lease ended by its own monotonic clock,
counted from before the request was sent. When a holder dies, what it had said
to be spent or under way stays counted, the rest returns when its lease ends.
What it spent between its last report and its death, above what it had reported
``at_risk``, is not known to the store: report calls under way as ``at_risk``
before they are let through to make that zero.
"""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.store.connection import Connection
from proxy.store.scripts import load
from proxy.store.settings import StoreSettings

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Claim:
    """What one worker reports of a budget, and how far it wants to go.

    ``period`` names the budget's current period (``2026-11`` or a bucket's
    number). ``spent`` is settled, ``at_risk`` reserved by calls under way,
    ``ceiling`` how far spent and at risk together want to go, all since this
    worker began the period. A ceiling lower than before gives back; the holder
    must obey the lower one from the moment that it sends the claim.
    ``keep_seconds`` is how long the period still lasts.
    """

    budget: str
    period: str
    limit: int
    spent: int
    at_risk: int
    ceiling: int
    ttl_seconds: float = 2.0
    keep_seconds: float = DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Grant:
    """How far one worker may go: ``ceiling``, until ``expires_at`` (monotonic seconds).

    ``fleet_spent`` and ``fleet_committed`` are of all workers, for showing.
    """

    budget: str
    period: str
    ceiling: int
    fleet_spent: int
    fleet_committed: int
    expires_at: float


class Leases:
    """One worker's leases. ``holder`` is new with every start of the process."""

    def __init__(
        self, link: Connection, settings: StoreSettings, monotonic: Callable[[], float]
    ) -> None:
        self._link = link
        self._prefix = settings.key_prefix
        self._shards = settings.shard_count
        self._monotonic = monotonic
        self._script = load("budget_lease")
        self._sequence = 0
        self._heard: dict[tuple[str, str], tuple[int, int, int]] = {}
        self.holder = uuid.uuid4().hex

    async def claim(self, claims: Sequence[Claim]) -> list[Grant]:
        """Report and renew; one grant per claim, in order.

        Raises
        ------
        StoreError
            No grant is known; the earlier ones hold until they expire.
        """
        return list(await asyncio.gather(*map(self._claim, claims)))

    async def _claim(self, claim: Claim) -> Grant:
        self._sequence += 1
        name = (claim.budget, claim.period)
        spent, committed, held = self._heard.get(name, (0, 0, 0))
        shard = zlib.crc32(claim.budget.encode()) % self._shards
        key = f"{self._prefix}:{{b{shard}}}:l:{claim.budget}:{claim.period}"
        args: list[Any] = [
            self.holder,
            self._sequence,
            claim.limit,
            claim.spent,
            claim.at_risk,
            claim.ceiling,
            int(claim.ttl_seconds * 1000),
            int(claim.keep_seconds) + DAY_SECONDS,
            spent,
            committed,
            held,
        ]
        sent_at = self._monotonic()
        reply = await self._link.run(self._script, [key], args)
        ceiling, spent, committed = (int(value) for value in reply)
        self._heard.pop(name, None)
        self._heard[name] = (spent, committed, ceiling)
        while len(self._heard) > 10_000:
            del self._heard[next(iter(self._heard))]
        return Grant(*name, ceiling, spent, committed, sent_at + claim.ttl_seconds)
