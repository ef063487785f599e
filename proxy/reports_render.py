"""Reports as JSON, CSV and HTML with charts; PDF stands in :mod:`proxy.reports_pdf`.

Owns: the layout. Must never: need anything from outside to be read: no
script, no font, no picture by URL.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape

from proxy.alerts.text import dollars, moment
from proxy.reports import Report, Row, day_name

MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "html": "text/html",
    "pdf": "application/pdf",
}
TITLES = {"project": "Teams", "model": "Models", "agent": "Agents", "key": "Keys"}


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
        return to_html(report).encode()
    if form == "pdf":
        from proxy.reports_pdf import to_pdf

        return to_pdf(report)
    raise ValueError(f"format must be one of {', '.join(MEDIA_TYPES)}, not {form!r}")


def day_bars(report: Report, width: float, height: float) -> list[Bar]:
    """Spend by day as upright bars."""
    most = max((cost for _, cost in report.days), default=0) or 1
    step = width / max(1, len(report.days))
    return [
        Bar(
            place * step + step * 0.1,
            height - cost / most * height,
            step * 0.8,
            cost / most * height,
            day_name(ts),
            dollars(cost),
        )
        for place, (ts, cost) in enumerate(report.days)
    ]


def share_bars(rows: Sequence[Row], width: float, line: float) -> list[Bar]:
    """Shares as level bars, one line each."""
    most = max((row.share for row in rows), default=0.0) or 1.0
    return [
        Bar(0, place * line, row.share / most * width, line * 0.7, row.value, f"{row.share:.1%}")
        for place, row in enumerate(rows)
    ]


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
    for one in report.suggestions:
        kind = f"suggested {one.period} limit"
        limit = round(one.limit_usd * 1e9)
        writer.writerow([kind, f"{one.dimension}:{one.value}", "", "", "", "", limit, ""])
    return out.getvalue()


def headline(report: Report) -> list[tuple[str, str]]:
    """The figures that come first."""
    found, ahead = report.anomalies, report.forecast
    wait = found.seconds_to_detect
    lines = [
        ("Spend", dollars(report.total.cost_nano_usd)),
        ("Calls", f"{report.total.requests:,}"),
        ("Tokens", f"{report.total.tokens:,}"),
        ("Incidents", f"{found.incidents} ({found.false_alarms} false alarms)"),
        ("Time to detect", "–" if wait is None else f"{wait:.0f} s (median)"),
        ("Let through", dollars(found.let_through)),
        ("Stopped", f"about {dollars(found.stopped)}"),
    ]
    if ahead is not None:
        span = f"{dollars(ahead.low)} to {dollars(ahead.high)}"
        lines.append(("Month's end", f"{dollars(ahead.expected)} ({span})"))
    return lines


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#16202e}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}
table{border-collapse:collapse;width:100%}th,td{padding:.3em .6em;text-align:right}
th:first-child,td:first-child{text-align:left}tr+tr{border-top:1px solid #d8dee8}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(11em,1fr));gap:1em}
dt{color:#5a6778;font-size:.85em}dd{margin:0;font-size:1.15em;font-weight:600}
svg{width:100%;height:auto}rect{fill:#2563eb}text{font-size:11px;fill:#5a6778}
@media(prefers-color-scheme:dark){body{background:#0f1623;color:#e6ebf2}
tr+tr{border-color:#2b3648}rect{fill:#60a5fa}dt,text{color:#9aa7b8;fill:#9aa7b8}}
"""


def to_html(report: Report) -> str:
    """A page that stands alone."""
    head = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in headline(report)
    )
    parts = [f"<dl>{head}</dl>", "<h2>Spend by day</h2>", _day_chart(report)]
    for name, rows in report.tables.items():
        if rows:
            parts += [f"<h2>{TITLES[name]}</h2>", _share_chart(rows[:10]), _table(rows)]
    found = report.anomalies
    counts = [("Severity", found.by_severity), ("Cause", found.by_cause)]
    for title, table in counts:
        rows_html = "".join(
            f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{count}</td></tr>"
            for name, count in table.items()
        )
        parts.append(f"<h2>Incidents by {title.lower()}</h2><table>{rows_html}</table>")
    if report.suggestions:
        rows_html = "".join(
            f"<tr><td>{escape(one.dimension)} {escape(one.value)}</td>"
            f"<td>${one.limit_usd:,.2f} a {one.period}</td><td>{escape(one.why)}</td></tr>"
            for one in report.suggestions
        )
        parts.append(f"<h2>Suggested budgets and limits</h2><table>{rows_html}</table>")
    scope = f" for {escape(report.project)}" if report.project else ""
    span = f"{moment(report.start)} to {moment(report.end)}"
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>{escape(report.title)}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{escape(report.title)}{scope}</h1>"
        f"<p>{span}; made {moment(report.made_at)}.</p>{''.join(parts)}</body></html>"
    )


def _table(rows: Sequence[Row]) -> str:
    lines = "".join(
        f"<tr><td>{escape(row.value)}</td><td>{row.requests:,}</td><td>{row.tokens:,}</td>"
        f"<td>{row.errors:,}</td><td>{row.refused:,}</td><td>{dollars(row.cost_nano_usd)}</td>"
        f"<td>{row.share:.1%}</td></tr>"
        for row in rows
    )
    names = ("", "Calls", "Tokens", "Errors", "Refused", "Cost", "Share")
    head = "".join(f"<th scope='col'>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{lines}</table>"


def _day_chart(report: Report) -> str:
    width, height = 720.0, 160.0
    bars = day_bars(report, width, height)
    rects = "".join(
        f"<rect x='{b.x:.1f}' y='{b.y:.1f}' width='{b.width:.1f}' height='{b.height:.1f}'>"
        f"<title>{b.label}: {b.value}</title></rect>"
        for b in bars
    )
    ends = ""
    if bars:
        ends = (
            f"<text x='0' y='{height + 16}'>{bars[0].label}</text>"
            f"<text x='{width}' y='{height + 16}' text-anchor='end'>{bars[-1].label}</text>"
        )
    return (
        f"<svg viewBox='0 0 {width:.0f} {height + 22:.0f}' role='img' "
        f"aria-label='Spend by day'>{rects}{ends}</svg>"
    )


def _share_chart(rows: Sequence[Row]) -> str:
    line, left, width = 22.0, 220.0, 440.0
    rects = "".join(
        f"<text x='0' y='{b.y + 14:.0f}'>{escape(b.label[:34])}</text>"
        f"<rect x='{left}' y='{b.y:.1f}' width='{max(b.width, 1):.1f}' height='{b.height:.1f}'/>"
        f"<text x='{left + b.width + 6:.1f}' y='{b.y + 14:.0f}'>{b.value}</text>"
        for b in share_bars(rows, width, line)
    )
    return (
        f"<svg viewBox='0 0 720 {line * len(rows):.0f}' role='img' "
        f"aria-label='Share of spend'>{rects}</svg>"
    )
