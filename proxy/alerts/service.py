"""The alert service: from incidents that change to messages that arrive.

Owns: the leader's loop that plans, keeps the notification log and works the
outbox; the schedules of digests and reports. Must never: touch the request
path, or lose a message because the store or a receiver was away.

One replica leads at a time by a lease; the others only watch. Everything that
a new leader needs is in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import structlog

from detection.types import Tier
from proxy.alerts.calls import calls_of
from proxy.alerts.message import Message
from proxy.alerts.net import Net
from proxy.alerts.outbox import Outbox
from proxy.alerts.outcome import Outcome
from proxy.alerts.plan import Log, ReceiverTraits, World, make_plan
from proxy.alerts.receivers import build_receiver
from proxy.alerts.routing import build_routes
from proxy.alerts.schedule import digest, last_due, span_of
from proxy.alerts.settings import AlertsSettings, ReportSchedule
from proxy.alerts.silences import Silences
from proxy.alerts.stages import Muted, Told
from proxy.incidents_model import Incident, IncidentEvent, short_hash
from proxy.incidents_store import Documents, IncidentStore
from proxy.store.errors import StoreError
from proxy.store.tasks import cancel

log = structlog.get_logger(__name__)

LEASE = "alerts"
_LEASE_SECONDS = 8.0
_LET_GO_SECONDS = 0.01
_TICK_SECONDS = 1.0
_LOOK_BACK_SECONDS = 7_200.0
_LOG, _PAGE, _TOLD, _DUE = "alert_log", "alert_page", "alert_told", "alert_due"
_LOG_SECONDS = 30 * 86_400.0
_FAR = 1e12

MakeReport = Callable[[ReportSchedule, float, float], Awaitable[Message | None]]
Delivered = Callable[[str, str, str], Awaitable[None]]


class Store(Documents, Protocol):
    """Documents and a lease."""

    async def lease(self, name: str, ttl_seconds: float) -> bool:
        """Whether this replica leads now."""


class AlertService:
    """Plans and delivers for the whole fleet while this replica leads.

    Parameters
    ----------
    settings
        The section ``alerts``.
    store
        Documents and the lease.
    clock
        Callable giving epoch seconds, the store's time.
    make_report
        Makes the message of a scheduled report for a span.
    delivered
        Told (fingerprint, receiver, kind) of each delivery, for the timeline.
    base_url
        Where the dashboard is, for links, unless ``external_url`` says it.
    """

    def __init__(
        self,
        settings: AlertsSettings,
        store: Store,
        clock: Callable[[], float],
        *,
        make_report: MakeReport | None = None,
        delivered: Delivered | None = None,
        base_url: Callable[[], str] = str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._incidents = IncidentStore(store)
        self._make_report = make_report
        self._delivered = delivered
        self._base_url = base_url
        self._next: AlertsSettings | None = None
        self.outbox = Outbox(store, clock, self._settled)
        self._take_settings(settings)
        self.silences = Silences(store)
        self.muted: dict[tuple[str, str], Muted] = {}
        self.leading = False
        self._known: dict[str, Incident] = {}
        self._logs: dict[str, Log] = {}
        self._told: dict[tuple[str, str], Told] = {}
        self._pages: dict[str, str] = {}
        self._waiting: dict[str, float] = {}
        self._called: set[str] = set()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._deliver = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def _take_settings(self, settings: AlertsSettings) -> None:
        self.settings = settings
        self._root = build_routes(settings.route)
        receivers = {one.name: build_receiver(one) for one in settings.receivers}
        self._traits = {
            one.name: ReceiverTraits(
                one.name, receivers[one.name].per_incident, one.pages, one.send_resolved
            )
            for one in settings.receivers
        }
        self._net = Net(
            allowed=settings.allow_addresses,
            follow_redirects=settings.follow_redirects,
            timeout_seconds=settings.outbox.timeout_seconds,
            answer_bytes=settings.outbox.answer_bytes,
            now=self._clock,
            secrets=[secret for one in settings.receivers for secret in one.secrets()],
        )
        self.outbox.configure(receivers, self._net, settings.outbox)

    def configure(self, settings: AlertsSettings) -> None:
        """Take other settings at the next look; what receivers were told stays known."""
        self._next = settings
        self._wake.set()

    async def start(self) -> None:
        """Start the loops."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._lead(), name="alerts-plan"),
                asyncio.create_task(self._work(), name="alerts-outbox"),
            ]

    async def stop(self) -> None:
        """Stop the loops and let another replica lead; what is in the outbox stays there."""
        await cancel(self._tasks)
        self._tasks = []
        if self.leading:
            self.leading = False
            with suppress(StoreError):
                await self._store.lease(LEASE, _LET_GO_SECONDS)
        await self._net.close()

    def notify(self, event: IncidentEvent) -> None:
        """Hear of an incident's change; returns at once. Subscribe this to the book."""
        known = self._known.get(event.incident.id)
        if known is None or known.revision <= event.incident.revision:
            self._known[event.incident.id] = event.incident
        self._wake.set()

    async def plan_once(self) -> float:
        """Look at everything once if this replica leads; seconds until the next look.

        Raises
        ------
        StoreError
            Where the store is away; nothing is lost by trying again.
        """
        if self._next is not None:
            # A message under way over the old connections fails, and is tried again.
            net, settings, self._next = self._net, self._next, None
            self._take_settings(settings)
            await net.close()
        led = self.leading
        self.leading = self.settings.enabled and await self._store.lease(LEASE, _LEASE_SECONDS)
        if not self.leading:
            return _TICK_SECONDS
        if not led:
            await self._take_over()
        async with self._lock:
            return await self._tick()

    async def deliver_once(self) -> float:
        """Try all that is due if this replica leads; seconds until something is due."""
        if not self.leading:
            return _TICK_SECONDS
        again = await self.outbox.deliver_due()
        if again is None:
            return _TICK_SECONDS
        return max(0.0, again - self._clock())

    async def _lead(self) -> None:
        while True:
            self._wake.clear()
            wait = await self._kept_going(self.plan_once)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def _work(self) -> None:
        while True:
            self._deliver.clear()
            wait = min(_TICK_SECONDS, await self._kept_going(self.deliver_once))
            if wait > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._deliver.wait(), wait)

    async def _kept_going(self, step: Callable[[], Awaitable[float]]) -> float:
        """One step; what fails is said, and tried again."""
        try:
            return await step()
        except StoreError as error:
            self.leading = False
            log.warning("alerts_wait_for_store", error=type(error).__name__)
        except Exception as error:
            # The loops must outlive any one odd incident or message.
            log.error("alerts_step_failed", step=step.__name__, error=type(error).__name__)
        return _TICK_SECONDS

    async def _take_over(self) -> None:
        """Read all that the last leader knew."""
        now = self._clock()
        logs = await self._store.doc_range(_LOG, now - _LOG_SECONDS, _FAR, limit=10_000)
        self._logs = {one.id: Log.from_dict(one.body) for one in logs}
        pages = await self._store.doc_range(_PAGE, now - _LOG_SECONDS, _FAR, limit=10_000)
        self._pages = {one.id: one.body["receiver"] for one in pages}
        told = await self._store.doc_range(_TOLD, now - _LOG_SECONDS, _FAR, limit=10_000)
        self._told = {
            (one.body["receiver"], one.body["fingerprint"]): Told(
                one.body["incident"], Tier(one.body["tier"]), one.body["at"]
            )
            for one in told
        }
        found = [
            *await self._incidents.active(),
            *await self._incidents.closed_since(now - _LOOK_BACK_SECONDS),
        ]
        seen = {incident.id for incident in found}
        for name in {name for one in self._logs.values() for name in one.told} - seen:
            old = await self._incidents.get(name)
            found += [old] if old is not None else []
        for incident in found:
            known = self._known.get(incident.id)
            if known is None or known.revision < incident.revision:
                self._known[incident.id] = incident

    async def _tick(self) -> float:
        """Plan once; seconds until the next look."""
        now = self._clock()
        if not self.settings.external_url and (base := self._base_url()):
            # Known only once the admin port listens.
            self.settings = self.settings.model_copy(update={"external_url": base})
        await self.silences.refresh(now)
        self._forget(now)
        world = World(
            settings=self.settings,
            root=self._root,
            receivers=self._traits,
            incidents=list(self._known.values()),
            silences=self.silences.held,
            logs=self._logs,
            told=self._told,
            pages=self._pages,
            waiting=self._waiting,
            busy=self.outbox.lanes,
        )
        plan = make_plan(world, now)
        self.muted = plan.muted
        again = now + _TICK_SECONDS
        for decision in plan.decisions:
            if decision.look_again_at is not None:
                again = min(again, decision.look_again_at)
            before = self._logs.get(decision.log.id)
            if decision.log.count == (before.count if before else 0):
                continue
            await self._claim_pages(decision.pages, decision.log.receiver, now)
            for message in decision.messages:
                await self.outbox.put(message)
            await self._remember(decision.log, decision.told, now)
        for message in calls_of(world.incidents, self._called, self.settings.external_url, now):
            await self.outbox.put(message)
        self._deliver.set()
        await self._schedules(now)
        return max(0.02, again - self._clock())

    async def _claim_pages(self, incidents: tuple[str, ...], receiver: str, now: float) -> None:
        for incident in incidents:
            await self._store.doc_put(
                _PAGE, incident, {"receiver": receiver}, at=now, ttl_seconds=_LOG_SECONDS
            )
            self._pages[incident] = receiver

    async def _release_pages(self, message: Message) -> None:
        """Nobody was woken, so another paging receiver may be asked."""
        for card in message.cards:
            if self._pages.get(card.incident) == message.receiver:
                await self._store.doc_delete(_PAGE, card.incident)
                self._pages.pop(card.incident, None)

    async def _remember(self, after: Log, told: Mapping[tuple[str, str], Told], now: float) -> None:
        await self._store.doc_put(_LOG, after.id, after.as_dict(), at=now, ttl_seconds=_LOG_SECONDS)
        self._logs[after.id] = after
        for (receiver, fingerprint), mark in told.items():
            body = {
                "receiver": receiver,
                "fingerprint": fingerprint,
                "incident": mark.incident,
                "tier": int(mark.tier),
                "at": mark.at,
            }
            key = short_hash(receiver, fingerprint)
            await self._store.doc_put(_TOLD, key, body, at=now, ttl_seconds=_LOG_SECONDS)
            self._told[receiver, fingerprint] = mark

    def _forget(self, now: float) -> None:
        """Drop what closed long ago, and logs that hold nothing any more."""
        named = {done["id"] for one in self._known.values() for done in one.actions}
        self._called &= named
        for name, incident in list(self._known.items()):
            old = not incident.active and (incident.closed_at or 0.0) < now - _LOOK_BACK_SECONDS
            if old and not any(name in one.told for one in self._logs.values()):
                del self._known[name]
        for key, held in list(self._logs.items()):
            if not held.told and (held.sent_at or 0.0) < now - _LOOK_BACK_SECONDS:
                del self._logs[key]

    async def _schedules(self, now: float) -> None:
        for settings in self.settings.digests:
            due = last_due(settings, now)
            kind = ("digest", settings.receiver, settings.every, settings.at)
            if await self._is_new(kind, due, now):
                start, end = span_of(settings, due)
                found = await self._incidents.search(
                    lambda _: True, since=start, until=end, limit=1_000
                )
                message = digest(settings, found, due, self.settings.external_url)
                if message is not None:
                    await self.outbox.put(message)
                await self._mark(kind, due, now)
        for report in self.settings.reports:
            due = last_due(report, now)
            wanted = ("report", report.receiver, report.every, report.format, report.project or "")
            if self._make_report is not None and await self._is_new(wanted, due, now):
                made = await self._make_report(report, *span_of(report, due))
                if made is not None:
                    await self.outbox.put(made)
                await self._mark(wanted, due, now)

    async def _is_new(self, kind: tuple[str, ...], due: float, now: float) -> bool:
        """Whether what was due then wasn't sent; a schedule seen first waits for its next."""
        held = await self._store.doc_get(_DUE, short_hash(*kind))
        if held is None:
            await self._mark(kind, due, now)
            return False
        return bool(held.body["due"] < due)

    async def _mark(self, kind: tuple[str, ...], due: float, now: float) -> None:
        await self._store.doc_put(_DUE, short_hash(*kind), {"due": due}, at=now)

    async def _settled(self, message: Message, outcome: Outcome) -> None:
        """A message arrived or is a dead letter."""
        now = self._clock()
        async with self._lock:
            held = self._logs.get(message.group)
            if outcome.delivered and held is not None:
                await self._remember(replace(held, sent_at=now), {}, now)
            elif not outcome.delivered and message.kind == "firing":
                await self._release_pages(message)
        if self._delivered is not None:
            for card in message.cards:
                word = message.kind if outcome.delivered else f"{message.kind} not delivered"
                await self._delivered(card.fingerprint, message.receiver, word)
