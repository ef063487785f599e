"""The page that shows what configurations would have done to one's own history.

Owns: one self-contained HTML file, charts as inline SVG. Must never: load anything
from elsewhere, or put a name into the page unescaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from proxy.tuning import Proposal, Trial

_ROWS: Final = 20
#: Signals whose figures are dollars.
_DOLLARS: Final = frozenset({"spend_spike", "drift", "peer_outlier"})

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #d5dde5;
  --paper: #fff; --good: #2a7f62; --bad: #c2452d; --mark: #2b6cb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9fb0c0; --line: #33414f;
  --paper: #14191f; --good: #59b894; --bad: #e8795f; --mark: #6aa9e9; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, figcaption { color: var(--soft); } table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } table { margin-bottom: 1.2rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .2rem; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .15em; }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; border: 1px solid var(--line); border-radius: .4rem; padding: .6rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
.word { text-align: left; } .wide { overflow-x: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere;
  border: 1px solid var(--line); border-radius: .4rem; padding: .8rem; }
.add { color: var(--good); } .del { color: var(--bad); }
"""


def page(trials: Sequence[Trial], proposal: Proposal | None, difference: str) -> str:
    """The report as HTML. ``trials`` are shown side by side, in their order."""
    first = trials[0].summary
    span = f"{_day(first.first)} to {_day(first.last)}"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Tokenweir: policies over your history</title><style>{_STYLE}</style></head><body>",
        "<h1>What these policies would have done</h1>",
        f"<p>{first.observations:,} calls, {_dollars(first.cost_nano_usd)}, {span}. Every recorded "
        "call is judged, also those that would have been stopped before; what a client would have "
        "done instead nobody knows. ",
        "The history is taken as healthy, so that each stop below is a false one.</p>"
        if proposal is not None
        else "If nothing was wrong in this time, each stop below is a false one; if something was, "
        "the dollars are what it would have saved.</p>",
        _learning(trials),
        _comparison(trials),
        "<h2>Spend and what would have been stopped, by day</h2>",
        "<p><span class='key' style='background: var(--mark); opacity: .55'></span> spent "
        "<span class='key' style='background: var(--bad)'></span> of it stopped</p>",
        "<div class='charts'>",
        *(_days(trial) for trial in trials),
        "</div><h2>Whom it would have hurt</h2>",
        *(_hurt(trial) for trial in trials),
        "<h2>What would have rung, and been done</h2>",
        *(_loud(trial) for trial in trials),
    ]
    if proposal is not None:
        parts += [
            "<h2>How sensitive each threshold is</h2><p>Alarms at critical or above per key-week "
            f"with one threshold changed at a time; the dashed line is the wanted rate of "
            f"{proposal.wanted_a_week:g}. The filled point is the value in force.</p>"
            "<div class='charts'>",
            *(_curve(p, proposal) for p in proposal.curves if p not in proposal.untouched()),
            f"</div><p>This history says nothing about: "
            f"{escape(', '.join(proposal.untouched())) or 'none'}.</p><h2>The proposal</h2>",
            f"<pre>{_coloured(difference)}</pre>",
        ]
    return "".join([*parts, "</body></html>\n"])


def rows_of(trials: Sequence[Trial]) -> list[tuple[str, list[str]]]:
    """What is compared, a row each, with one cell for each trial."""

    def share(trial: Trial) -> str:
        stopped = trial.summary.blocked.calls + trial.summary.throttled.calls
        return f"{stopped / max(1, trial.summary.observations):.2%}"

    return [
        ("Loud alarms per key-week", [f"{t.loud_a_week:.3f}" for t in trials]),
        *(
            (f"{tier.capitalize()} alarms", [f"{t.summary.alarms.get(tier, 0):,}" for t in trials])
            for tier in ("warning", "critical", "emergency")
        ),
        ("Alarms while learning, not sent", [f"{t.summary.learning:,}" for t in trials]),
        ("Calls blocked", [f"{t.summary.blocked.calls:,}" for t in trials]),
        ("Calls refused by a throttle", [f"{t.summary.throttled.calls:,}" for t in trials]),
        ("Both, of all calls", [share(t) for t in trials]),
        ("Dollars stopped", [_dollars(t.stopped_nano_usd) for t in trials]),
        ("Agents or keys hurt", [f"{len(t.hurt):,}" for t in trials]),
        (
            "Loudest signals",
            [", ".join(f"{n} {c}" for n, c in t.signals.most_common(3)) or "none" for t in trials],
        ),
    ]


def _comparison(trials: Sequence[Trial]) -> str:
    head = "".join(f"<th scope='col'>{escape(trial.name)}</th>" for trial in trials)
    body = "".join(
        f"<tr><th scope='row'>{label}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for label, cells in rows_of(trials)
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _learning(trials: Sequence[Trial]) -> str:
    judged = trials[0].judged_from
    if judged:
        return f"<p>Until {_minute(judged)} it was learned; what came after was judged.</p>"
    return (
        "<p>Learning took its time, as it does in a new proxy: its alarms are counted apart and "
        "stop nobody. <code>--learned</code> judges as after an import.</p>"
    )


def _days(trial: Trial) -> str:
    days = sorted(trial.spent_by_day)
    top = max([trial.spent_by_day[day] for day in days] + [1])
    step = 240 / max(1, len(days))
    bars = []
    for place, day in enumerate(days):
        spent, stopped = trial.spent_by_day[day], trial.stopped_by_day[day]
        x, height = 30 + place * step, 86 * spent / top
        bars.append(
            f"<rect x='{x:.1f}' y='{100 - height:.1f}' width='{max(1.0, step - 1):.1f}' "
            f"height='{height:.1f}' fill='var(--mark)' opacity='.55'>"
            f"<title>{_day(day * 86400.0)}: {_dollars(spent)}, stopped {_dollars(stopped)}</title>"
            "</rect>"
        )
        if stopped:
            high = max(1.0, 86 * stopped / top)
            bars.append(
                f"<rect x='{x:.1f}' y='{100 - high:.1f}' width='{max(1.0, step - 1):.1f}' "
                f"height='{high:.1f}' fill='var(--bad)'/>"
            )
    return (
        f"<figure><figcaption>{escape(trial.name)}: {_dollars(trial.stopped_nano_usd)} stopped"
        "</figcaption><svg viewBox='0 0 280 118' role='img' "
        f"aria-label='Spend by day, {escape(trial.name, quote=True)}'>{''.join(bars)}"
        f"<text x='2' y='9'>{_dollars(top)}</text>"
        f"<text x='30' y='114'>{_day(days[0] * 86400.0) if days else ''}</text>"
        f"<text x='270' y='114' text-anchor='end'>{_day(days[-1] * 86400.0) if days else ''}</text>"
        "</svg></figure>"
    )


def _hurt(trial: Trial) -> str:
    if not trial.hurt:
        return f"<p>{escape(trial.name)}: nobody.</p>"
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{hurt:,}</td><td>{trial.calls[name]:,}</td>"
        f"<td>{hurt / max(1, trial.calls[name]):.1%}</td></tr>"
        for name, hurt in trial.hurt.most_common(_ROWS)
    )
    return (
        f"<table><caption>{escape(trial.name)}{_more(len(trial.hurt))}</caption>"
        "<tr><th>agent or key</th><th>calls stopped</th><th>of calls</th><th>share</th></tr>"
        f"{rows}</table>"
    )


def _loud(trial: Trial) -> str:
    """The alarms at critical or above and what policy did, in order of time."""
    if not trial.episodes:
        return f"<p>{escape(trial.name)}: nothing at critical or above.</p>"
    rows = "".join(
        f"<tr><td>{_minute(one.since)}</td><td>{(one.last - one.since) / 60:,.0f}</td>"
        f"<td class='word'>{one.tier}</td>"
        f"<td class='word'>{escape(one.dimension)} {escape(one.value)}</td>"
        f"<td class='word'>{escape(one.signal)}</td>"
        f"<td>{_amount(one.signal, one.observed)}</td><td>{_amount(one.signal, one.baseline)}</td>"
        f"<td class='word'>{escape(', '.join(one.done)) or 'told'}</td></tr>"
        for one in trial.episodes[:_ROWS]
    )
    return (
        f"<div class='wide'><table><caption>{escape(trial.name)}{_more(len(trial.episodes))}"
        "</caption><tr><th>when (UTC)</th><th>minutes</th><th class='word'>tier</th>"
        "<th class='word'>series</th><th class='word'>signal</th><th>seen</th><th>against</th>"
        f"<th class='word'>done</th></tr>{rows}</table></div>"
    )


def _more(count: int) -> str:
    return f": the first {_ROWS} of {count:,}" if count > _ROWS else ""


def _amount(signal: str, value: float | None) -> str:
    if value is None:
        return ""
    if signal in _DOLLARS:
        return f"${value:,.2f}"
    if signal == "cost_per_request":
        return f"${value / 1e9:,.6f}"
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _curve(path: str, proposal: Proposal) -> str:
    points = proposal.curves[path]
    current = proposal.current[path]
    proposed = next((c.new for c in proposal.changes if c.path == path), None)
    top = max([rate for _, rate in points] + [proposal.wanted_a_week * 1.2, 1e-9])
    step = 230 / max(1, len(points) - 1)
    places = [(40 + i * step, 92 - 82 * rate / top) for i, (_, rate) in enumerate(points)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    wanted = 92 - 82 * proposal.wanted_a_week / top
    marks = []
    for (x, y), (value, rate) in zip(places, points, strict=True):
        chosen = value == proposed
        colour = "var(--good)" if chosen else "var(--mark)"
        marks.append(
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{5 if chosen else 3.5}' "
            f"fill='{colour if chosen or value == current else 'var(--paper)'}' stroke='{colour}'>"
            f"<title>{value:g}: {rate:.3f}</title></circle>"
            f"<text x='{x:.1f}' y='108' text-anchor='middle'>{value:g}</text>"
        )
    note = f", proposed {proposed:g}" if proposed is not None else ""
    return (
        f"<figure><figcaption>{escape(path)}{note}</figcaption>"
        f"<svg viewBox='0 0 290 112' role='img' aria-label='Alarms by {escape(path, quote=True)}'>"
        f"<line x1='40' x2='270' y1='{wanted:.1f}' y2='{wanted:.1f}' stroke='var(--soft)' "
        f"stroke-dasharray='4 3'/><polyline points='{line}' fill='none' stroke='var(--mark)'/>"
        f"{''.join(marks)}<text x='36' y='16' text-anchor='end'>{top:.2f}</text>"
        "<text x='36' y='95' text-anchor='end'>0</text></svg></figure>"
    )


def _coloured(difference: str) -> str:
    shown = []
    for line in difference.splitlines():
        kind = {"+": "add", "-": "del"}.get(line[:1])
        text = escape(line)
        shown.append(f"<span class='{kind}'>{text}</span>" if kind else text)
    return "\n".join(shown) or "Nothing to change."


def _minute(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M")


def _day(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d")


def _dollars(nano: int) -> str:
    return f"${nano / 1e9:,.2f}"
