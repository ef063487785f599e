"""Messages on their way: at least once, in order per lane, dead letters kept.

Owns: the outbox's documents, the wait between tries and the order of a lane.
Must never: send a message that already went, hold one back for another's
fault, or lose one because the process ended.

A message waits in ``outbox`` at the time of its next try. Whoever delivers it
first moves that time ahead by compare-and-set, so that two replicas don't send
it at once. Delivered ones leave a mark for a day, under which the same message
isn't put in again; those that can't be delivered rest in ``outbox_dead``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from proxy.alerts.message import Message
from proxy.alerts.net import Net, NetError
from proxy.alerts.outcome import Outcome, Reason
from proxy.alerts.receivers.base import Receiver
from proxy.alerts.settings import OutboxSettings
from proxy.incidents_store import Document, Documents

log = structlog.get_logger(__name__)

PENDING, SENT, DEAD, RECEIPT = "outbox", "outbox_sent", "outbox_dead", "alert_receipt"

_SENT_SECONDS = 86_400.0
_DEAD_SECONDS = 30 * 86_400.0
_RECEIPT_SECONDS = 30 * 86_400.0
_LONGEST_ASKED_SECONDS = 3_600.0
_FAR = 1e12
_BATCH = 500

Told = Callable[[Message, Outcome], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Letter:
    """One message and how its delivery went so far."""

    message: Message
    attempts: int = 0
    reason: str = ""
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "message": self.message.as_dict(),
            "attempts": self.attempts,
            "reason": self.reason,
            "detail": self.detail,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Letter:
        """Undo :meth:`as_dict`."""
        return cls(
            Message.from_dict(body["message"]), body["attempts"], body["reason"], body["detail"]
        )


def next_wait(settings: OutboxSettings, attempts: int, outcome: Outcome) -> float:
    """Seconds until the next try: doubling, bounded, and never before the receiver's word.

    >>> [next_wait(OutboxSettings(), n, Outcome(Reason.TIMEOUT)) for n in (1, 2, 3, 20)]
    [1.0, 2.0, 4.0, 300.0]
    """
    doubled = settings.first_wait_seconds * 2.0 ** min(attempts - 1, 30)
    asked = min(outcome.retry_after_seconds or 0.0, _LONGEST_ASKED_SECONDS)
    return max(min(doubled, settings.longest_wait_seconds), asked)


class Outbox:
    """Takes messages in and brings them out."""

    def __init__(
        self,
        documents: Documents,
        clock: Callable[[], float],
        told: Told | None = None,
    ) -> None:
        self._documents = documents
        self._clock = clock
        self._told = told
        self.delivered = 0
        self.dead = 0
        self.failures: dict[tuple[str, str], int] = {}
        #: Deliveries by (receiver, outcome): delivered, retried or dead; and what waits.
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.pending = 0
        self.lanes: set[str] = set()

    def configure(
        self, receivers: Mapping[str, Receiver], net: Net, settings: OutboxSettings
    ) -> None:
        """Say where messages go and how they are tried; before the first delivery."""
        self._receivers = receivers
        self._net = net
        self._settings = settings
        self._limit = asyncio.Semaphore(settings.parallel)

    async def put(self, message: Message) -> None:
        """Keep a message for delivery; one that is or was here is not kept twice."""
        if await self._documents.doc_get(SENT, message.id) is None:
            self.lanes.add(message.lane)
            await self._documents.doc_put(
                PENDING, message.id, Letter(message).as_dict(), at=self._clock(), expected=0
            )

    async def deliver_due(self) -> float | None:
        """Try everything that is due, once; the time of the next one, if any waits."""
        now = self._clock()
        waiting = await self._documents.doc_range(PENDING, 0.0, _FAR, limit=_BATCH)
        heads: dict[str, Document] = {}
        for document in sorted(waiting, key=_age):
            heads.setdefault(document.body["message"]["lane"], document)
        self.lanes = set(heads)
        self.pending = len(waiting)
        due = [document for document in heads.values() if document.at <= now]
        if due:
            done = await asyncio.gather(*map(self._try, due), return_exceptions=True)
            for failure in done:
                if isinstance(failure, BaseException):
                    raise failure
            return now
        return min((document.at for document in heads.values()), default=None)

    async def dead_letters(self, limit: int = 200) -> list[Letter]:
        """The newest that could not be delivered."""
        found = await self._documents.doc_range(DEAD, 0.0, _FAR, limit=limit, newest_first=True)
        return [Letter.from_dict(document.body) for document in found]

    async def replay(self, message_id: str) -> bool:
        """Put a dead letter back; false where there is none of that id."""
        document = await self._documents.doc_get(DEAD, message_id)
        if document is None:
            return False
        letter = replace(Letter.from_dict(document.body), attempts=0)
        await self._documents.doc_put(PENDING, message_id, letter.as_dict(), at=self._clock())
        await self._documents.doc_delete(DEAD, message_id)
        return True

    async def waiting(self) -> int:
        """How many messages wait (at most 500 are counted)."""
        return len(await self._documents.doc_range(PENDING, 0.0, _FAR, limit=_BATCH))

    async def _try(self, document: Document) -> None:
        async with self._limit:
            claim = self._clock() + 2 * self._settings.timeout_seconds
            mine = await self._documents.doc_put(
                PENDING, document.id, document.body, at=claim, expected=document.version
            )
            if mine is None:
                return
            letter = Letter.from_dict(document.body)
            message = letter.message
            receipt = await self._documents.doc_get(RECEIPT, message.lane)
            if receipt is not None:
                message = replace(message, receipt=receipt.body)
            outcome = await self._hand_over(message)
            await self._settle(letter, outcome)

    async def _hand_over(self, message: Message) -> Outcome:
        receiver = self._receivers.get(message.receiver)
        if receiver is None:
            return Outcome(Reason.UNSUPPORTED, "no such receiver any more")
        try:
            async with asyncio.timeout(2 * self._settings.timeout_seconds):
                return await receiver.deliver(message, self._net)
        except NetError as error:
            return error.outcome
        except TimeoutError:
            return Outcome(Reason.TIMEOUT)
        except Exception as error:
            # A receiver that fails in a way of its own must not stop the others.
            return Outcome(Reason.INTERNAL, type(error).__name__)

    async def _settle(self, letter: Letter, outcome: Outcome) -> None:
        message, now = letter.message, self._clock()
        attempts = letter.attempts + 1
        if outcome.delivered:
            self.delivered += 1
            self.outcomes[message.receiver, "delivered"] += 1
            await self._documents.doc_put(
                SENT, message.id, {"receiver": message.receiver}, at=now, ttl_seconds=_SENT_SECONDS
            )
            if outcome.receipt:
                await self._documents.doc_put(
                    RECEIPT,
                    message.lane,
                    dict(outcome.receipt),
                    at=now,
                    ttl_seconds=_RECEIPT_SECONDS,
                )
            await self._documents.doc_delete(PENDING, message.id)
        else:
            reason = str(outcome.reason)
            counted = (message.receiver, reason)
            self.failures[counted] = self.failures.get(counted, 0) + 1
            failed = replace(letter, attempts=attempts, reason=reason, detail=outcome.detail)
            gives_up = not outcome.retry or attempts >= self._settings.attempts
            log.warning(
                "alert_not_delivered",
                receiver=message.receiver,
                reason=reason,
                attempts=attempts,
                gives_up=gives_up,
            )
            self.outcomes[message.receiver, "dead" if gives_up else "retried"] += 1
            if not gives_up:
                wait = next_wait(self._settings, attempts, outcome)
                await self._documents.doc_put(PENDING, message.id, failed.as_dict(), at=now + wait)
                return
            self.dead += 1
            await self._documents.doc_put(
                DEAD, message.id, failed.as_dict(), at=now, ttl_seconds=_DEAD_SECONDS
            )
            await self._documents.doc_delete(PENDING, message.id)
        if self._told is not None:
            await self._told(message, outcome)


def _age(document: Document) -> float:
    return float(document.body["message"]["created_at"])
