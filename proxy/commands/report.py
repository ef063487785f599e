"""``tokenweir report``: spend, anomalies and forecasts of a period, as a file.

Owns: that command. Must never: change anything in the store.
"""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from proxy import config
from proxy.config import Settings
from proxy.incidents_store import IncidentStore
from proxy.reports import Report, make_report, period_of
from proxy.reports_pdf import PdfMissingError
from proxy.reports_render import render
from proxy.store.embedded import EmbeddedStoreError
from proxy.store.errors import StoreError
from proxy.store.store import Store

_STORE_TIMEOUT_SECONDS = 5.0


class Form(StrEnum):
    """The file forms."""

    HTML = "html"
    CSV = "csv"
    PDF = "pdf"
    JSON = "json"


def report(
    period: Annotated[
        str, typer.Option(help="day, week, month (each so far) or a month such as 2026-11.")
    ] = "month",
    form: Annotated[
        Form, typer.Option("--format", case_sensitive=False, help="Form of the file.")
    ] = Form.HTML,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; standard output without.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only this project.")] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", "-c", help="Configuration file.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="In place of the configured one.")] = None,
) -> None:
    """Report spend by team, model and agent, anomalies, a forecast and fitting limits.

    Examples:  tokenweir report --out month.html   ·   tokenweir report --period 2026-11
    --format pdf --out november.pdf
    """
    console = Console(stderr=True)
    settings = config.load(config_file) if config_file else Settings()
    home = (data_dir or settings.data_dir).expanduser()
    if form is Form.PDF and out is None and sys.stdout.isatty():
        console.print("[red]report:[/] a PDF needs --out FILE", highlight=False)
        raise typer.Exit(2)
    try:
        made = asyncio.run(_gather(settings, home, period, project))
        body = render(made, form.value)
    except (ValueError, StoreError, EmbeddedStoreError, PdfMissingError) as error:
        console.print(f"[red]report:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    if out is None:
        sys.stdout.buffer.write(body)
    else:
        out.write_bytes(body)
        console.print(f"wrote {out} ({len(body):,} bytes)", highlight=False)


async def _gather(settings: Settings, home: Path, period: str, project: str | None) -> Report:
    patient = settings.store.model_copy(update={"timeout_seconds": _STORE_TIMEOUT_SECONDS})
    store = await Store.open(patient, home, worker="report")
    try:
        now = store.clock()
        start, end, name = period_of(period, now)
        return await make_report(
            store.counters,
            IncidentStore(store.documents),
            start=start,
            end=end,
            now=now,
            title=f"Tokenweir report {name}",
            project=project,
        )
    finally:
        await store.stop()
