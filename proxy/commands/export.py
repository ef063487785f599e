"""``tokenweir export``: take observations out.

Owns: the command's options. Must never: leave a half-written file under the
wanted name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from detection.types import Observation
from proxy import config
from proxy.config import Settings
from proxy.history.exporters import WRITERS, ExportError
from proxy.history.own import own_calls
from proxy.history.rows import BadRowError, seconds_since_epoch

_SUFFIXES = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


def export(
    out: Annotated[
        Path | None, typer.Argument(help="The file to write; none, or -, is standard output.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help=f"{', '.join(WRITERS)}; by the file's name if left out."),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="The proxy's configuration file.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The proxy's data directory; overrides the file's.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="First moment, ISO 8601 or epoch.")] = None,
    until: Annotated[str | None, typer.Option(help="Moment to stop before.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's calls.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project's calls.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key's calls.")] = None,
) -> None:
    """Write the calls of the journal and of imports as JSON lines, CSV, Parquet or FOCUS.

    Examples:  tokenweir export november.parquet --since 2026-11-01   ·   tokenweir export
    --agent refunds
    """
    console = Console(stderr=True)
    settings = config.load(config_file) if config_file else Settings()
    home = (data_dir or settings.data_dir).expanduser()
    chosen = format_ or _SUFFIXES.get(out.suffix if out else "", "jsonl")
    if chosen not in WRITERS:
        raise typer.BadParameter(f"{chosen!r} is none of {', '.join(WRITERS)}")
    wanted = {"agent": agent, "project": project, "key": key}
    calls = _matching(
        own_calls(home, _moment(since, "--since", 0.0), _moment(until, "--until", float("inf"))),
        {name: value for name, value in wanted.items() if value is not None},
    )
    try:
        if out is None or str(out) == "-":
            count = WRITERS[chosen](calls, sys.stdout.buffer)
        else:
            fresh = out.with_name(out.name + ".part")
            with fresh.open("wb") as file:
                count = WRITERS[chosen](calls, file)
            fresh.replace(out)
    except (ExportError, OSError) as error:
        console.print(f"[red]export:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    console.print(f"{count:,} rows", highlight=False)


def _matching(calls: Iterator[Observation], wanted: dict[str, str]) -> Iterator[Observation]:
    for call in calls:
        if all(getattr(call, name) == value for name, value in wanted.items()):
            yield call


def _moment(text: str | None, option: str, otherwise: float) -> float:
    try:
        found = seconds_since_epoch(text, option)
    except BadRowError as error:
        now = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
        raise typer.BadParameter(f"{error}; write it like {now}") from None
    return otherwise if found is None else found
