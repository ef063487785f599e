"""``tokenweir import``: bring in history from elsewhere.

Owns: the command's options and what it prints. Must never: print a credential,
or a row's text.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from proxy import config
from proxy.config import Settings
from proxy.history.baselines import write
from proxy.history.importers.mapped_csv import EXTRA_FIELDS
from proxy.history.importing import Outcome, import_file
from proxy.history.markers import ImportBusyError
from proxy.history.registry import IMPORTERS
from proxy.history.rows import Options
from proxy.history.source import Source, SourceError
from proxy.observation_json import FIELDS
from proxy.pricing import Pricer
from proxy.store.errors import StoreError
from proxy.store.store import Store

_FORMATS = ", ".join(f"{known.name} ({known.title})" for known in IMPORTERS.values())
_STORE_TIMEOUT_SECONDS = 2.0


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files to read: plain, .gz or Parquet; - is standard input."),
    ],
    format_: Annotated[
        str, typer.Option("--format", help=f"auto, or one of: {_FORMATS}.")
    ] = "auto",
    config_file: Annotated[
        Path | None, typer.Option("--config", help="The proxy's configuration file.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The proxy's data directory; overrides the file's.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=COLUMN, for a plain CSV; fields are those of the observation schema and "
            f"{', '.join(EXTRA_FIELDS)}. Repeat it."
        ),
    ] = None,
    period: Annotated[
        str | None, typer.Option(help="hour or day: each row of a plain CSV sums one.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Whose calls these are, where the file does not say.")
    ] = None,
    timezone_hours: Annotated[
        float, typer.Option(help="Offset of times without a zone, in hours east of UTC.")
    ] = 0.0,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Count in the store, for usage and reports.")
    ] = True,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Learn what is normal from it.")
    ] = True,
) -> None:
    """Bring in history: usage, reports, and baselines that need no learning time.

    Importing the same rows again changes nothing. A row that can't be read is set
    aside in FILE.rejected.jsonl with its line and the reason; the rest goes in.

    Examples:  tokenweir import litellm-spend.jsonl.gz   ·   tokenweir import calls.csv
    --column ts=when --column cost_usd=cost
    """
    console = Console(stderr=True)
    settings = config.load(config_file) if config_file else Settings()
    home = (data_dir or settings.data_dir).expanduser()
    options = Options(
        columns=_columns(column or []),
        period_seconds=_period(period),
        provider=provider,
        timezone_offset_seconds=timezone_hours * 3600,
    )
    try:
        asyncio.run(_run(console, files, format_, settings, home, options, store))
    except (SourceError, ImportBusyError, StoreError) as error:
        console.print(f"[red]import:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if baselines:
        with console.status("learning what is normal") as status:
            known = write(
                home, settings.detection, lambda ts: status.update(f"learning, at {_day(ts)}")
            )
        console.print(
            f"{known} series known; a running proxy takes them within seconds."
            if known
            else "No single calls or counted hours yet, so there is nothing to learn from."
        )


async def _run(
    console: Console,
    files: list[Path],
    format_name: str,
    settings: Settings,
    home: Path,
    options: Options,
    counted: bool,
) -> None:
    store = None
    if counted:
        patient = settings.store.model_copy(update={"timeout_seconds": _STORE_TIMEOUT_SECONDS})
        store = await Store.open(patient, home, worker="import")
    try:
        for path in files:
            source = Source(path)
            named = Path("import") if str(path) == "-" else path
            rejected = named.with_name(named.name + ".rejected.jsonl")
            started = time.monotonic()
            with _Bar(console, source) as bar:
                outcome = await import_file(
                    source,
                    home,
                    format_name=format_name,
                    options=options,
                    pricer=Pricer(settings.pricing),
                    rejected=rejected,
                    counters=store.counters if store else None,
                    now=store.clock() if store else time.time(),
                    progress=bar.show,
                )
            _tell(console, source.name, outcome, rejected, time.monotonic() - started)
    finally:
        if store is not None:
            await store.stop()


class _Bar:
    """How far a file has been read, and how fast."""

    def __init__(self, console: Console, source: Source) -> None:
        self._source = source
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rows]}"),
            TimeElapsedColumn(),
            console=console,
            transient=not console.is_terminal,
        )
        self._task = self._progress.add_task(source.name, total=None, rows="")

    def show(self, outcome: Outcome) -> None:
        """Move on to where the import is."""
        rows = outcome.tally.rows
        rate = rows / max(time.monotonic() - self._started, 1e-6)
        self._progress.update(
            self._task,
            total=self._source.size_bytes,
            completed=self._source.position_bytes,
            rows=f"{rows:,} rows, {rate:,.0f}/s",
        )

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.stop()


def _tell(console: Console, name: str, outcome: Outcome, rejected: Path, seconds: float) -> None:
    tally = outcome.tally
    lines = [
        f"{name}: {outcome.added:,} rows added, {outcome.calls:,} calls, "
        f"${outcome.cost_nano_usd / 1e9:,.2f} ({tally.rows / max(seconds, 1e-6):,.0f} rows/s)"
    ]
    if outcome.first is not None and outcome.last is not None:
        lines.append(f"  from {_day(outcome.first)} to {_day(outcome.last)}")
    if outcome.known:
        lines.append(f"  {outcome.known:,} were imported before")
    if outcome.counted_otherwise:
        lines.append(
            f"  {outcome.counted_otherwise:,} left out: usage and cost exports of the same days "
            "are the same money, and the one imported first stands"
        )
    if outcome.without_calls:
        lines.append(
            f"  {outcome.without_calls:,} rows don't count calls: they serve usage and reports, "
            "not baselines"
        )
    if tally.skipped:
        lines.append(f"  {tally.skipped:,} records are not about model calls")
    if tally.rejected:
        lines.append(f"  {tally.rejected:,} set aside in {rejected}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _day(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M")


def _columns(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        field, separator, name = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{pair!r} is not FIELD=COLUMN")
        if field not in FIELDS and field not in EXTRA_FIELDS:
            raise typer.BadParameter(
                f"{field!r} is no field; known: {', '.join((*FIELDS, *EXTRA_FIELDS))}"
            )
        found[field] = name
    return found


def _period(word: str | None) -> float | None:
    if word is None:
        return None
    periods = {"hour": 3600.0, "day": 86400.0}
    if word not in periods:
        raise typer.BadParameter(f"{word!r} is not hour or day")
    return periods[word]
