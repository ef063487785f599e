"""Reports as PDF, by fpdf2 (extra ``pdf``).

Owns: the pages. Must never: import the library before a PDF is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.alerts.text import dollars, moment
from proxy.reports import Report, Row
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

Color = tuple[int, int, int]
_BLUE, _SOFT, _INK = (47, 111, 237), (91, 107, 128), (20, 32, 47)
_LINE, _CARD, _MEAN = (223, 229, 238), (246, 248, 251), (224, 138, 0)
_TIERS: dict[str, Color] = {
    "emergency": (198, 42, 59),
    "critical": (198, 42, 59),
    "warning": (179, 107, 0),
    "info": (59, 111, 182),
}
_LEFT, _WIDTH = 15.0, 180.0
#: The longest bar of a share, mm.
_BAR = 9.0
#: Heading, width in mm, whether its cells stand at the left.
Column = tuple[str, float, bool]
_SPEND: tuple[Column, ...] = (
    ("", 62, True),
    ("Calls", 20, False),
    ("Tokens", 20, False),
    ("Failed", 15, False),
    ("Refused", 16, False),
    ("Cost", 22, False),
    ("Share", 25, False),
)


class PdfMissingError(RuntimeError):
    """The library isn't installed."""


def to_pdf(report: Report) -> bytes:
    """The report on A4.

    Raises
    ------
    PdfMissingError
        With the way to install what is missing.
    """
    try:
        from fpdf import FPDF
    except ImportError as error:
        raise PdfMissingError(
            "PDF needs the extra 'pdf': pip install 'tokenweir[pdf]'; HTML prints well too"
        ) from error

    class Pages(FPDF):
        """A4 with a line at the foot of each page."""

        def footer(self) -> None:
            self.set_y(-12)
            _font(self, 7.5, _SOFT)
            self.cell(_WIDTH / 2, 5, _latin(report.title))
            self.cell(_WIDTH / 2, 5, f"{self.page_no()} / {{nb}}", align="R")

    page = Pages(format="A4")
    page.set_margins(_LEFT, 15)
    page.set_auto_page_break(True, 18)
    page.set_title(_latin(report.title))
    page.set_creator("Tokenweir")
    page.add_page()
    _head(page, report)
    _figures(page, report)
    _heading(page, "Spend by day", 60, mean_of(report))
    _days(page, report)
    for name, rows in report.tables.items():
        if rows:
            _heading(page, TITLES[name])
            _spend(page, rows[:20], name)
    _incidents(page, report)
    if report.suggestions:
        _heading(page, "Suggested budgets and limits")
        columns = (("For", 60.0, True), ("Limit", 40.0, False), ("  Because", 80.0, True))
        _table(
            page,
            columns,
            [
                (f"{o.dimension} {o.value}", f"${o.limit_usd:,.2f} a {o.period}", f"  {o.why}")
                for o in report.suggestions
            ],
        )
    page.ln(6)
    for note in NOTES:
        _font(page, 7.5, _SOFT)
        page.multi_cell(_WIDTH, 3.6, _latin(note), new_x="LMARGIN", new_y="NEXT")
    return bytes(page.output())


def _latin(text: str) -> str:
    """The built-in fonts know Latin-1 alone; what they don't is shown as ``?``."""
    for odd, plain in (("–", "-"), ("—", "-"), ("×", "x"), ("≈", "about"), ("…", "...")):
        text = text.replace(odd, plain)
    return text.encode("latin-1", "replace").decode("latin-1")


def _font(page: Any, size: float, color: Color = _INK, *, bold: bool = False) -> None:
    page.set_font("Helvetica", "B" if bold else "", size)
    page.set_text_color(*color)


def _fitted(page: Any, text: str, width: float) -> str:
    shown = _latin(text)
    if page.get_string_width(shown) <= width:
        return shown
    while shown and page.get_string_width(shown + "...") > width:
        shown = shown[:-1]
    return shown + "..."


def _head(page: Any, report: Report) -> None:
    _font(page, 18, bold=True)
    page.cell(_WIDTH * 0.6, 9, _fitted(page, report.title, _WIDTH * 0.6))
    _font(page, 8, _SOFT)
    scope = f"Team {report.project}" if report.project else "All teams"
    told = f"{scope}\n{span_of(report)}\nmade {moment(report.made_at)}"
    page.multi_cell(_WIDTH * 0.4, 3.6, _latin(told), align="R", new_x="LMARGIN", new_y="NEXT")
    page.set_draw_color(*_BLUE)
    page.set_line_width(0.8)
    page.line(_LEFT, page.get_y() + 2, _LEFT + _WIDTH, page.get_y() + 2)
    page.set_y(page.get_y() + 6)
    _font(page, 10)
    page.multi_cell(_WIDTH, 5, _latin(summary(report)), new_x="LMARGIN", new_y="NEXT")
    page.ln(3)


def _figures(page: Any, report: Report) -> None:
    """The cards, four in a row."""
    gap, height = 3.0, 19.0
    width = (_WIDTH - 3 * gap) / 4
    top = page.get_y()
    page.set_draw_color(*_LINE)
    page.set_line_width(0.2)
    for place, (name, figure, beside) in enumerate(headline(report)):
        x = _LEFT + place % 4 * (width + gap)
        y = top + place // 4 * (height + gap)
        page.set_fill_color(*_CARD)
        page.rect(x, y, width, height, style="DF", round_corners=True, corner_radius=1.5)
        for size, color, text, at, bold in (
            (7.5, _SOFT, name, 2.0, False),
            (13, _INK, figure, 6.0, True),
            (6.5, _SOFT, beside, 13.0, False),
        ):
            page.set_xy(x + 2, y + at)
            _font(page, size, color, bold=bold)
            page.cell(width - 4, size * 0.45, _fitted(page, text, width - 5))
    page.set_xy(_LEFT, top + 2 * height + gap + 2)


def _heading(page: Any, text: str, room: float = 30, beside: str = "") -> None:
    if page.will_page_break(room):
        page.add_page()
    page.ln(5)
    _font(page, 12, bold=True)
    page.cell(_WIDTH / 2, 6, text)
    _font(page, 7.5, _MEAN)
    page.cell(_WIDTH / 2, 6, beside, align="R", new_x="LMARGIN", new_y="NEXT")
    page.ln(1)


def _days(page: Any, report: Report) -> None:
    """Bars under a scale, with their mean."""
    left, height = 14.0, 40.0
    width, top = _WIDTH - left, page.get_y() + 2
    steps = scale_of(report)

    def at(usd: float) -> float:
        return float(top + height - usd / steps[-1] * height)

    page.set_line_width(0.15)
    for step in steps:
        page.set_draw_color(*_LINE)
        page.line(_LEFT + left, at(step), _LEFT + _WIDTH, at(step))
        _font(page, 7, _SOFT)
        page.set_xy(_LEFT, at(step) - 1.5)
        page.cell(left - 2, 3, short_dollars(step), align="R")
    bars = day_bars(report, width, height)
    every = max(1, -(-len(bars) // 8))
    for place, bar in enumerate(bars):
        page.set_fill_color(*_BLUE)
        if bar.height > 0:
            page.rect(_LEFT + left + bar.x, top + bar.y, bar.width, bar.height, style="F")
        if place % every == 0:
            page.set_xy(_LEFT + left + bar.x - 5, top + height + 1)
            page.cell(bar.width + 10, 3, bar.label[5:], align="C")
    mean = sum(cost for _, cost in report.days) / max(1, len(report.days)) / 1e9
    page.set_draw_color(*_MEAN)
    page.set_dash_pattern(dash=1, gap=0.8)
    page.line(_LEFT + left, at(mean), _LEFT + _WIDTH, at(mean))
    page.set_dash_pattern()
    page.set_xy(_LEFT, top + height + 5)


def _table(
    page: Any, columns: Sequence[Column], rows: Sequence[Sequence[str]], bars: Sequence[float] = ()
) -> None:
    """Rows under a heading that comes again on each page; ``bars`` (0 to 1) in the last column."""

    def line(cells: Sequence[str], color: Color, size: float) -> None:
        _font(page, size, color)
        for text, (_, width, left) in zip(cells, columns, strict=True):
            page.cell(width, 5.2, _fitted(page, text, width - 2.5), align="L" if left else "R")
        page.ln(5.2)
        page.set_draw_color(*_LINE)
        page.set_line_width(0.15)
        page.line(_LEFT, page.get_y(), _LEFT + _WIDTH, page.get_y())

    names = [name for name, _, _ in columns]
    line(names, _SOFT, 7.5)
    for place, row in enumerate(rows):
        if page.will_page_break(6):
            page.add_page()
            line(names, _SOFT, 7.5)
        if bars:
            page.set_fill_color(*_BLUE)
            x, y = _LEFT + _WIDTH - columns[-1][1] + 2, page.get_y() + 1.7
            page.rect(x, y, max(bars[place] * _BAR, 0.3), 1.9, style="F")
        line(row, _INK, 8.5)


def _spend(page: Any, rows: Sequence[Row], name: str) -> None:
    most = max((row.share for row in rows), default=0.0) or 1.0
    word = {"project": "Team"}.get(name, name.capitalize())
    columns = ((word, *_SPEND[0][1:]), *_SPEND[1:])
    cells = [
        (
            row.value,
            f"{row.requests:,}",
            large(row.tokens),
            f"{row.errors:,}",
            f"{row.refused:,}",
            dollars(row.cost_nano_usd),
            f"{row.share:.1%}",
        )
        for row in rows
    ]
    _table(page, columns, cells, [row.share / most for row in rows])


def _incidents(page: Any, report: Report) -> None:
    found = report.anomalies
    _heading(page, "Incidents")
    if not found.incidents:
        _font(page, 9, _SOFT)
        page.cell(0, 5, "None in this period.", new_x="LMARGIN", new_y="NEXT")
        return
    severity = ", ".join(f"{count} {name}" for name, count in found.by_severity.items() if count)
    cause = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.by_cause.items())
    _font(page, 9)
    for word, told in (("By severity", severity), ("By cause", cause)):
        page.multi_cell(_WIDTH, 5, _latin(f"{word}: {told}."), new_x="LMARGIN", new_y="NEXT")
    page.ln(2)
    for one in found.worst:
        if page.will_page_break(16):
            page.add_page()
        _font(page, 7.5, (255, 255, 255), bold=True)
        page.set_fill_color(*_TIERS.get(one.severity, _SOFT))
        page.cell(20, 4.4, one.severity, align="C", fill=True)
        _font(page, 8.5, bold=True)
        page.cell(110, 4.4, "  " + _fitted(page, f"{one.scope}, {one.state}", 104))
        page.cell(50, 4.4, dollars(one.cost_nano_usd), align="R", new_x="LMARGIN", new_y="NEXT")
        wait = f"opened {moment(one.opened_at)}, detected in {seconds(one.seconds_to_detect)}"
        cause = f" Cause: {one.root_cause}." if one.root_cause else ""
        for size, color, text in ((8.5, _INK, f"{one.story}{cause}"), (7.5, _SOFT, wait)):
            _font(page, size, color)
            page.multi_cell(_WIDTH, 4, _latin(text), new_x="LMARGIN", new_y="NEXT")
        page.ln(2)
