"""What a period cost, what went wrong in it, and what limits would suit.

Owns: the figures of a report, all from the store's counters and the incident
history. Must never: lay anything out (:mod:`proxy.reports_render` does), or
count a project that wasn't asked for.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from detection.forecast import Forecast, forecast
from detection.story import scope_words
from detection.types import TOTAL, Dimension, Series, Tier
from proxy.alerts.message import Attachment, Message
from proxy.alerts.settings import ReportSchedule
from proxy.alerts.text import clean, dollars
from proxy.incidents_model import Incident, State, short_hash
from proxy.incidents_store import IncidentStore
from proxy.store.counters import Counters
from proxy.store.series import DAY, HOUR, Counts

DAY_SECONDS = 86_400.0
_MOST_VALUES = 500
_LISTED = 50
_EVENTS = 15
_FORECAST_SECONDS = 35 * DAY_SECONDS
#: Room above what was seen: budgets by the month, limits by the busiest day.
_BUDGET_ROOM, _LIMIT_ROOM = 1.25, 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """One team's, model's, agent's or key's part of the period."""

    value: str
    requests: int
    tokens: int
    errors: int
    refused: int
    cost_nano_usd: int
    share: float
    busiest_day_nano_usd: int


@dataclass(frozen=True, slots=True)
class Event:
    """One incident of the period, as people read of it. Times in epoch seconds."""

    id: str
    opened_at: float
    severity: str
    state: str
    scope: str
    signal: str
    story: str
    cost_nano_usd: int
    seconds_to_detect: float
    root_cause: str


@dataclass(frozen=True, slots=True)
class Anomalies:
    """What happened in the period. Money in nano-USD.

    ``let_through`` is what incidents cost while they stood. ``stopped`` is an
    estimate: refused calls at the mean cost of the same key's other calls.
    ``seconds_to_detect`` is the median from the change to the incident. ``worst``
    holds the gravest, dearest first.
    """

    by_severity: dict[str, int]
    by_cause: dict[str, int]
    incidents: int
    false_alarms: int
    seconds_to_detect: float | None
    let_through: int
    stopped: int
    worst: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A budget or limit that would have held, with room."""

    dimension: str
    value: str
    period: str
    limit_usd: float
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one period, epoch seconds and nano-USD."""

    title: str
    start: float
    end: float
    made_at: float
    project: str | None
    total: Row
    days: tuple[tuple[float, int], ...]
    tables: dict[str, tuple[Row, ...]]
    anomalies: Anomalies
    forecast: Forecast | None
    suggestions: tuple[Suggestion, ...]
    #: What the same span before this one cost; ``None`` where nothing was counted then.
    previous_nano_usd: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            **asdict(self),
            "days": [{"date": day_name(start), "cost_nano_usd": cost} for start, cost in self.days],
        }


def day_name(ts: float) -> str:
    """The UTC date of epoch seconds."""
    return datetime.fromtimestamp(ts, UTC).date().isoformat()


def period_of(text: str, now: float) -> tuple[float, float, str]:
    """Start, end and name of a period: ``day``, ``week``, ``month`` so far, or ``2026-11``.

    Raises
    ------
    ValueError
        Naming what can be said.

    Examples
    --------
    >>> period_of("1970-02", 0.0)
    (2678400.0, 5097600.0, '1970-02')
    >>> period_of("day", 90_000.0)
    (86400.0, 90000.0, '1970-01-02')
    """
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if text == "day":
        return today.timestamp(), now, today.date().isoformat()
    if text == "week":
        monday = today - timedelta(days=today.weekday())
        return monday.timestamp(), now, f"week of {monday.date().isoformat()}"
    if text == "month":
        return today.replace(day=1).timestamp(), now, today.strftime("%Y-%m")
    try:
        start = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(
            f"period must be day, week, month or a month like 2026-11, not {text!r}"
        ) from None
    return start.timestamp(), (start + timedelta(days=32)).replace(day=1).timestamp(), text


async def make_report(
    counters: Counters,
    incidents: IncidentStore,
    *,
    start: float,
    end: float,
    now: float,
    title: str,
    project: str | None = None,
) -> Report:
    """Gather a report; with ``project`` only what is counted by project alone."""
    scope = TOTAL if project is None else Series(Dimension.PROJECT, project)
    days = await counters.history(scope, DAY, start, end - 1)
    earlier = await counters.history(scope, DAY, start - (end - start), start - 1)
    total = _row(project or "all", days, None)
    tables: dict[str, tuple[Row, ...]] = {}
    if project is None:
        for name in (Dimension.PROJECT, Dimension.MODEL, Dimension.AGENT, Dimension.KEY):
            tables[str(name)] = await _table(counters, name, start, end, total.cost_nano_usd)
    found = await incidents.search(
        lambda i: project is None or i.projects == (project,),
        since=start,
        until=end,
        limit=5_000,
    )
    hours = await counters.history(scope, HOUR, now - _FORECAST_SECONDS, now)
    month = datetime.fromtimestamp(now, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    ahead = forecast(
        [(ts, counts.cost_nano_usd) for ts, counts in hours],
        now=now,
        period_start=month.timestamp(),
        period_end=(month + timedelta(days=32)).replace(day=1).timestamp(),
    )
    spans = {ts: counts.cost_nano_usd for ts, counts in days}
    first = start // DAY_SECONDS * DAY_SECONDS
    line = [first + DAY_SECONDS * step for step in range(int((end - 1 - first) // DAY_SECONDS) + 1)]
    return Report(
        title=title,
        start=start,
        end=end,
        made_at=now,
        project=project,
        total=total,
        days=tuple((ts, spans.get(ts, 0)) for ts in line),
        tables=tables,
        anomalies=_anomalies(found, tables.get(str(Dimension.KEY), (total,))),
        forecast=ahead,
        suggestions=tuple(_suggest(tables, len(line))),
        previous_nano_usd=sum(c.cost_nano_usd for _, c in earlier) if earlier else None,
    )


async def _table(
    counters: Counters, dimension: Dimension, start: float, end: float, total: int
) -> tuple[Row, ...]:
    """A dimension's values, dearest first; the dearest are listed, the rest summed."""
    values = await counters.series_list(dimension, _MOST_VALUES)
    found = await asyncio.gather(
        *(counters.history(Series(dimension, v), DAY, start, end - 1) for v, _ in values)
    )
    rows = [
        _row(value, days, total)
        for (value, _), days in zip(values, found, strict=True)
        if any(counts.requests or counts.refused for _, counts in days)
    ]
    rows.sort(key=lambda row: (-row.cost_nano_usd, row.value))
    return tuple(rows[:_LISTED])


def _row(value: str, days: Sequence[tuple[float, Counts]], total: int | None) -> Row:
    whole = Counts()
    for _, counts in days:
        whole = whole.plus(counts)
    share = 1.0 if total is None else whole.cost_nano_usd / total if total else 0.0
    return Row(
        value=clean(value, 120),
        requests=whole.requests,
        tokens=whole.tokens,
        errors=whole.errors,
        refused=whole.refused,
        cost_nano_usd=whole.cost_nano_usd,
        share=share,
        busiest_day_nano_usd=max((counts.cost_nano_usd for _, counts in days), default=0),
    )


def _anomalies(found: Sequence[Incident], keys: Sequence[Row]) -> Anomalies:
    told = [i for i in found if i.state != State.DISMISSED]
    waits = [i.opened_at - i.since for i in told]
    severity = Counter(incident.worst for incident in found)
    cause = Counter(str(incident.signal) for incident in found)
    return Anomalies(
        by_severity={tier.label: severity[tier] for tier in sorted(Tier, reverse=True) if tier},
        by_cause=dict(cause.most_common()),
        incidents=len(found),
        false_alarms=len(found) - len(told),
        seconds_to_detect=median(waits) if waits else None,
        let_through=sum(incident.cost_nano_usd for incident in told),
        stopped=sum(
            round(row.cost_nano_usd / row.requests * row.refused) for row in keys if row.requests
        ),
        worst=tuple(
            _event(incident)
            for incident in sorted(found, key=lambda i: (i.cost_nano_usd, i.worst), reverse=True)
        )[:_EVENTS],
    )


def _event(incident: Incident) -> Event:
    return Event(
        id=incident.id,
        opened_at=incident.opened_at,
        severity=incident.worst.label,
        state=str(incident.state),
        scope=clean(scope_words(incident.series), 120),
        signal=str(incident.signal),
        story=clean(incident.story, 400),
        cost_nano_usd=incident.cost_nano_usd,
        seconds_to_detect=incident.opened_at - incident.since,
        root_cause=clean(incident.root_cause or incident.resolution, 200),
    )


def _suggest(tables: dict[str, tuple[Row, ...]], days: int) -> list[Suggestion]:
    """Monthly budgets by project, daily limits by agent."""
    made = []
    for row in tables.get(str(Dimension.PROJECT), ())[:10]:
        month = row.cost_nano_usd / max(days, 1) * 30.44
        made.append(
            Suggestion(
                "project",
                row.value,
                "month",
                _round_up(month * _BUDGET_ROOM),
                f"{dollars(month)} a month at this rate, and a quarter more",
            )
        )
    made += [
        Suggestion(
            "agent",
            row.value,
            "day",
            _round_up(row.busiest_day_nano_usd * _LIMIT_ROOM),
            f"twice its busiest day, {dollars(row.busiest_day_nano_usd)}",
        )
        for row in tables.get(str(Dimension.AGENT), ())[:10]
    ]
    return [one for one in made if one.limit_usd > 0]


def _round_up(nano_usd: float) -> float:
    """Dollars rounded up to two digits that matter.

    >>> _round_up(1_234_000_000_000), _round_up(0.0)
    (1300.0, 0.0)
    """
    usd = nano_usd / 1e9
    if usd <= 0:
        return 0.0
    step: float = 10.0 ** (len(str(int(usd))) - 2) if usd >= 1 else 0.01
    return round(-(-usd // step) * step, 2)


Made = Callable[[ReportSchedule, float, float], Awaitable[Message | None]]


def scheduled(counters: Counters, incidents: IncidentStore, clock: Callable[[], float]) -> Made:
    """What the alert service calls when a report is due."""

    async def made(schedule: ReportSchedule, start: float, end: float) -> Message | None:
        from proxy.reports_render import MEDIA_TYPES, render

        title = f"Tokenweir report {day_name(start)} to {day_name(end - 1)}"
        report = await make_report(
            counters,
            incidents,
            start=start,
            end=end,
            now=clock(),
            title=title,
            project=schedule.project,
        )
        body = await asyncio.to_thread(render, report, schedule.format)
        name = f"tokenweir-{day_name(start)}.{schedule.format}"
        kind = MEDIA_TYPES[schedule.format]
        lane = short_hash("report", schedule.receiver, schedule.every, schedule.format)
        found = report.anomalies
        lines = (
            f"{dollars(report.total.cost_nano_usd)} over {report.total.requests:,} calls.",
            f"{found.incidents} incidents, {found.false_alarms} of them false alarms; "
            f"{dollars(found.let_through)} let through, about {dollars(found.stopped)} stopped.",
        )
        return Message(
            id=f"msg_{short_hash(lane, str(end))}",
            receiver=schedule.receiver,
            kind="report",
            lane=lane,
            title=title,
            cards=(),
            created_at=end,
            lines=lines,
            attachment=Attachment(name, kind, base64.b64encode(body).decode()),
        )

    return made
