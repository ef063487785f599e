"""Reports as files: JSON and CSV here, pages in ``reports_html`` and ``reports_pdf``.

Owns: what is said first, the geometry of the charts, the forms without layout.
Must never: work out a figure that :mod:`proxy.reports` did not.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass

from proxy.alerts.text import dollars
from proxy.reports import Report, Row, day_name

MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "html": "text/html",
    "pdf": "application/pdf",
}
TITLES = {
    "project": "Spend by team",
    "model": "Spend by model",
    "agent": "Spend by agent",
    "key": "Spend by key",
}
NOTES = (
    "Money is counted call by call in billionths of a dollar, from the tokens that the providers "
    "report and their list prices or your own.",
    "Let through: what calls of an incident's scope cost from its onset to its end. Stopped: an "
    "estimate, refused calls at the mean cost of the same key's other calls.",
    "Suggested budgets: the month at this rate and a quarter more. Suggested limits: twice the "
    "busiest day.",
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle of a chart with its label, in the chart's own units."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: str


def render(report: Report, form: str) -> bytes:
    """The report as a file."""
    if form == "json":
        return json.dumps(report.as_dict(), indent=2).encode()
    if form == "csv":
        return to_csv(report).encode()
    if form == "html":
        from proxy.reports_html import to_html

        return to_html(report).encode()
    if form == "pdf":
        from proxy.reports_pdf import to_pdf

        return to_pdf(report)
    raise ValueError(f"format must be one of {', '.join(MEDIA_TYPES)}, not {form!r}")


def day_bars(report: Report, width: float, height: float) -> list[Bar]:
    """Spend by day as upright bars under the scale of :func:`scale_of`."""
    top = scale_of(report)[-1]
    step = width / max(1, len(report.days))
    return [
        Bar(
            place * step + step * 0.12,
            height - cost / 1e9 / top * height,
            step * 0.76,
            cost / 1e9 / top * height,
            day_name(ts),
            dollars(cost),
        )
        for place, (ts, cost) in enumerate(report.days)
    ]


def scale_of(report: Report) -> list[float]:
    """The steps of the days' scale in dollars, round numbers from zero to above the most.

    >>> _steps(37.0)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    return _steps(max((cost for _, cost in report.days), default=0) / 1e9)


def _steps(most: float) -> list[float]:
    if most <= 0:
        return [0.0, 1.0]
    power: float = 10.0 ** math.floor(math.log10(most / 4))
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power * 5 >= most)
    return [step * place for place in range(math.ceil(most / step) + 1)]


def short_dollars(usd: float) -> str:
    """Dollars for a scale.

    >>> short_dollars(2_500.0), short_dollars(0.5), short_dollars(20.0)
    ('$2.5k', '$0.50', '$20')
    """
    if usd >= 1_000:
        return f"${usd / 1_000:g}k"
    return f"${usd:g}" if usd >= 1 or usd == 0 else f"${usd:.2f}"


def to_csv(report: Report) -> str:
    """One table: what kind of row it is stands first."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ["kind", "value", "requests", "tokens", "errors", "refused", "cost_nano_usd", "share"]
    )

    def add(kind: str, row: Row) -> None:
        held = asdict(row)
        value = held["value"]
        safe = f"'{value}" if value[:1] in ("=", "+", "-", "@") else value
        figures = ("requests", "tokens", "errors", "refused", "cost_nano_usd")
        writer.writerow([kind, safe, *(held[name] for name in figures), f"{row.share:.6f}"])

    add("total", report.total)
    for kind, rows in report.tables.items():
        for row in rows:
            add(kind, row)
    for ts, cost in report.days:
        writer.writerow(["day", day_name(ts), "", "", "", "", cost, ""])
    for name, count in report.anomalies.by_severity.items():
        writer.writerow(["incidents", name, count, "", "", "", "", ""])
    for event in report.anomalies.worst:
        told = f"{event.severity} {event.signal} {event.scope}"
        writer.writerow(["incident", told, "", "", "", "", event.cost_nano_usd, ""])
    for one in report.suggestions:
        kind = f"suggested {one.period} limit"
        limit = round(one.limit_usd * 1e9)
        writer.writerow([kind, f"{one.dimension}:{one.value}", "", "", "", "", limit, ""])
    return out.getvalue()


def span_of(report: Report) -> str:
    """The days that it is about."""
    return f"{day_name(report.start)} to {day_name(report.end - 1)}"


def mean_of(report: Report) -> str:
    """The mean of the days, in words."""
    mean = sum(cost for _, cost in report.days) / max(1, len(report.days))
    return f"mean {dollars(round(mean))} a day"


def headline(report: Report) -> list[tuple[str, str, str]]:
    """The figures that come first: name, figure, what to know beside it."""
    found, ahead, total = report.anomalies, report.forecast, report.total
    wait = found.seconds_to_detect
    million = total.cost_nano_usd / total.tokens * 1e6 if total.tokens else None
    return [
        ("Spend", dollars(total.cost_nano_usd), _against(report)),
        ("Calls", f"{total.requests:,}", f"{_per(total.errors, total.requests)} failed"),
        (
            "Tokens",
            large(total.tokens),
            "" if million is None else f"{dollars(round(million))} a million",
        ),
        (
            "Month's end",
            "–" if ahead is None else dollars(ahead.expected),
            "too little history for a forecast"
            if ahead is None
            else f"80 %: {dollars(ahead.low)} to {dollars(ahead.high)}",
        ),
        ("Incidents", f"{found.incidents:,}", f"{found.false_alarms:,} called false alarms"),
        ("Time to detect", "–" if wait is None else seconds(wait), "median, from the change on"),
        ("Let through", dollars(found.let_through), "what incidents cost while they stood"),
        ("Stopped", f"≈ {dollars(found.stopped)}", f"{total.refused:,} calls refused"),
    ]


def _against(report: Report) -> str:
    before = report.previous_nano_usd
    if not before:
        return "nothing was counted before"
    change = report.total.cost_nano_usd / before - 1
    return f"{change:+.0%} on {dollars(before)} before"


def _per(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def large(count: int) -> str:
    """A count in three digits.

    >>> large(12_345_678), large(980)
    ('12.3 M', '980')
    """
    for size, word in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= size:
            return f"{count / (size if word != 'k' else 1e3):,.1f} {word}"
    return f"{count:,}"


def seconds(wait: float) -> str:
    """A span as people say it.

    >>> seconds(0.4), seconds(95), seconds(7_300)
    ('under 1 s', '95 s', '2.0 h')
    """
    if wait < 1:
        return "under 1 s"
    if wait < 120:
        return f"{wait:.0f} s"
    return f"{wait / 60:.0f} min" if wait < 7_200 else f"{wait / 3_600:.1f} h"


def summary(report: Report) -> str:
    """The period in two sentences."""
    parts = [f"{dollars(report.total.cost_nano_usd)} were spent on {report.total.requests:,} calls"]
    for name, word in (("project", "team"), ("model", "model"), ("agent", "agent")):
        rows = report.tables.get(name, ())
        if rows and rows[0].share >= 0.2:
            parts.append(f"{word} {rows[0].value} had {rows[0].share:.0%} of it")
            break
    if report.days:
        ts, most = max(report.days, key=lambda day: day[1])
        if most:
            parts.append(f"the dearest day was {day_name(ts)} with {dollars(most)}")
    found = report.anomalies
    severe = sum(found.by_severity.get(name, 0) for name in ("critical", "emergency"))
    second = f"{found.incidents} incidents were opened, {severe} of them critical or worse."
    if found.incidents == 1:
        second = "One incident was opened."
    return "; ".join(parts) + f". {second if found.incidents else 'No incident was opened.'}"
