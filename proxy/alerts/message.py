"""What a receiver is asked to say: cards of plain facts, already cleaned.

Owns: turning an incident into words once, for all receivers alike. Must
never: escape for a medium (each receiver does) or hold anything that isn't
fit to leave the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from detection.story import scope_words
from detection.types import Dimension, Series, Tier
from proxy.alerts.text import NANO, clean, dollars, iso, moment, number
from proxy.incidents_model import Incident

_LISTED = 3
#: What a signal's figures count, where it is money: nano-USD in one unit.
_MONEY = {
    "spend_spike": NANO,
    "drift": NANO,
    "peer_outlier": NANO,
    "cost_per_request": 1,
    "budget_burn": 1,
}


@dataclass(frozen=True, slots=True)
class Card:
    """One incident as said to people. All text is one harmless line each."""

    incident: str
    fingerprint: str
    status: str
    tier: str
    signal: str
    family: str
    dimension: str
    scope: str
    title: str
    story: str
    facts: tuple[tuple[str, str], ...]
    next_step: str
    link: str
    opened_at: float
    since: float
    closed_at: float | None
    project: str
    agent: str
    observed: float
    baseline: float | None
    stddev: float | None
    window_minutes: float | None
    labels: Mapping[str, str]

    @property
    def firing(self) -> bool:
        """Whether the incident still stands."""
        return self.status not in ("resolved", "dismissed")

    @property
    def severe(self) -> bool:
        """Critical or worse."""
        return self.tier in (Tier.CRITICAL.label, Tier.EMERGENCY.label)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes along, base64."""

    name: str
    media_type: str
    base64: str


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to deliver. ``id`` stays the same over all tries.

    ``kind`` is ``firing``, ``acknowledged``, ``resolved``, ``digest``, ``report``
    or ``action`` (a policy's webhook step; the title is the policy's name).
    ``lane`` names the thread that belongs together; messages of one
    lane arrive in order. ``group`` is the notification log it stands in.
    ``page`` marks the one message of an incident that may wake a person.
    """

    id: str
    receiver: str
    kind: str
    lane: str
    title: str
    cards: tuple[Card, ...]
    created_at: float
    group: str = ""
    page: bool = False
    lines: tuple[str, ...] = ()
    attachment: Attachment | None = None
    receipt: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The form that waits in the outbox."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Message:
        """Undo :meth:`as_dict`, after JSON."""
        held = dict(body)
        held["cards"] = tuple(
            Card(**{**card, "facts": tuple((n, v) for n, v in card["facts"])})
            for card in body["cards"]
        )
        held["lines"] = tuple(body.get("lines", ()))
        attached = body.get("attachment")
        held["attachment"] = Attachment(**attached) if attached else None
        return cls(**held)


def card_of(incident: Incident, external_url: str) -> Card:
    """The card of an incident as it stands."""
    labels = {name: clean(value, 200) for name, value in incident.labels().items()}
    words = clean(scope_words(incident.series), 120)
    signal = str(incident.signal)
    tier = incident.worst.label
    base = external_url.rstrip("/")
    return Card(
        incident=incident.id,
        fingerprint=clean(incident.fingerprint),
        status=str(incident.state),
        tier=tier,
        signal=signal,
        family=labels["family"],
        dimension=labels["dimension"],
        scope=labels["scope"],
        title=f"{signal.replace('_', ' ')}: {words}",
        story=clean(incident.story or f"{words}: {signal}", 600),
        facts=tuple(_facts(incident)),
        next_step=clean(incident.next_step),
        link=f"{base}/incidents/{quote(incident.id)}" if base else "",
        opened_at=incident.opened_at,
        since=incident.since,
        closed_at=incident.closed_at,
        project=labels["project"],
        agent=clean(_agent(incident), 200),
        observed=incident.observed,
        baseline=incident.baseline,
        stddev=_float(incident.detail.get("stddev")),
        window_minutes=incident.window_seconds / 60 if incident.window_seconds else None,
        labels=labels,
    )


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _agent(incident: Incident) -> str:
    """The agent it is about: the scope's own, else the one that drives the change."""
    if incident.series.dimension in (Dimension.AGENT, Dimension.AGENT_MODEL):
        return incident.series.value.split("|", 1)[0]
    ranked = (incident.explanation or {}).get("contributors", {}).get("agent") or [{}]
    return str(ranked[0].get("value", ""))


def _facts(incident: Incident) -> list[tuple[str, str]]:
    unit = _MONEY.get(str(incident.signal))

    def show(value: float) -> str:
        return number(value) if unit is None else dollars(value * unit)

    facts = [("Since", moment(incident.since)), ("Observed", show(incident.observed))]
    if incident.baseline is not None:
        times = f" ({incident.ratio:.1f}×)" if incident.ratio else ""
        facts.append(("Usual", show(incident.baseline) + times))
    facts.append(("Cost so far", dollars(incident.cost_nano_usd)))
    if incident.active and incident.cost_per_hour_nano_usd:
        facts.append(("If it goes on", f"{dollars(incident.cost_per_hour_nano_usd)} per hour"))
    told = incident.explanation or {}
    leading = [
        f"{one['dimension']} {clean(one['value'], 80)} {one['share']:.0%}"
        for ranked in told.get("contributors", {}).values()
        for one in ranked[:1]
        if one["share"] is not None and one["share"] >= 0.2
    ]
    if leading:
        facts.append(("Part of the change", ", ".join(leading[: _LISTED + 1])))
    split = told.get("split_nano_usd")
    if split and split.get("change"):
        parts = [f"{name} {dollars(split[name])}" for name in ("volume", "mix", "tokens", "price")]
        facts.append(("Cost change", f"{dollars(split['change'])} = " + " + ".join(parts)))
    done = [f"{act['kind']} ({act['mode']})" for act in incident.actions[-_LISTED:]]
    if done:
        facts.append(("Done", clean(", ".join(done))))
    if incident.closed_at is not None:
        why = incident.resolution or str(incident.state)
        facts.append((str(incident.state).capitalize(), clean(f"{why} {incident.root_cause}", 200)))
    elif incident.acknowledged_by:
        facts.append(("Acknowledged by", clean(incident.acknowledged_by, 80)))
    return facts


def series_of(card: Card) -> Series:
    """The scope that a card is about."""
    return Series(card.dimension, card.scope)


def title_line(message: Message) -> str:
    """The message's headline, as every medium shows it."""
    first = message.cards[0] if message.cards else None
    if message.kind in ("digest", "report") or first is None:
        return message.title
    word = "RESOLVED" if message.kind == "resolved" else first.tier.upper()
    more = f" (+{len(message.cards) - 1} more)" if len(message.cards) > 1 else ""
    return f"[{word}] {first.title}{more}"


def plain_text(message: Message) -> str:
    """The whole message as plain lines."""
    lines = [title_line(message), *message.lines]
    for card in message.cards:
        lines += ["", card.story]
        lines += [f"  {name}: {value}" for name, value in card.facts]
        if card.firing and card.next_step:
            lines.append(f"  Next: {card.next_step}")
        if card.link:
            lines.append(f"  {card.link}")
    return "\n".join(lines)


def detected_at(card: Card) -> str:
    """When the incident was noticed, ISO 8601."""
    return iso(card.opened_at)
