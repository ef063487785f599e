"""What an incident is: its states, its fields, its stored form.

Owns: the immutable :class:`Incident`, its identity and its JSON. Must never:
change one in place, read a clock, or do I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from detection.types import Action, Dimension, Series, Signal, Tier, Verdict, unpair

SCHEMA = 1
MAX_TIMELINE = 200
MAX_ACTIONS = 50


class State(StrEnum):
    """Where an incident is in its life."""

    OPEN = "open"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    DISMISSED = "dismissed"

    @property
    def active(self) -> bool:
        """Whether it still asks for attention."""
        return self not in (State.RESOLVED, State.DISMISSED)


class EventKind(StrEnum):
    """What happened to an incident."""

    OPENED = "opened"
    REOPENED = "reopened"
    ESCALATED = "escalated"
    UPDATED = "updated"
    ACTION = "action"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    DISMISSED = "dismissed"


#: One incident holds every signal of its family on one scope.
SIGNAL_FAMILIES: Mapping[Signal, str] = {
    Signal.VOLUME_SURGE: "volume",
    Signal.SPEND_SPIKE: "volume",
    Signal.ERROR_RATE: "errors",
    Signal.RETRY_STORM: "errors",
    Signal.AGENT_LOOP: "loop",
    Signal.NEW_MODEL: "novelty",
    Signal.NEW_AGENT: "novelty",
    Signal.NEW_KEY_MODEL: "novelty",
    Signal.NEW_CLIENT: "novelty",
    Signal.COST_PER_REQUEST: "shape",
    Signal.OUTPUT_TOKENS: "shape",
    Signal.FINISH_REASON_MIX: "shape",
    Signal.DRIFT: "trend",
    Signal.PEER_OUTLIER: "trend",
    Signal.BUDGET_BURN: "budget",
    Signal.HARD_LIMIT: "limit",
}


def fingerprint_of(signal: Signal, series: Series) -> str:
    """The identity of the incident that a signal on a series belongs to.

    >>> fingerprint_of(Signal.SPEND_SPIKE, Series("key", "key_1"))
    'volume:key:key_1'
    """
    return f"{SIGNAL_FAMILIES[signal]}:{series.dimension}:{series.value}"


def incident_of(action: Action) -> str | None:
    """The fingerprint of the incident that policy's action answers; ``None`` by hand."""
    return incident_of_verdict(action.incident)


def incident_of_verdict(verdict: str) -> str | None:
    """The fingerprint of the incident of a verdict's, ``signal:dimension:value``.

    >>> incident_of_verdict("spend_spike:agent:a:b"), incident_of_verdict("inc_1")
    ('volume:agent:a:b', None)
    """
    signal, _, rest = verdict.partition(":")
    dimension, found, value = rest.partition(":")
    if not found or signal not in list(Signal):
        return None
    return fingerprint_of(Signal(signal), Series(dimension, value))


def short_hash(*parts: str) -> str:
    """12 hex digits over parts that can't run into each other."""
    digest = hashlib.blake2b(digest_size=6)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Incident:
    """One story about one scope.

    Times are epoch seconds, money is nano-USD. ``live`` holds the signals that
    still stand with their tiers; ``tier`` is the worst of them, ``worst`` the
    worst ever. ``since`` is when the change began, ``opened_at`` when it was
    noticed, ``quiet_since`` when the last signal ended.
    """

    id: str
    fingerprint: str
    series: Series
    signal: Signal
    opened_at: float
    since: float
    state: State = State.OPEN
    tier: Tier = Tier.INFO
    worst: Tier = Tier.INFO
    live: Mapping[str, int] = field(default_factory=dict)
    signals: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    updated_at: float = 0.0
    last_seen_at: float = 0.0
    quiet_since: float | None = None
    escalated_at: float | None = None
    observed: float = 0.0
    baseline: float | None = None
    ratio: float | None = None
    window_seconds: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    learning: bool = False
    projects: tuple[str, ...] = ()
    story: str = ""
    next_step: str = ""
    explanation: Mapping[str, Any] | None = None
    cost_nano_usd: int = 0
    cost_per_hour_nano_usd: int = 0
    actions: tuple[Mapping[str, Any], ...] = ()
    timeline: tuple[Mapping[str, Any], ...] = ()
    acknowledged_by: str = ""
    acknowledged_at: float | None = None
    closed_at: float | None = None
    closed_by: str = ""
    resolution: str = ""
    root_cause: str = ""
    reopened: int = 0
    repeats: int = 0
    revision: int = 0

    @property
    def active(self) -> bool:
        """Whether it still asks for attention."""
        return self.state.active

    def with_entry(self, ts: float, kind: str, text: str, actor: str = "") -> Incident:
        """The same incident with one more line in its timeline (the first stays, the oldest go)."""
        entry = {"ts": ts, "kind": kind, "text": text, "actor": actor}
        lines = (*self.timeline, entry)
        if len(lines) > MAX_TIMELINE:
            lines = (lines[0], *lines[-(MAX_TIMELINE - 1) :])
        return replace(self, timeline=lines, updated_at=ts, revision=self.revision + 1)

    def labels(self) -> dict[str, str]:
        """What routes, silences and inhibition match on."""
        labels = {
            "incident": self.id,
            "fingerprint": self.fingerprint,
            "signal": str(self.signal),
            "family": self.fingerprint.split(":", 1)[0],
            "tier": self.worst.label if self.active else self.tier.label,
            "dimension": str(self.series.dimension),
            "scope": self.series.value,
            "project": ",".join(self.projects),
        }
        if self.series.dimension == Dimension.KEY_MODEL:
            labels["key"], labels["model"] = unpair(self.series.value)
        elif self.series.dimension == Dimension.AGENT_MODEL:
            labels["agent"], labels["model"] = unpair(self.series.value)
        elif self.series.dimension in _LABELLED:
            labels[str(self.series.dimension)] = self.series.value
        return labels

    def visible_to(self, allows: Any) -> bool:
        """Whether a token may see it: one whose projects hold all of the incident's.

        ``allows`` is asked with each project, or with ``None`` for what belongs
        to no single project, which only an unlimited token may see.
        """
        return all(allows(p) for p in self.projects) if self.projects else bool(allows(None))


_LABELLED = (Dimension.KEY, Dimension.AGENT, Dimension.MODEL, Dimension.ENDPOINT, Dimension.CLIENT)


@dataclass(frozen=True, slots=True)
class IncidentEvent:
    """What happened, and the incident as it is since."""

    kind: EventKind
    ts: float
    incident: Incident


def to_json(incident: Incident) -> dict[str, Any]:
    """The stored and served form; :func:`from_json` undoes it."""
    body: dict[str, Any] = {"schema": SCHEMA}
    for name in Incident.__dataclass_fields__:
        body[name] = getattr(incident, name)
    body["series"] = {"dimension": incident.series.dimension, "value": incident.series.value}
    body["tier"], body["worst"] = incident.tier.label, incident.worst.label
    body["live"] = {name: Tier(tier).label for name, tier in incident.live.items()}
    for name in ("signals", "evidence", "projects", "actions", "timeline"):
        body[name] = list(body[name])
    for name in ("live", "detail"):
        body[name] = dict(body[name])
    return body


def from_json(body: Mapping[str, Any]) -> Incident:
    """Read a stored incident; fields of a newer version are passed over."""
    known = {k: v for k, v in body.items() if k in Incident.__dataclass_fields__}
    known["series"] = Series(body["series"]["dimension"], body["series"]["value"])
    known["signal"] = Signal(body["signal"])
    known["state"] = State(body["state"])
    known["tier"], known["worst"] = Tier[body["tier"].upper()], Tier[body["worst"].upper()]
    known["live"] = {n: int(Tier[t.upper()]) for n, t in body.get("live", {}).items()}
    for name in ("signals", "evidence", "projects", "actions", "timeline"):
        known[name] = tuple(body.get(name, ()))
    return Incident(**known)


def facts_of(verdict: Verdict) -> dict[str, Any]:
    """The fields of an incident that its newest verdict sets."""
    return {
        "observed": verdict.observed,
        "baseline": verdict.baseline,
        "ratio": verdict.ratio,
        "window_seconds": verdict.window_seconds,
        "detail": dict(verdict.detail),
        "learning": verdict.learning,
    }
