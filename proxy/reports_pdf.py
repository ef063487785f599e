"""Reports as PDF, by fpdf2 (extra ``pdf``).

Owns: the pages. Must never: import the library before a PDF is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.alerts.text import dollars, moment
from proxy.reports import Report, Row
from proxy.reports_render import TITLES, day_bars, headline, share_bars

_BLUE, _GREY, _INK = (37, 99, 235), (90, 103, 120), (22, 32, 46)
_WIDTH = 180.0
_COLUMNS = (("", 62), ("Calls", 24), ("Tokens", 30), ("Refused", 20), ("Cost", 26), ("Share", 18))


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
    page = FPDF(format="A4")
    page.set_margins(15, 15)
    page.set_auto_page_break(True, 15)
    page.set_title(_latin(report.title))
    page.add_page()
    _line(page, report.title, 16, bold=True)
    scope = f" – {report.project}" if report.project else ""
    _line(page, f"{moment(report.start)} to {moment(report.end)}{scope}", 9, _GREY)
    page.ln(3)
    for name, value in headline(report):
        _cells(page, [(name, 45), (value, 120)], align="L")
    _heading(page, "Spend by day")
    _days(page, report)
    for name, rows in report.tables.items():
        if rows:
            _heading(page, TITLES[name])
            _shares(page, rows[:8])
            _table(page, rows[:25])
    for title, counts in (
        ("Incidents by severity", report.anomalies.by_severity),
        ("Incidents by cause", report.anomalies.by_cause),
    ):
        _heading(page, title)
        for name, count in counts.items():
            _cells(page, [(name.replace("_", " "), 60), (str(count), 20)])
    if report.suggestions:
        _heading(page, "Suggested budgets and limits")
        for one in report.suggestions:
            limit = f"${one.limit_usd:,.2f} a {one.period}"
            _cells(page, [(f"{one.dimension} {one.value}", 70), (limit, 40), (one.why, 70)])
    return bytes(page.output())


def _latin(text: str) -> str:
    """The built-in fonts know Latin-1 alone; what they don't is shown as ``?``."""
    return text.replace("–", "-").replace("×", "x").encode("latin-1", "replace").decode("latin-1")


def _line(
    page: Any, text: str, size: float, color: tuple[int, int, int] = _INK, *, bold: bool = False
) -> None:
    page.set_font("Helvetica", "B" if bold else "", size)
    page.set_text_color(*color)
    page.cell(0, size * 0.5, _latin(text), new_x="LMARGIN", new_y="NEXT")


def _heading(page: Any, text: str) -> None:
    if page.will_page_break(40):
        page.add_page()
    page.ln(5)
    _line(page, text, 12, bold=True)
    page.ln(1)


def _cells(page: Any, cells: Sequence[tuple[str, float]], align: str = "") -> None:
    page.set_font("Helvetica", "", 9)
    page.set_text_color(*_INK)
    for place, (text, width) in enumerate(cells):
        shown = _latin(text)
        while shown and page.get_string_width(shown) > width - 2:
            shown = shown[:-1]
        page.cell(width, 5, shown, align=align or ("L" if place == 0 else "R"))
    page.ln(5)


def _table(page: Any, rows: Sequence[Row]) -> None:
    _cells(page, _COLUMNS)
    for row in rows:
        texts = (
            row.value,
            f"{row.requests:,}",
            f"{row.tokens:,}",
            f"{row.refused:,}",
            dollars(row.cost_nano_usd),
            f"{row.share:.1%}",
        )
        _cells(page, [(t, w) for t, (_, w) in zip(texts, _COLUMNS, strict=True)])


def _days(page: Any, report: Report) -> None:
    height, top = 35.0, page.get_y() + 1
    page.set_fill_color(*_BLUE)
    bars = day_bars(report, _WIDTH, height)
    for bar in bars:
        if bar.height > 0:
            page.rect(15 + bar.x, top + bar.y, bar.width, bar.height, style="F")
    page.set_y(top + height + 1)
    if bars:
        _cells(page, [(bars[0].label, _WIDTH / 2), (bars[-1].label, _WIDTH / 2)])


def _shares(page: Any, rows: Sequence[Row]) -> None:
    line, top = 5.0, page.get_y()
    page.set_fill_color(*_BLUE)
    for bar in share_bars(rows, 90, line):
        page.rect(15 + 62, top + bar.y + 0.8, max(bar.width, 0.3), bar.height, style="F")
        page.set_xy(15, top + bar.y)
        page.set_font("Helvetica", "", 8)
        page.set_text_color(*_GREY)
        page.cell(60, line, _latin(bar.label[:38]))
        page.set_xy(15 + 64 + bar.width, top + bar.y)
        page.cell(20, line, bar.value)
    page.set_xy(15, top + line * len(rows) + 2)
