"""Several configurations over the same calls, side by side, as a table and a page.

Owns: replaying a history once for each configuration, and what is shown of it. Must
never: change what a single replay would say, or act on anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from detection.types import Observation
from proxy.config import Settings, load
from proxy.tuning import Trial, learned_at, run
from proxy.tuning_report import page, rows_of


def compare(
    calls: Callable[[], Iterable[Observation]],
    configs: list[Path],
    report: Path | None,
    *,
    learned: bool,
    console: Console,
    errors: Console,
) -> None:
    """Replay for each file (the defaults where there is none), print, and write the page.

    Raises ConfigError for a file that can't be used, before anything is replayed.
    """
    settings = [(path.name, load(path)) for path in configs] or [("defaults", Settings())]
    trials: list[Trial] = []
    with errors.status("replaying") as status:
        until = _half(calls()) if learned else None
        for name, one in settings:
            status.update(f"replaying with {name}")
            trials.append(run(name, calls(), one.detection, one.policies, learned=until))
    if not trials[0].summary.observations:
        errors.print("No calls to replay.")
        return
    table = Table(title=f"Backtest over {trials[0].summary.observations:,} calls")
    table.add_column("")
    for trial in trials:
        table.add_column(trial.name, justify="right", overflow="fold")
    for label, cells in rows_of(trials):
        table.add_row(label, *cells)
    console.print(table)
    if report is not None:
        report.write_text(page(trials, None, ""), encoding="utf-8")
        errors.print(f"report: {report}", highlight=False, soft_wrap=True)


def _half(calls: Iterable[Observation]) -> float | None:
    """When learning ends in a trial over these calls."""
    first = last = None
    for call in calls:
        first, last = (call.ts if first is None else first), call.ts
    return learned_at(first, last) if first is not None and last is not None else None
