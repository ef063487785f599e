"""When digests and reports are due, and what a digest says.

Owns: the calendar of schedules and the digest's lines. Must never: look at a
clock (``now`` is passed in) or store when something was last sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from detection.types import Tier
from proxy.alerts.message import Message, card_of
from proxy.alerts.settings import WEEKDAYS, DigestSettings, Schedule
from proxy.alerts.text import dollars, moment
from proxy.incidents_model import Incident, short_hash

_MOST_CARDS = 20


def last_due(schedule: Schedule, now: float) -> float:
    """The newest moment at or before ``now`` at which the schedule was due.

    >>> from proxy.alerts.settings import Schedule
    >>> daily = Schedule(every="day", at="08:00", receiver="r")
    >>> last_due(daily, 86_400.0 + 7 * 3600), last_due(daily, 86_400.0 + 9 * 3600)
    (28800.0, 115200.0)
    """
    zone = ZoneInfo(schedule.timezone)
    day = datetime.fromtimestamp(now, zone).date()
    clock = time.fromisoformat(schedule.at)
    for back in range(64):
        there = day - timedelta(days=back)
        fits = (
            schedule.every == "day"
            or (schedule.every == "week" and WEEKDAYS[there.weekday()] == schedule.weekday)
            or (schedule.every == "month" and there.day == 1)
        )
        due = datetime.combine(there, clock, zone).timestamp()
        if fits and due <= now:
            return due
    return 0.0


def span_of(schedule: Schedule, due: float) -> tuple[float, float]:
    """The period that a digest or report due then looks back on, epoch seconds."""
    zone = ZoneInfo(schedule.timezone)
    end = datetime.fromtimestamp(due, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    if schedule.every == "month":
        start = (end - timedelta(days=1)).replace(day=1)
    else:
        start = end - timedelta(days=7 if schedule.every == "week" else 1)
    return start.timestamp(), end.timestamp()


def digest(
    settings: DigestSettings, incidents: Sequence[Incident], due: float, external_url: str
) -> Message | None:
    """The digest that was due then; ``None`` where nothing happened."""
    tiers = {Tier[name.upper()] for name in settings.tiers}
    listed = sorted(
        (i for i in incidents if i.worst in tiers), key=lambda i: i.opened_at, reverse=True
    )
    if not listed:
        return None
    start, end = span_of(settings, due)
    counts = Counter(str(i.signal).replace("_", " ") for i in listed)
    cost = sum(i.cost_nano_usd for i in listed)
    lines = (
        f"{moment(start)} to {moment(end)}: {len(listed)} incidents, {dollars(cost)} meanwhile.",
        ", ".join(f"{name} {count}" for name, count in counts.most_common()),
    )
    lane = short_hash("digest", settings.receiver, settings.every, settings.at)
    return Message(
        id=f"msg_{short_hash(lane, str(due))}",
        receiver=settings.receiver,
        kind="digest",
        lane=lane,
        title=f"{settings.every.capitalize()}ly digest".replace("Dayly", "Daily"),
        cards=tuple(card_of(incident, external_url) for incident in listed[:_MOST_CARDS]),
        created_at=due,
        lines=lines,
    )
