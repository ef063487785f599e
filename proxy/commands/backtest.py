"""``tokenweir backtest``: recorded calls through the engine and policy of today.

Owns: reading the stream, the progress bar, and writing lines. Must never: hold the
file whole, or act on anything.
"""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated, BinaryIO

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from detection.backtest import Backtest, Summary, observation_of
from detection.types import Observation

_TOLD_EVERY = 20_000
_FAULTS_SHOWN = 3
#: Bytes read at once: a few hundred lines.
_AT_ONCE = 1 << 18


def backtest(
    observations: Annotated[
        Path | None,
        typer.Option(
            help="Observations as JSON lines, .gz too; without it, the data directory's journal "
            "and imports.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            help="The YAML whose detection and policies are tried. Repeat it to compare several."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The proxy's data directory; overrides the file's.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with charts: who is hurt, and when.")
    ] = None,
    learned: Annotated[
        bool,
        typer.Option(
            "--learned",
            help="In a comparison, let learning be over after half of the history (two weeks at "
            "most), as after an import of it.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where verdicts and actions go, one JSON line each.")
    ] = None,
) -> None:
    """Replay observations through engine and policy: what would have been alarmed and stopped.

    Examples:  tokenweir backtest --observations calls.jsonl.gz --config tokenweir.yaml   ·
    tokenweir backtest --config now.yaml --config stricter.yaml --report policies.html
    """
    console = Console(stderr=True)
    configs = config or []
    if observations is None or report is not None or len(configs) > 1:
        if out is not None:
            raise typer.BadParameter("--out needs --observations, and one configuration")
        _compare(observations, configs, data_dir, report, learned, console)
        return
    replay = _replay(configs[0] if configs else None, console)
    started, worked = perf_counter(), process_time()
    with ExitStack() as stack:
        target = stack.enter_context(out.open("wb")) if out is not None else None
        faults = _run(replay, observations, target, console)
        _write(replay.finish(), target)
    seconds = perf_counter() - started, process_time() - worked
    _tell(replay.summary, *seconds, faults, Console(file=sys.stdout))


def _compare(
    observations: Path | None,
    configs: list[Path],
    data_dir: Path | None,
    report: Path | None,
    learned: bool,
    console: Console,
) -> None:
    from proxy.commands.backtest_compare import compare
    from proxy.config import ConfigError, Settings, load
    from proxy.history.own import replayed_calls
    from proxy.history.source import SourceError

    def calls() -> Iterator[Observation]:
        if observations is None:
            return replayed_calls(home)
        rows = (orjson.loads(line) for line in _lines_of(observations))
        return (observation_of(row) for row in rows if "ts" in row)

    try:
        settings = load(configs[0]) if configs else Settings()
        home = (data_dir or settings.data_dir).expanduser()
        compare(
            calls,
            configs,
            report,
            learned=learned,
            console=Console(file=sys.stdout),
            errors=console,
        )
    except (ConfigError, SourceError) as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except (ValueError, KeyError, TypeError) as error:
        console.print(f"{observations}: {error}; leave --report to see which", markup=False)
        raise typer.Exit(1) from None


def _lines_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as raw:
        yield from _lines(raw, path.suffix == ".gz")


def _replay(config: Path | None, console: Console) -> Backtest:
    if config is None:
        return Backtest()
    from proxy.config import ConfigError, load

    try:
        settings = load(config)
    except ConfigError as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    return Backtest(settings.detection, settings.policies)


def _run(replay: Backtest, path: Path, target: BinaryIO | None, console: Console) -> int:
    columns = (
        TextColumn("{task.fields[count]:>12,} observations"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    feed, loads = replay.feed, orjson.loads
    faults = count = 0
    size = path.stat().st_size
    with (
        Progress(*columns, console=console, refresh_per_second=2) as bar,
        path.open("rb", buffering=_AT_ONCE) as raw,
    ):
        task = bar.add_task("", total=size, count=0)
        for line in _lines(raw, path.suffix == ".gz"):
            try:
                row = loads(line)
                lines = feed(observation_of(row)) if "ts" in row else ()
            except (ValueError, KeyError, TypeError) as error:
                faults += 1
                if faults <= _FAULTS_SHOWN:
                    bar.console.print(f"line {count + 1} is no observation: {error}", markup=False)
                lines = ()
            count += 1
            if lines:
                _write(lines, target)
            if count % _TOLD_EVERY == 0:
                bar.update(task, completed=raw.tell(), count=count)
        bar.update(task, completed=size, count=count)
    return faults


def _lines(raw: BinaryIO, packed: bool) -> Iterator[bytes]:
    """The lines of the file; a ``.gz`` is unpacked as it is read."""
    if not packed:
        return iter(raw)
    return iter(io.BufferedReader(gzip.GzipFile(fileobj=raw), buffer_size=_AT_ONCE))


def _write(lines: list[dict[str, object]], target: BinaryIO | None) -> None:
    if target is not None:
        for line in lines:
            target.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def _tell(
    summary: Summary, seconds: float, busy_seconds: float, faults: int, console: Console
) -> None:
    """The summary; ``busy_seconds`` are the processor's, which other work doesn't stretch."""
    table = Table(show_header=False, title="Backtest")
    for label, value in summary.rows():
        table.add_row(label, value)
    if faults:
        table.add_row("lines that are no observation", str(faults))
    for label, spent in (("speed", seconds), ("speed of one free core", busy_seconds)):
        table.add_row(label, f"{summary.observations / spent if spent else 0:,.0f} observations/s")
    console.print(table)
