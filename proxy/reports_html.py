"""Reports as a page that stands alone, on screen and on paper.

Owns: the HTML and its look. Must never: need anything from outside to be read: no
script, no font, no picture by URL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from proxy.alerts.text import dollars, moment
from proxy.reports import Event, Report, Row
from proxy.reports_render import (
    NOTES,
    TITLES,
    day_bars,
    headline,
    large,
    mean_of,
    scale_of,
    seconds,
    short_dollars,
    span_of,
    summary,
)

_STYLE = """
:root{--ink:#14202f;--soft:#5b6b80;--line:#dfe5ee;--card:#f6f8fb;--page:#fff;--bar:#2f6fed;
--mean:#e08a00;--critical:#c62a3b;--warning:#b36b00;--info:#3b6fb6}
*{box-sizing:border-box}
body{font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);
background:var(--page);max-width:64em;margin:0 auto;padding:2.5em 1.5em}
header{display:flex;justify-content:space-between;align-items:flex-end;gap:2em;
border-bottom:3px solid var(--bar);padding-bottom:1em}
h1{font-size:1.7em;line-height:1.2;margin:0;letter-spacing:-.01em}
header p{margin:0;color:var(--soft);text-align:right;font-size:.9em}
.lead{font-size:1.08em;margin:1.4em 0}
h2{font-size:1.1em;margin:2.2em 0 .6em;letter-spacing:-.005em}
dl{display:grid;grid-template-columns:repeat(4,1fr);gap:.8em;margin:0}
dl div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8em 1em}
dt{color:var(--soft);font-size:.82em}dd{margin:0}
dd.figure{font-size:1.5em;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.35}
dd.beside{color:var(--soft);font-size:.8em;line-height:1.35}
svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--soft)}
.bar{fill:var(--bar)}.grid{stroke:var(--line)}.mean{stroke:var(--mean);stroke-dasharray:4 3}
small.mean-word{color:var(--mean);font-weight:400;margin-left:.6em}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);font-size:.82em;border-bottom:1px solid var(--line)}
th,td{padding:.42em .6em;text-align:right;vertical-align:top}
td{border-bottom:1px solid var(--line)}tr:last-child td{border-bottom:0}
th:first-child,td:first-child,.left{text-align:left}td:first-child{overflow-wrap:anywhere}
.share{display:flex;justify-content:flex-end;align-items:center;gap:.5em}
.share i{height:.62em;border-radius:2px;background:var(--bar);min-width:1px}
.share span{width:3.2em}
.tier{display:inline-block;border-radius:4px;padding:0 .5em;font-size:.82em;font-weight:600;
color:#fff;background:var(--info)}
.critical,.emergency{background:var(--critical)}.warning{background:var(--warning)}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:2em}
td small{color:var(--soft)}.none{color:var(--soft)}
footer{margin-top:3em;padding-top:1em;border-top:1px solid var(--line);color:var(--soft);
font-size:.82em}footer p{margin:.3em 0}
@media(max-width:44em){dl,.pair{grid-template-columns:1fr 1fr}header{display:block}
header p{text-align:left}}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf4;--soft:#9aa8ba;--line:#2a3646;
--card:#182230;--page:#0f1722;--bar:#6a9bff;--mean:#f0a83c}}
@media print{:root{--ink:#14202f;--soft:#5b6b80;--line:#dfe5ee;--card:#f6f8fb;--page:#fff;
--bar:#2f6fed}body{padding:0;font-size:11px}h2{break-after:avoid}tr,dl div,svg{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def to_html(report: Report) -> str:
    """The whole page."""
    tables = [
        f"<h2>{TITLES[name]}</h2>{_table(rows, name)}"
        for name, rows in report.tables.items()
        if rows
    ]
    scope = f"Team {escape(report.project)}" if report.project else "All teams"
    parts = [
        f"<header><h1>{escape(report.title)}</h1><p>{scope}<br>{span_of(report)}<br>"
        f"made {moment(report.made_at)}</p></header>",
        f"<p class='lead'>{escape(summary(report))}</p>",
        _figures(report),
        f"<h2>Spend by day <small class='mean-word'>{escape(mean_of(report))}</small></h2>",
        _days(report),
        *tables,
        "<h2>Incidents</h2>",
        _counts(report),
        _events(report.anomalies.worst),
        _suggestions(report),
        "<footer>" + "".join(f"<p>{escape(note)}</p>" for note in NOTES) + "</footer>",
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _figures(report: Report) -> str:
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd class='figure'>{escape(figure)}</dd>"
        f"<dd class='beside'>{escape(beside)}</dd></div>"
        for name, figure, beside in headline(report)
    )
    return f"<dl>{cards}</dl>"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A table of cells that are HTML already."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag} class='left'>{cell}</{tag}>" if place in left else f"<{tag}>{cell}</{tag}>"
            for place, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _table(rows: Sequence[Row], name: str) -> str:
    most = max((row.share for row in rows), default=0.0) or 1.0
    word = {"project": "Team"}.get(name, name.capitalize())
    return _rows(
        (word, "Calls", "Tokens", "Failed", "Refused", "Cost", "Share"),
        (
            (
                escape(row.value),
                f"{row.requests:,}",
                large(row.tokens),
                f"{row.errors:,}",
                f"{row.refused:,}",
                f"<b>{dollars(row.cost_nano_usd)}</b>",
                f"<div class='share'><i style='width:{row.share / most * 5:.2f}em'></i>"
                f"<span>{row.share:.1%}</span></div>",
            )
            for row in rows
        ),
    )


def _days(report: Report) -> str:
    width, height, left, top = 860.0, 170.0, 52.0, 8.0
    steps = scale_of(report)
    bars = day_bars(report, width, height)

    def at(usd: float) -> float:
        return top + height - usd / steps[-1] * height

    grid = "".join(
        f"<line class='grid' x1='{left}' x2='{left + width}' "
        f"y1='{at(step):.1f}' y2='{at(step):.1f}'/>"
        f"<text x='{left - 8}' y='{at(step) + 4:.1f}' text-anchor='end'>"
        f"{short_dollars(step)}</text>"
        for step in steps
    )
    every = max(1, -(-len(bars) // 8))
    drawn = "".join(
        f"<rect class='bar' rx='1.5' x='{left + b.x:.1f}' y='{top + b.y:.1f}' "
        f"width='{b.width:.1f}' height='{b.height:.1f}'><title>{b.label}: {b.value}</title></rect>"
        for b in bars
    )
    dates = "".join(
        f"<text x='{left + b.x + b.width / 2:.1f}' y='{top + height + 17}' "
        f"text-anchor='middle'>{b.label[5:]}</text>"
        for place, b in enumerate(bars)
        if place % every == 0
    )
    mean = sum(cost for _, cost in report.days) / max(1, len(report.days)) / 1e9
    line = (
        f"<line class='mean' x1='{left}' x2='{left + width}' "
        f"y1='{at(mean):.1f}' y2='{at(mean):.1f}'/>"
    )
    return (
        f"<svg viewBox='0 0 {left + width + 8:.0f} {top + height + 24:.0f}' role='img' "
        f"aria-label='Spend by day'>{grid}{drawn}{dates}{line}</svg>"
    )


def _counts(report: Report) -> str:
    found = report.anomalies
    if not found.incidents:
        return "<p class='none'>None in this period.</p>"
    severity = _rows(
        ("Severity", "Incidents"),
        (
            (f"<span class='tier {escape(name)}'>{escape(name)}</span>", f"{count:,}")
            for name, count in found.by_severity.items()
        ),
    )
    cause = _rows(
        ("Cause", "Incidents"),
        (
            (escape(name.replace("_", " ").capitalize()), f"{count:,}")
            for name, count in found.by_cause.items()
        ),
    )
    return f"<div class='pair'><div>{severity}</div><div>{cause}</div></div>"


def _events(events: Sequence[Event]) -> str:
    if not events:
        return ""
    return "<h2>The dearest incidents</h2>" + _rows(
        ("Opened", "Severity", "What happened", "Detected in", "Cost", "State"),
        (
            (
                escape(moment(one.opened_at)),
                f"<span class='tier {escape(one.severity)}'>{escape(one.severity)}</span>",
                escape(one.story or f"{one.scope}: {one.signal.replace('_', ' ')}")
                + (f"<br><small>Cause: {escape(one.root_cause)}</small>" if one.root_cause else ""),
                escape(seconds(one.seconds_to_detect)),
                f"<b>{dollars(one.cost_nano_usd)}</b>",
                escape(one.state),
            )
            for one in events
        ),
        left=(0, 1, 2),
    )


def _suggestions(report: Report) -> str:
    if not report.suggestions:
        return ""
    return "<h2>Suggested budgets and limits</h2>" + _rows(
        ("For", "Limit", "Because"),
        (
            (
                f"{escape(one.dimension)} {escape(one.value)}",
                f"<b>${one.limit_usd:,.2f}</b> a {one.period}",
                escape(one.why),
            )
            for one in report.suggestions
        ),
        left=(0, 2),
    )
