"""A series month by month: this one against the last, day for day.

Owns: ``/api/v1/series/months``. Must never: compare a month that runs with a whole
one; only days that are over on both sides count in the change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

from aiohttp import web

from detection.types import Dimension, Series
from proxy.admin.deps import AdminDeps
from proxy.admin.openapi import query
from proxy.admin.principal import require_all_projects, require_project
from proxy.admin.tables import FORMATS, table_response
from proxy.admin.usage_routes import COUNTED, dimension_of, parameter
from proxy.store.series import Counts

_DAY = 86_400
_MOST_MONTHS = 13
_COLUMNS = ("cost_nano_usd", "requests", "errors", "input_tokens", "output_tokens")


def month_start(at: float, back: int = 0) -> float:
    """Start of the UTC month that holds ``at``, or of one ``back`` months earlier.

    >>> datetime.fromtimestamp(month_start(1_772_409_600.0, 1), UTC).date().isoformat()
    '2026-02-01'
    """
    first = datetime.fromtimestamp(at, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    for _ in range(back):
        first = (first - timedelta(days=1)).replace(day=1)
    return first.timestamp()


def compare(days: Mapping[float, Counts], now: float) -> dict[str, Any]:
    """Months' sums, and the running month against the one before.

    Parameters
    ----------
    days
        Counts by start of the UTC day, epoch seconds.
    now
        Epoch seconds; its own day is told and not compared.
    """
    start, before = month_start(now), month_start(now, 1)
    over = int((now - start) // _DAY)
    over = min(over, int((start - before) // _DAY))
    this = [start + n * _DAY for n in range(over)]
    last = [before + n * _DAY for n in range(int((start - before) // _DAY))]
    today = [start + over * _DAY] if now < start + (over + 1) * _DAY else []
    length = max(len(last), len(this + today))
    sums = {name: (_sum(days, this, name), _sum(days, last[:over], name)) for name in _COLUMNS}
    return {
        "now": now,
        "days_compared": over,
        "this_month": {name: both[0] for name, both in sums.items()},
        "same_days_before": {name: both[1] for name, both in sums.items()},
        "change": {
            name: round(new / old - 1, 4) if old else None for name, (new, old) in sums.items()
        },
        "curve": {
            "times": [start + n * _DAY for n in range(length)],
            "this_month": _running(days, this + today, length),
            "month_before": _running(days, last, length),
        },
    }


def by_month(days: Mapping[float, Counts], now: float) -> list[dict[str, Any]]:
    """A row for each month with calls, the newest first."""
    rows: dict[str, dict[str, Any]] = {}
    for at in sorted(days, reverse=True):
        if at < month_start(now, _MOST_MONTHS - 1):
            break
        name = f"{datetime.fromtimestamp(at, UTC):%Y-%m}"
        row = rows.setdefault(name, {"month": name, "days": 0, **dict.fromkeys(_COLUMNS, 0)})
        row["days"] += 1
        for column in _COLUMNS:
            row[column] += getattr(days[at], column)
    return list(rows.values())


def _sum(days: Mapping[float, Counts], starts: Sequence[float], name: str) -> int:
    return sum(getattr(days[at], name) for at in starts if at in days)


def _running(
    days: Mapping[float, Counts], starts: Sequence[float], length: int
) -> list[int | None]:
    """Spend since the month began, at the end of each day; ``None`` where nothing is known."""
    if not any(at in days for at in starts):
        return [None] * length
    sums = accumulate(days[at].cost_nano_usd if at in days else 0 for at in starts)
    return [*sums, *[None] * (length - len(starts))]


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""

    async def months(request: web.Request) -> web.Response:
        by = dimension_of(request)
        value = request.query.get("value", "")
        if by == Dimension.PROJECT:
            require_project(request, value)
        else:
            require_all_projects(request)
        now = deps.clock()
        rows = await deps.reader.days(Series(by, value), month_start(now, _MOST_MONTHS - 1))
        days = {at: counts for at, counts in rows if counts.requests or counts.refused}
        return table_response(
            request, f"months-{by}", by_month(days, now), {"by": by, "value": value}
            | compare(days, now)
        )  # fmt: skip

    return [web.get("/api/v1/series/months", months)]


OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/series/months": {
        "get": {
            "summary": "A series month by month, and this month against the same days of the last",
            "parameters": [
                parameter("by", list(COUNTED)),
                query("value", {"type": "string"}, "The series' value"),
                parameter("format", list(FORMATS), "json"),
            ],
            "responses": {
                "200": {"description": "Rows by month, sums, changes and running sums by day"},
                "404": {"$ref": "#/components/responses/Error"},
                "503": {"$ref": "#/components/responses/Error"},
            },
        }
    }
}
