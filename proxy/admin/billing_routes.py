"""Daily spend looked at as billing systems do: outlying days, the trend, the forecast.

Owns: ``/billing/anomalies``, ``/billing/anomalies/trends`` and
``/api/v1/forecast``, whose keys are a promise. Must never: count a project
that the caller may not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from statistics import fmean, pstdev
from typing import Any

from aiohttp import web

from detection.forecast import forecast
from detection.types import TOTAL, Dimension, Series
from proxy.admin.billing_openapi import OPENAPI_PATHS
from proxy.admin.deps import AdminDeps
from proxy.admin.guard import json_response
from proxy.admin.incident_routes import guarded
from proxy.admin.principal import principal_of
from proxy.store.counters import Counters
from proxy.store.series import DAY, HOUR, Counts, Resolution

__all__ = ["OPENAPI_PATHS", "routes"]

NANO = 1_000_000_000
_DAY_SECONDS = 86_400
_LEAST_DAYS, _MOST_DAYS = 7, 90
_SIGMA = {"high": 2.0, "medium": 3.0, "low": 4.0}
_SEVERITIES = ((5.0, "high"), (3.0, "medium"), (2.0, "low"))
_HISTORY_SECONDS = 35 * _DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day's use."""

    start: float
    counts: Counts

    @property
    def usd(self) -> float:
        """What it cost."""
        return self.counts.cost_nano_usd / NANO

    def as_dict(self) -> dict[str, Any]:
        """As told to billing systems."""
        return {
            "date": datetime.fromtimestamp(self.start, UTC).date().isoformat(),
            "total_cost_usd": round(self.usd, 9),
            "total_tokens": self.counts.tokens,
            "llm_calls": self.counts.requests,
        }


def find_anomalies(days: Sequence[Day], sensitivity: str, sigma: float) -> dict[str, Any]:
    """Days whose cost is above mean + sigma standard deviations and at least twice the mean.

    Mean and deviation are of the days with data. The newest day is judged too,
    though it isn't over: what it has spent is spent.

    Examples
    --------
    >>> flat = [Day(d * 86400.0, Counts(1, NANO)) for d in range(20)]
    >>> found = find_anomalies([*flat, Day(20 * 86400.0, Counts(9, 8 * NANO))], "medium", 3.0)
    >>> [(a["date"], a["severity"], a["spike_ratio"]) for a in found["anomalies"]]
    [('1970-01-21', 'high', 6.0)]
    """
    used = [day for day in days if day.counts.requests]
    answer: dict[str, Any] = {
        "anomalies": [],
        "avg_daily_usage": 0.0,
        "std_daily_usage": 0.0,
        "threshold": 0.0,
        "total_days_analyzed": len(days),
        "days_with_data": len(used),
        "sensitivity": sensitivity,
        "sigma_level": sigma,
    }
    if len(used) < _LEAST_DAYS:
        message = f"{len(used)} days with data; at least {_LEAST_DAYS} are needed"
        return {**answer, "error": "insufficient_data", "message": message}
    costs = [day.usd for day in used]
    mean, deviation = fmean(costs), pstdev(costs)
    threshold = mean + sigma * deviation
    answer |= {
        "avg_daily_usage": round(mean, 9),
        "std_daily_usage": round(deviation, 9),
        "threshold": round(threshold, 9),
    }
    expected = {"min": round(max(0.0, mean - sigma * deviation), 9), "max": round(threshold, 9)}
    for day in used:
        ratio = day.usd / mean if mean > 0 else 0.0
        severity = next((name for least, name in _SEVERITIES if ratio >= least), None)
        if day.usd > threshold and severity is not None:
            answer["anomalies"].append(
                {
                    **day.as_dict(),
                    "expected_range": expected,
                    "spike_ratio": round(ratio, 2),
                    "severity": severity,
                    "deviation_from_mean": round(day.usd - mean, 9),
                    "std_deviations": round((day.usd - mean) / deviation, 2),
                }
            )
    return answer


def find_trend(days: Sequence[Day]) -> float | None:
    """Per cent by which the later half of the days costs more than the earlier, a day.

    >>> find_trend([Day(0.0, Counts(1, 100)), Day(1.0, Counts(1, 150))])
    50.0
    """
    half = len(days) // 2
    if not half:
        return None
    earlier, later = fmean(d.usd for d in days[:half]), fmean(d.usd for d in days[-half:])
    return round((later / earlier - 1.0) * 100.0, 2) if earlier > 0 else None


def routes(deps: AdminDeps) -> list[web.RouteDef]:
    """To be mounted by the server."""

    async def anomalies(request: web.Request) -> web.Response:
        word = request.query.get("sensitivity", "medium")
        answer = find_anomalies(await _days(deps, request), word, _sigma(word))
        return json_response(answer)

    async def trends(request: web.Request) -> web.Response:
        days = await _days(deps, request)
        rows = [day.as_dict() for day in days]
        trend = find_trend(days)
        return json_response(
            {"daily_usage": rows, "trend_percent": trend, "days_analyzed": len(days)}
        )

    async def ahead(request: web.Request) -> web.Response:
        now = deps.clock()
        hours = await _summed(deps, request, HOUR, now - _HISTORY_SECONDS, now)
        start, end = month_of(now)
        made = forecast(
            [(ts, counts.cost_nano_usd) for ts, counts in hours.items()],
            now=now,
            period_start=start,
            period_end=end,
            budget=_budget(request.query),
        )
        body = None if made is None else asdict(made)
        state = "learning" if made is None else "ready"
        return json_response({"now": now, "period_start": start, "state": state, "forecast": body})

    return guarded(
        [
            web.get("/billing/anomalies", anomalies),
            web.get("/billing/anomalies/trends", trends),
            web.get("/api/v1/forecast", ahead),
        ]
    )


def month_of(now: float) -> tuple[float, float]:
    """Start and end of the UTC month that ``now`` lies in, epoch seconds."""
    start = datetime.fromtimestamp(now, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    end = (start + timedelta(days=32)).replace(day=1)
    return start.timestamp(), end.timestamp()


def _sigma(word: str) -> float:
    if word in _SIGMA:
        return _SIGMA[word]
    try:
        sigma = float(word)
    except ValueError:
        sigma = 0.0
    if not 1.5 <= sigma <= 5.0:
        raise web.HTTPBadRequest(
            text="sensitivity must be high, medium, low or a number from 1.5 to 5"
        )
    return sigma


def _budget(query: Mapping[str, str]) -> int | None:
    given = query.get("budget_usd")
    if given is None:
        return None
    try:
        dollars = float(given)
    except ValueError:
        dollars = -1.0
    if not 0 < dollars <= 1e9:
        raise web.HTTPBadRequest(text="budget_usd must be a number above 0")
    return round(dollars * NANO)


async def _days(deps: AdminDeps, request: web.Request) -> list[Day]:
    """Every day of the span, without gaps."""
    try:
        span = int(request.query.get("days", "30"))
    except ValueError:
        span = 0
    if not _LEAST_DAYS <= span <= _MOST_DAYS:
        raise web.HTTPBadRequest(text=f"days must lie between {_LEAST_DAYS} and {_MOST_DAYS}")
    today = deps.clock() // _DAY_SECONDS * _DAY_SECONDS
    first = today - (span - 1) * _DAY_SECONDS
    found = await _summed(deps, request, DAY, first, today + _DAY_SECONDS)
    starts = [first + place * _DAY_SECONDS for place in range(span)]
    return [Day(start, found.get(start, Counts())) for start in starts]


def _asked(request: web.Request) -> list[Series]:
    """The series that the caller asks for, or may see where it asks for none."""
    principal = principal_of(request)
    project = request.query.get("project")
    dimension = request.query.get("dimension")
    if dimension is not None and dimension not in (Dimension.TOTAL, Dimension.PROJECT):
        if principal.projects is not None:
            raise web.HTTPNotFound(text="not found")
        if dimension not in list(Dimension):
            raise web.HTTPBadRequest(text=f"no such dimension: {dimension[:40]}")
        return [Series(dimension, request.query.get("value", ""))]
    if dimension == Dimension.PROJECT:
        project = request.query.get("value", project or "")
    if project is not None:
        if not principal.allows_project(project):
            raise web.HTTPNotFound(text="not found")
        return [Series(Dimension.PROJECT, project)]
    if principal.projects is None:
        return [TOTAL]
    return [Series(Dimension.PROJECT, name) for name in sorted(principal.projects)]


async def _summed(
    deps: AdminDeps, request: web.Request, resolution: Resolution, start: float, end: float
) -> dict[float, Counts]:
    """Buckets of all asked series, added up."""
    wanted = _asked(request)
    if deps.store is None:
        raise web.HTTPServiceUnavailable(text="this process has no store")
    counters: Counters = deps.store.counters
    sums: dict[float, Counts] = {}
    for series in wanted:
        for ts, counts in await counters.history(series, resolution, start, end):
            sums[ts] = sums[ts].plus(counts) if ts in sums else counts
    return sums
