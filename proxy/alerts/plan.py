"""What to send now: groups, first waits, changes, repeats, pages.

Owns: the notification log's meaning and the one decision per group. Must
never: send, store, or look at a clock (``now`` is passed in).

It works from the incidents as they are, not from events, and compares them
with what each receiver was told; a crash, a repeat or a new leader therefore
changes nothing (as Alertmanager's DedupStage does with its notification log).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from detection.types import Tier
from proxy.alerts.message import Message, card_of
from proxy.alerts.routing import Route, routes_of
from proxy.alerts.settings import AlertsSettings
from proxy.alerts.silences import Silence
from proxy.alerts.stages import Context, Muted, Told, run
from proxy.incidents_model import Incident, State, short_hash

FIRING, ACKNOWLEDGED, RESOLVED = "firing", "acknowledged", "resolved"


@dataclass(frozen=True, slots=True)
class Log:
    """What one receiver was told of one group.

    ``told`` holds the incidents that stand for the receiver, with the tier and
    status it knows; ``count`` numbers the group's messages.
    """

    id: str
    receiver: str
    told: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    sent_at: float | None = None
    count: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The stored form."""
        told = {name: list(known) for name, known in self.told.items()}
        return {
            "id": self.id,
            "receiver": self.receiver,
            "told": told,
            "sent_at": self.sent_at,
            "count": self.count,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Log:
        """Undo :meth:`as_dict`."""
        told = {name: (int(tier), str(status)) for name, (tier, status) in body["told"].items()}
        return cls(body["id"], body["receiver"], told, body["sent_at"], body["count"])


@dataclass(frozen=True, slots=True)
class ReceiverTraits:
    """What the plan must know of a receiver."""

    name: str
    per_incident: bool
    pages: bool
    send_resolved: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Messages of one group, and the log that holds once they are in the outbox."""

    log: Log
    messages: tuple[Message, ...] = ()
    pages: tuple[str, ...] = ()
    told: Mapping[tuple[str, str], Told] = field(default_factory=dict)
    look_again_at: float | None = None


@dataclass(slots=True)
class Plan:
    """All that a tick decided."""

    decisions: list[Decision]
    muted: dict[tuple[str, str], Muted]


@dataclass(slots=True)
class World:
    """All that a plan is made from.

    ``incidents`` are the active ones and those closed of late; ``waiting``
    says since when a group's news waits; ``pages`` which receiver was given the
    one page of an incident; ``busy`` which lanes hold an undelivered message.
    """

    settings: AlertsSettings
    root: Route
    receivers: Mapping[str, ReceiverTraits]
    incidents: Sequence[Incident]
    silences: Sequence[Silence]
    logs: Mapping[str, Log]
    told: Mapping[tuple[str, str], Told]
    pages: Mapping[str, str]
    waiting: dict[str, float]
    busy: Collection[str] = ()


def make_plan(world: World, now: float) -> Plan:
    """Decide every group, in the order of the routes: the first to page has the page."""
    pages = dict(world.pages)
    world = replace(world, pages=pages)
    known = {incident.id: incident for incident in world.incidents}
    standing = [incident for incident in world.incidents if incident.active]
    groups: dict[str, tuple[Route, list[Incident]]] = {}
    members: dict[str, list[Incident]] = defaultdict(list)
    for incident in standing:
        labels = incident.labels()
        for route in routes_of(world.root, labels, incident.worst):
            key = short_hash(route.receiver or "", route.group_key(labels))
            groups[key] = (route, members[key])
            members[key].append(incident)
    for key, log in world.logs.items():
        if key not in groups and log.told:
            groups[key] = (_route_of(world.root, log.receiver), [])
    muted: dict[tuple[str, str], Muted] = {}
    decisions = []
    for key, (route, incidents) in groups.items():
        receiver = route.receiver
        if receiver is None or receiver not in world.receivers:
            continue
        log = world.logs.get(key) or Log(key, receiver)
        context = Context(
            now=now,
            settings=world.settings,
            route=route,
            receiver=receiver,
            standing=standing,
            silences=world.silences,
            told=world.told,
            already=frozenset(log.told),
        )
        audible = run(context, incidents)
        decision = _decide(world, route, log, audible, known, context)
        pages |= dict.fromkeys(decision.pages, receiver)
        decisions.append(decision)
        muted |= {(receiver, incident): why for incident, why in context.muted.items()}
    return Plan(decisions, muted)


def _route_of(root: Route, receiver: str) -> Route:
    """Any route to a receiver, for groups none of whose incidents stands any more."""
    return replace(root, receiver=receiver, children=())


def _decide(
    world: World,
    route: Route,
    log: Log,
    audible: Sequence[Incident],
    known: Mapping[str, Incident],
    context: Context,
) -> Decision:
    traits = world.receivers[log.receiver]
    now = context.now
    if traits.pages:
        paged = [i for i in audible if i.id in world.pages and i.id not in log.told]
        context.muted |= {i.id: Muted.PAGED for i in paged}
        audible = [i for i in audible if i not in paged]
    fresh = [i for i in audible if i.id not in log.told]
    raised = [i for i in audible if i.id in log.told and i.worst > log.told[i.id][0]]
    calmed = [
        known[name]
        for name, (_, status) in log.told.items()
        if status == FIRING and name in known and known[name].state == State.ACKNOWLEDGED
    ]
    over = [known.get(name) for name in log.told if name not in known or not known[name].active]
    closed = [incident for incident in over if incident is not None]
    gone = {name for name in log.told if name not in known}
    if traits.pages:
        raised = []
    news = bool(fresh or raised or calmed or over)
    if not news:
        world.waiting.pop(log.id, None)
        return _repeat(world, route, log, audible, traits, now)
    due = _due_at(world, route, log, traits, fresh=bool(fresh), severe=_severe(raised), now=now)
    if now < due:
        return Decision(log, look_again_at=due)
    world.waiting.pop(log.id, None)
    told = dict(log.told)
    for incident in (*fresh, *raised):
        told[incident.id] = (int(incident.worst), FIRING)
    for incident in calmed:
        told[incident.id] = (told[incident.id][0], ACKNOWLEDGED)
    for name in [*gone, *(incident.id for incident in closed)]:
        told.pop(name, None)
    count = log.count + 1
    messages: list[Message] = []
    firing = [*fresh, *raised]
    if firing:
        whole = firing if traits.per_incident else [i for i in audible if i.id in told]
        messages += _messages(world, log, traits, FIRING, whole, firing, count, now)
    if traits.per_incident:
        messages += _messages(world, log, traits, ACKNOWLEDGED, calmed, (), count, now)
    if closed and traits.send_resolved:
        messages += _messages(world, log, traits, RESOLVED, closed, (), count, now)
    after = replace(log, told=told, sent_at=now if messages else log.sent_at, count=count)
    marks = {(log.receiver, i.fingerprint): Told(i.id, i.worst, now) for i in firing}
    pages = tuple(i.id for i in fresh) if traits.pages else ()
    return Decision(after, tuple(messages), pages, marks)


def _severe(incidents: Sequence[Incident]) -> bool:
    return any(incident.worst >= Tier.CRITICAL for incident in incidents)


def _due_at(
    world: World,
    route: Route,
    log: Log,
    traits: ReceiverTraits,
    *,
    fresh: bool,
    severe: bool,
    now: float,
) -> float:
    """When this group's news may go: after its first wait, and not too soon after the last.

    Each incident on its own, or one that became critical, needs no interval.
    """
    since = world.waiting.setdefault(log.id, now)
    wait = route.group_wait_seconds if fresh and not log.told else 0.0
    due = since + wait
    if log.sent_at is not None and not (severe or traits.per_incident):
        apart = route.group_by == ("incident",)
        due = max(due, log.sent_at + (0.0 if apart else route.group_interval_seconds))
    return due


def _repeat(
    world: World,
    route: Route,
    log: Log,
    audible: Sequence[Incident],
    traits: ReceiverTraits,
    now: float,
) -> Decision:
    unheard = [
        i
        for i in audible
        if log.told.get(i.id, (0, ""))[1] == FIRING and _lane(log, traits, i.id) not in world.busy
    ]
    if not unheard or traits.pages or log.sent_at is None:
        return Decision(log)
    due = log.sent_at + route.repeat_interval_seconds
    if now < due:
        return Decision(log, look_again_at=due)
    count = log.count + 1
    messages = _messages(world, log, traits, FIRING, unheard, (), count, now)
    marks = {(log.receiver, i.fingerprint): Told(i.id, i.worst, now) for i in unheard}
    return Decision(replace(log, sent_at=now, count=count), tuple(messages), (), marks)


def _messages(
    world: World,
    log: Log,
    traits: ReceiverTraits,
    kind: str,
    incidents: Sequence[Incident],
    newly: Sequence[Incident],
    count: int,
    now: float,
) -> list[Message]:
    """One message per incident, or one for all, in words ready to go.

    Ids follow from the group, the message's number and the incident, so that
    the same decision taken twice makes the same message once.
    """
    parts = [[incident] for incident in incidents] if traits.per_incident else [list(incidents)]
    made = []
    for part in parts:
        if not part:
            continue
        lane = _lane(log, traits, part[0].id)
        cards = tuple(card_of(incident, world.settings.external_url) for incident in part)
        first_severe = any(
            i in newly and i.worst >= Tier.CRITICAL > log.told.get(i.id, (0, ""))[0] for i in part
        )
        made.append(
            Message(
                id=f"msg_{short_hash(lane, kind, str(count))}",
                receiver=log.receiver,
                kind=kind,
                lane=lane,
                group=log.id,
                title=cards[0].title,
                cards=cards,
                created_at=now,
                page=first_severe or (traits.pages and kind == FIRING),
            )
        )
    return made


def _lane(log: Log, traits: ReceiverTraits, incident: str) -> str:
    return short_hash(log.receiver, log.id, incident if traits.per_incident else "")
