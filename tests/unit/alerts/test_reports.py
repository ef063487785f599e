"""Reports over a real store: figures, forms, and the command itself."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detection.types import Observation, Series, Signal
from proxy.alerts.settings import ReportSchedule
from proxy.cli import app
from proxy.incidents import BookRules, IncidentBook
from proxy.journal import Journal
from proxy.ledger import Ledger
from proxy.reports import Report, make_report, scheduled
from proxy.reports_render import render
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.unit.alerts.rig import EVIL, verdict
from tests.unit.alerts.test_book import until

DAYS = 6


async def fill(store: Store, folder: Path) -> float:
    """Six days of two teams, one incident, one false alarm."""
    clock = store.clock
    now = time.time()
    journal = Journal(folder / "journal", clock=clock, monotonic=clock.monotonic)
    ledger = Ledger(journal, store.counters, clock)
    for back in range(DAYS):
        for team, agent, usd in (("web", "support-triage", 3.0), ("api", EVIL.split("\r")[0], 1.0)):
            ledger.record(
                Observation(
                    ts=now - back * 86_400, id=f"{team}{back}", project=team, agent=agent,
                    key=f"key_{team}", model="gpt-5-mini", provider="openai", status=200,
                    input_tokens=900, output_tokens=100, cost_nano_usd=round(usd * 1e9),
                    action="allow",
                )
            )  # fmt: skip
    ledger.record(
        Observation(
            ts=now, id="refused", project="web", key="key_web", model="gpt-5-mini", status=429,
            action="block",
        )
    )  # fmt: skip
    assert await ledger.flush(5.0)
    journal.close()
    book = IncidentBook(store.documents, clock, rules=BookRules(poll=0.02))
    task = asyncio.create_task(book.run())
    book.on_verdict(verdict(ts=now, since=now - 30))
    book.on_verdict(verdict(Signal.SPEND_SPIKE, series=Series("project", "web"), ts=now))
    await until(lambda: len(book.known_active()) == 2)
    await book.dismiss(book.known_active()[1].id, "ana", "a launch")
    task.cancel()
    return now


@pytest.fixture
async def report(store: Store, tmp_path: Path) -> Report:
    now = await fill(store, tmp_path)
    book = IncidentBook(store.documents, store.clock)
    return await make_report(
        store.counters, book.store, start=now - DAYS * 86_400, end=now + 5, now=now + 5, title="T"
    )


async def test_the_figures_are_those_of_the_store(report: Report) -> None:
    assert report.total.cost_nano_usd == DAYS * 4_000_000_000
    assert [(row.value, row.share) for row in report.tables["project"]] == [
        ("web", 0.75),
        ("api", 0.25),
    ]
    found = report.anomalies
    assert (found.incidents, found.false_alarms) == (2, 1)
    assert found.by_cause == {"agent_loop": 1, "spend_spike": 1}
    assert 29 <= (found.seconds_to_detect or 0) <= 35
    assert found.stopped == 3_000_000_000
    web = next(s for s in report.suggestions if s.value == "web")
    assert (web.period, web.limit_usd) == ("month", 98.0)


async def test_every_form_holds_the_same_money(report: Report) -> None:
    assert json.loads(render(report, "json"))["total"]["cost_nano_usd"] == 24_000_000_000
    rows = list(csv.DictReader(io.StringIO(render(report, "csv").decode())))
    assert sum(int(r["cost_nano_usd"]) for r in rows if r["kind"] == "project") == 24_000_000_000
    page = render(report, "html").decode()
    assert "$24.00" in page
    assert page.count("<rect class='bar'") == len(report.days)
    assert page.count("<div class='share'>") == sum(map(len, report.tables.values()))
    assert "a launch" in page
    assert "<img" not in page
    assert not re.search(r"(?i)<[^>]*\b(src|href)=|<script", page)
    assert json.loads(render(report, "json"))["anomalies"]["worst"][0]["severity"] == "critical"
    pdf = render(report, "pdf")
    assert pdf.startswith(b"%PDF-")


def text_of(pdf: bytes, folder: Path) -> str:
    """What a reader sees, by poppler."""
    tool = shutil.which("pdftotext")
    if tool is None:
        pytest.skip("pdftotext (poppler-utils) is not installed")
    (folder / "r.pdf").write_bytes(pdf)
    done = subprocess.run([tool, "-layout", folder / "r.pdf", "-"], capture_output=True, check=True)
    return done.stdout.decode()


async def test_the_pdf_says_what_the_page_says(report: Report, tmp_path: Path) -> None:
    told = text_of(render(report, "pdf"), tmp_path)
    for part in (
        "$24.00",
        "Spend by team",
        "support-triage",
        "75.0%",
        "a launch",
        "$98.00 a month",
    ):
        assert part in told, part


async def test_a_scheduled_report_is_a_message_with_the_file(store: Store, tmp_path: Path) -> None:
    now = await fill(store, tmp_path)
    book = IncidentBook(store.documents, store.clock)
    made = await scheduled(store.counters, book.store, store.clock)(
        ReportSchedule(every="week", receiver="mail", format="html"), now - 7 * 86_400, now
    )
    assert made is not None
    assert made.attachment is not None
    assert made.attachment.media_type == "text/html"
    assert made.lines[0].startswith("$")


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    async def prepare() -> None:
        store = await Store.open(StoreSettings(timeout_seconds=2.0), tmp_path)
        await fill(store, tmp_path)
        await store.stop()

    asyncio.run(prepare())
    out = tmp_path / "r.json"
    command = ["report", "--period", "day", "--format", "json", "--data-dir", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_bytes())["total"]["cost_nano_usd"] == 4_000_000_000
    odd = CliRunner().invoke(app, ["report", "--period", "soon", "--data-dir", str(tmp_path)])
    assert odd.exit_code == 1
