"""The incident book: verdicts and actions in, one story per fingerprint out.

Owns: the queue between detection and the store, the root cause of each
incident, and telling subscribers what happened. Must never: block or raise
into the request path, or decide what the pure steps of
:mod:`proxy.incidents_life` decide.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from detection.contrib import Recorder
from detection.types import Action, Verdict
from proxy import incidents_life as life
from proxy.alerts.settings import IncidentSettings
from proxy.incidents_cause import Causes, Spent, fleet_spend, with_cause
from proxy.incidents_model import (
    EventKind,
    Incident,
    IncidentEvent,
    State,
    fingerprint_of,
    incident_of,
    incident_of_verdict,
)
from proxy.incidents_store import Documents, IncidentStore
from proxy.store.errors import ConflictError, StoreError

__all__ = ["BookRules", "IncidentBook", "fleet_spend"]

log = structlog.get_logger(__name__)

#: Tries against other replicas that change the same incident.
_TRIES = 8
_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 10.0

Listener = Callable[[IncidentEvent], None]
Dismissed = Callable[[Incident], None]


@dataclass(frozen=True, slots=True)
class BookRules:
    """Times of the book in seconds, and the bound of its queue."""

    life: life.LifeRules = field(default_factory=life.LifeRules)
    poll: float = 1.0
    explain_every: float = 60.0
    queue: int = 10_000

    @classmethod
    def of(cls, settings: IncidentSettings) -> BookRules:
        """The rules that the configuration asks for."""
        return cls(
            life=life.LifeRules(
                quiet=settings.quiet_seconds,
                stale=settings.stale_seconds,
                reopen=settings.reopen_seconds,
                trust=settings.trust_seconds,
            )
        )


class IncidentBook:
    """Keeps incidents for one replica, consistent with all others by the store.

    Parameters
    ----------
    documents
        The store's versioned documents.
    clock
        Callable giving epoch seconds, the store's time.
    recorder
        This replica's recent cells, for the root cause; ``None`` leaves it out.
    spent
        Asks the fleet's spend of a series between two times, in nano-USD.
    """

    def __init__(
        self,
        documents: Documents,
        clock: Callable[[], float],
        *,
        recorder: Recorder | None = None,
        spent: Spent | None = None,
        rules: BookRules | None = None,
    ) -> None:
        self.store = IncidentStore(documents)
        self._clock = clock
        self._causes = Causes(recorder, spent)
        self.rules = rules or BookRules()
        self._queue: deque[Verdict | Action] = deque()
        self._wake = asyncio.Event()
        self._listeners: list[Listener] = []
        self._dismissed: list[Dismissed] = []
        self._known: dict[str, Incident] = {}
        self.dropped = 0
        self.failed = 0
        self.retries = 0

    def on_verdict(self, verdict: Verdict) -> None:
        """Take note of a verdict; returns at once."""
        self._put(verdict)

    def on_action(self, action: Action) -> None:
        """Take note of an action; returns at once."""
        self._put(action)

    def _put(self, item: Verdict | Action) -> None:
        if len(self._queue) >= self.rules.queue:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(item)
        self._wake.set()

    def subscribe(self, listener: Listener) -> None:
        """Hear every event of every replica, in order per incident."""
        self._listeners.append(listener)

    def on_dismissed(self, listener: Dismissed) -> None:
        """Hear which incidents people called false, to teach the engine."""
        self._dismissed.append(listener)

    @property
    def pending(self) -> int:
        """How many verdicts and actions wait for the store."""
        return len(self._queue)

    def id_of(self, verdict: str) -> str:
        """The id of the active incident of a verdict's fingerprint, as last seen; empty for none.

        An incident's own id stands for itself.
        """
        if verdict.startswith("inc_"):
            return verdict
        known = self._known.get(incident_of_verdict(verdict) or "")
        return known.id if known is not None else ""

    def known_active(self) -> list[Incident]:
        """The active incidents as last seen here, without asking the store."""
        return list(self._known.values())

    async def run(self) -> None:
        """Work until cancelled: drain the queue, look at other replicas' changes, sweep."""
        wait = _RETRY_SECONDS
        while True:
            self._wake.clear()
            try:
                await self.turn()
                wait = _RETRY_SECONDS
            except StoreError as error:
                self.retries += 1
                log.warning("incidents_wait_for_store", error=type(error).__name__)
                await asyncio.sleep(wait)
                wait = min(_LONGEST_RETRY_SECONDS, wait * 2)
                continue
            except Exception as error:
                # The book must outlive any one odd document.
                self.failed += 1
                log.error("incidents_turn_failed", error=type(error).__name__)
            if not self._queue:
                try:
                    await asyncio.wait_for(self._wake.wait(), self.rules.poll)
                except TimeoutError:
                    pass

    async def turn(self) -> None:
        """Do all that there is to do now.

        Raises
        ------
        StoreError
            Where the store is away; what waits still waits.
        """
        while self._queue:
            await self._take(self._queue[0])
        await self._look_around()

    async def _take(self, item: Verdict | Action) -> None:
        try:
            if isinstance(item, Verdict):
                await self._take_verdict(item)
            else:
                await self._take_action(item)
        except StoreError:
            raise
        except Exception as error:
            # One verdict that can't be told must not hold back all that follow.
            self.failed += 1
            log.error("incident_not_told", error=type(error).__name__)
        if self._queue and self._queue[0] is item:
            self._queue.popleft()

    async def acknowledge(self, incident_id: str, actor: str, note: str = "") -> Incident | None:
        """A person has it in hand. ``None`` where there is no such active incident."""
        return await self._by_id(
            incident_id, lambda i: life.acknowledge(i, actor, self._clock(), note)
        )

    async def resolve(
        self, incident_id: str, actor: str, resolution: str = "", root_cause: str = ""
    ) -> Incident | None:
        """A person says that it is over, and why."""
        return await self._close(incident_id, State.RESOLVED, actor, resolution, root_cause)

    async def dismiss(
        self, incident_id: str, actor: str, resolution: str = "", root_cause: str = ""
    ) -> Incident | None:
        """A person says that it was a false alarm; the engine learns from it."""
        return await self._close(incident_id, State.DISMISSED, actor, resolution, root_cause)

    async def note(self, fingerprint: str, kind: str, text: str) -> None:
        """Add a line to the timeline of the newest incident of a fingerprint."""
        now = self._clock()
        await self._change(
            fingerprint,
            lambda live: (live.with_entry(now, kind, text), None) if live is not None else None,
        )

    async def delivered(self, fingerprint: str, receiver: str, kind: str) -> None:
        """An alert arrived, or could not; the incident's timeline says so."""
        await self.note(fingerprint, "notified", f"{receiver}: {kind}")

    async def _close(
        self, incident_id: str, state: State, actor: str, resolution: str, root_cause: str
    ) -> Incident | None:
        return await self._by_id(
            incident_id,
            lambda i: life.close(
                i, state, self._clock(), actor=actor, resolution=resolution, root_cause=root_cause
            ),
        )

    async def _by_id(
        self, incident_id: str, step: Callable[[Incident], life.Step | None]
    ) -> Incident | None:
        known = await self.store.get(incident_id)
        if known is None:
            return None
        return await self._change(
            known.fingerprint,
            lambda live: step(live) if live is not None and live.id == incident_id else None,
        )

    async def _take_verdict(self, verdict: Verdict) -> None:
        now = self._clock()
        fingerprint = fingerprint_of(verdict.signal, verdict.series)
        cause = await self._causes.find(verdict.signal, verdict.series, verdict.since, now)

        def step(live: Incident | None) -> life.Step | None:
            made = life.on_verdict(live, verdict, now, self.rules.life)
            if made is None or made[1] is None or not made[0].active:
                return made
            return with_cause(made[0], cause, now), made[1]

        await self._change(fingerprint, step)

    async def _take_action(self, action: Action) -> None:
        now = self._clock()
        answered = incident_of(action)
        for incident in list(self._known.values()):
            if (
                incident.fingerprint == answered
                or incident.id == action.incident
                or (incident.series == action.series and action.signal in incident.signals)
            ):
                await self._change(
                    incident.fingerprint,
                    lambda live: life.on_action(live, action, now) if live is not None else None,
                )
                return

    async def _change(
        self, fingerprint: str, step: Callable[[Incident | None], life.Step | None]
    ) -> Incident | None:
        for _ in range(_TRIES):
            live, version = await self.store.live(fingerprint)
            made = step(live)
            if made is None:
                return None
            incident, kind = made
            if await self.store.save(incident, version):
                if kind is not None:
                    self._tell(incident, kind)
                return incident
        raise ConflictError("an incident is changed by too many at once")

    def _tell(self, incident: Incident, kind: EventKind) -> None:
        if incident.active:
            self._known[incident.fingerprint] = incident
        else:
            self._known.pop(incident.fingerprint, None)
        event = IncidentEvent(kind, self._clock(), incident)
        if kind == EventKind.DISMISSED:
            for dismissed in self._dismissed:
                dismissed(incident)
        for listener in self._listeners:
            listener(event)

    async def _look_around(self) -> None:
        """Pass on what other replicas changed; sweep and explain what is open."""
        now = self._clock()
        active = {incident.fingerprint: incident for incident in await self.store.active()}
        for fingerprint, gone in list(self._known.items()):
            if fingerprint not in active:
                closed, _ = await self.store.live(fingerprint)
                self._known.pop(fingerprint, None)
                if closed is not None and not closed.active and closed.id == gone.id:
                    dismissed = closed.state == State.DISMISSED
                    self._tell(closed, EventKind.DISMISSED if dismissed else EventKind.RESOLVED)
        for fingerprint, incident in active.items():
            known = self._known.get(fingerprint)
            if known is None or known.revision < incident.revision or known.id != incident.id:
                self._tell(incident, _heard(known, incident))
        for fingerprint, incident in active.items():
            if life.sweep(incident, now, self.rules.life) is not None:
                await self._change(
                    fingerprint,
                    lambda live: life.sweep(live, now, self.rules.life) if live else None,
                )
            elif self._explanation_is_old(incident, now):
                await self._explain_again(incident, now)

    def _explanation_is_old(self, incident: Incident, now: float) -> bool:
        until = (incident.explanation or {}).get("until", incident.opened_at)
        return bool(incident.live) and now - float(until) >= self.rules.explain_every

    async def _explain_again(self, incident: Incident, now: float) -> None:
        cause = await self._causes.find(incident.signal, incident.series, incident.since, now)
        if cause is None:
            return

        def step(live: Incident | None) -> life.Step | None:
            if live is None or live.id != incident.id or not self._explanation_is_old(live, now):
                return None
            newer = replace(live, revision=live.revision + 1)
            return with_cause(newer, cause, now), EventKind.UPDATED

        await self._change(incident.fingerprint, step)


def _heard(known: Incident | None, incident: Incident) -> EventKind:
    """What another replica's change amounts to, for those who listen here."""
    if known is None or known.id != incident.id:
        return EventKind.REOPENED if incident.reopened else EventKind.OPENED
    if incident.worst > known.worst:
        return EventKind.ESCALATED
    if incident.state == State.ACKNOWLEDGED and known.state != State.ACKNOWLEDGED:
        return EventKind.ACKNOWLEDGED
    return EventKind.UPDATED
