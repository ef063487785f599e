"""The small steps between an incident and a receiver, each a pure function.

Owns: who is kept still and why. Must never: look at a clock, store or send.

As in Alertmanager's notify package, a pipeline is a list of stages. A stage
takes the incidents of one group that would be told and gives back those that
still may be; what it takes out it names in ``Context.muted``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from detection.types import Dimension, Tier
from proxy.alerts.matchers import all_hold, parse_matcher
from proxy.alerts.routing import Route
from proxy.alerts.settings import WEEKDAYS, AlertsSettings, QuietHours
from proxy.alerts.silences import Silence
from proxy.incidents_model import Incident


class Muted(StrEnum):
    """Why an incident wasn't told."""

    LEARNING = "learning"
    MAINTENANCE = "maintenance"
    SILENCED = "silenced"
    INHIBITED = "inhibited"
    QUIET_HOURS = "quiet_hours"
    COOLDOWN = "cooldown"
    PAGED = "already_paged"


@dataclass(frozen=True, slots=True)
class Told:
    """When a signal on a scope was last told to a receiver, and how bad it was."""

    incident: str
    tier: Tier
    at: float


@dataclass(slots=True)
class Context:
    """What the stages may look at.

    ``standing`` holds all active incidents, of every route. ``already`` are the
    incidents that this receiver was told of and that still stand for it.
    ``told`` is by receiver and fingerprint.
    """

    now: float
    settings: AlertsSettings
    route: Route
    receiver: str
    standing: Sequence[Incident]
    silences: Sequence[Silence]
    told: Mapping[tuple[str, str], Told]
    already: frozenset[str]
    muted: dict[str, Muted] = field(default_factory=dict)

    def keep(self, incidents: Sequence[Incident], why: Muted, test: _Test) -> list[Incident]:
        """Those that pass the test; the others are noted as muted."""
        kept = []
        for incident in incidents:
            if test(incident):
                kept.append(incident)
            else:
                self.muted.setdefault(incident.id, why)
        return kept


_Test = Callable[[Incident], bool]
Stage = Callable[[Context, Sequence[Incident]], list[Incident]]


def learning(context: Context, incidents: Sequence[Incident]) -> list[Incident]:
    """What is found while still learning is recorded, not sent."""
    return context.keep(incidents, Muted.LEARNING, lambda i: not i.learning)


def maintenance(context: Context, incidents: Sequence[Incident]) -> list[Incident]:
    """Planned windows, from the configuration and from people."""
    now = context.now
    planned = [
        tuple(parse_matcher(text) for text in window.matchers)
        for window in context.settings.maintenance
        if window.start.timestamp() <= now < window.end.timestamp()
    ]
    asked = [one for one in context.silences if one.kind == "maintenance"]

    def free(incident: Incident) -> bool:
        labels = incident.labels()
        return not (
            any(all_hold(matchers, labels) for matchers in planned)
            or any(one.covers(labels, now) for one in asked)
        )

    return context.keep(incidents, Muted.MAINTENANCE, free)


def silence(context: Context, incidents: Sequence[Incident]) -> list[Incident]:
    """What people silenced."""
    held = [one for one in context.silences if one.kind == "silence"]
    return context.keep(
        incidents,
        Muted.SILENCED,
        lambda i: not any(one.covers(i.labels(), context.now) for one in held),
    )


def inhibit(context: Context, incidents: Sequence[Incident]) -> list[Incident]:
    """What another standing incident already says.

    By the rules of the configuration; and, unless switched off, a wider scope
    keeps still while a narrower one stands that its root cause names: the
    total's incident beside that of the key which explains it.
    """
    standing = [one for one in context.standing if not one.learning]

    def free(incident: Incident) -> bool:
        return not any(_inhibits(context, source, incident) for source in standing)

    return context.keep(incidents, Muted.INHIBITED, free)


#: Narrow to wide; what stands further left explains what stands further right.
_WIDTH: Mapping[str, int] = {
    Dimension.SESSION: 0,
    Dimension.KEY_MODEL: 1,
    Dimension.AGENT_MODEL: 1,
    Dimension.AGENT: 2,
    Dimension.KEY: 3,
    Dimension.USER: 3,
    Dimension.TAG: 4,
    Dimension.CLIENT: 4,
    Dimension.ENDPOINT: 5,
    Dimension.MODEL: 5,
    Dimension.PROJECT: 6,
    Dimension.PROVIDER: 7,
    Dimension.TOTAL: 8,
}
_EXPLAINS = 0.6


def _inhibits(context: Context, source: Incident, target: Incident) -> bool:
    if source.id == target.id:
        return False
    if context.settings.inhibit_explained and _explains(source, target):
        return True
    for rule in context.settings.inhibit_rules:
        one, other = source.labels(), target.labels()
        if (
            all_hold(map(parse_matcher, rule.source_matchers), one)
            and all_hold(map(parse_matcher, rule.target_matchers), other)
            and all(one.get(name) == other.get(name) for name in rule.equal)
        ):
            return True
    return False


def _explains(source: Incident, target: Incident) -> bool:
    """Whether a narrower incident is the story of a wider one, and no milder."""
    if _WIDTH[source.series.dimension] >= _WIDTH[target.series.dimension]:
        return False
    if source.worst < target.worst or source.opened_at > target.opened_at + 3_600:
        return False
    told = target.explanation or {}
    ranked = [told["top"]] if told.get("top") else []
    ranked += told.get("contributors", {}).get(str(source.series.dimension), [])[:1]
    return any(
        one["dimension"] == source.series.dimension
        and one["value"] == source.series.value
        and (one["share"] or 0.0) >= _EXPLAINS
        for one in ranked
    )


def quiet_hours(context: Context, incidents: Sequence[Incident]) -> list[Incident]:
    """The route's quiet hours, below their tier."""
    least = max(
        (
            Tier[hours.let_through.upper()]
            for hours in context.route.quiet_hours
            if is_quiet(hours, context.now)
        ),
        default=Tier.NONE,
    )
    return context.keep(incidents, Muted.QUIET_HOURS, lambda i: i.worst >= least)


def is_quiet(hours: QuietHours, now: float) -> bool:
    """Whether ``now`` lies in quiet hours, which may run past midnight."""
    local = datetime.fromtimestamp(now, ZoneInfo(hours.timezone))
    start, end = time.fromisoformat(hours.start), time.fromisoformat(hours.end)
    today = WEEKDAYS[local.weekday()]
    yesterday = WEEKDAYS[(local - timedelta(days=1)).weekday()]
    clock = local.time()
    if start < end:
        return today in hours.days and start <= clock < end
    return (today in hours.days and clock >= start) or (yesterday in hours.days and clock < end)


def cooldown(context: Context, incidents: Sequence[Incident]) -> list[Incident]:
    """The same signal on the same scope rests after a message, unless it got worse."""
    rests = context.settings.cooldown

    def free(incident: Incident) -> bool:
        if incident.id in context.already:
            return True
        last = context.told.get((context.receiver, incident.fingerprint))
        if last is None or incident.worst > last.tier:
            return True
        rest = rests.signals.get(str(incident.signal), rests.default_seconds)
        return context.now - last.at >= rest

    return context.keep(incidents, Muted.COOLDOWN, free)


PIPELINE: tuple[Stage, ...] = (learning, maintenance, silence, inhibit, quiet_hours, cooldown)


def run(context: Context, incidents: Sequence[Incident]) -> list[Incident]:
    """All stages in order."""
    left = list(incidents)
    for stage in PIPELINE:
        left = stage(context, left)
    return left
