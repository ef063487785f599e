"""``tokenweir tune``: propose limits and sensitivities from history.

Owns: the command's options, the difference in YAML, and writing the report. Must
never: write into a configuration file.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.syntax import Syntax

from detection.types import Observation
from proxy import config
from proxy.config import ConfigError, Settings
from proxy.history.own import calls_of_file, replayed_calls
from proxy.history.source import SourceError
from proxy.tuning import Proposal, Trial, learned_at, propose, run, some_of
from proxy.tuning_report import page


def tune(
    history: Annotated[
        list[Path] | None,
        typer.Option(help="Files of calls instead of the data directory's. Repeat it."),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="The configuration in force.")
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Another configuration, shown beside it in the report. Repeat it."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The proxy's data directory; overrides the file's.")
    ] = None,
    alarms_per_key_week: Annotated[
        float, typer.Option(min=0, help="False alarms at critical or above that you'd bear.")
    ] = 0.05,
    most_calls: Annotated[
        int,
        typer.Option(
            min=1000,
            help="Most calls to replay, each some fifty times; of more, those of some callers "
            "over the whole time are taken.",
        ),
    ] = 100_000,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with charts.")] = None,
    search: Annotated[
        bool, typer.Option("--search/--no-search", help="Only compare; propose nothing.")
    ] = True,
) -> None:
    """Propose thresholds and hard limits that suit your own traffic, as a YAML difference.

    Your history is taken as healthy. Nothing is changed: read the reasons, then take
    over what you agree with.

    Examples:  tokenweir tune   ·   tokenweir tune --config tokenweir.yaml --report tuning.html
    """
    console = Console(stderr=True)
    try:
        settings = config.load(config_file) if config_file else Settings()
        others = [(path.name, config.load(path)) for path in compare or []]
        home = (data_dir or settings.data_dir).expanduser()
        calls = _calls(history or [], home, most_calls)
    except (ConfigError, SourceError) as error:
        console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(1) from None
    with console.status("replaying") as status:
        proposal = (
            propose(
                calls,
                settings.detection,
                settings.policies,
                wanted_a_week=alarms_per_key_week,
                progress=lambda what: status.update(f"replaying {len(calls):,} calls: {what}"),
            )
            if search
            else None
        )
        trials = [proposal.before if proposal else _run(settings, "as it is", calls)]
        if proposal and proposal.changes:
            proposal.after.name = "as proposed"
            trials.append(proposal.after)
        trials += [_run(other, name, calls) for name, other in others]
    difference = _difference(config_file, proposal) if proposal else ""
    if proposal:
        _tell(console, proposal, difference)
    if report is not None:
        report.write_text(page(trials, proposal, difference), encoding="utf-8")
        console.print(f"report: {report}", highlight=False)


def _run(settings: Settings, name: str, calls: list[Observation]) -> Trial:
    learned = learned_at(calls[0].ts, calls[-1].ts)
    return run(name, calls, settings.detection, settings.policies, learned=learned)


def _calls(files: list[Path], home: Path, most: int) -> list[Observation]:
    found: list[Observation] = sorted(
        (call for path in files for call in calls_of_file(path)), key=lambda call: call.ts
    )
    calls = some_of(lambda: found if files else replayed_calls(home), most)
    if len(calls) < 1000:
        raise SourceError(f"{len(calls):,} calls are too few to tune by; a thousand is the least")
    return calls


def _tell(console: Console, proposal: Proposal, difference: str) -> None:
    before, after = proposal.before, proposal.after
    console.print(
        f"{before.summary.observations:,} calls: {before.loud_a_week:.3f} loud alarms per key-week "
        f"as it is, {after.loud_a_week:.3f} as proposed, {proposal.wanted_a_week:g} wanted",
        highlight=False,
    )
    if after.loud_a_week > proposal.wanted_a_week:
        console.print(
            "No setting of these thresholds keeps to the wanted rate over this history. Is there "
            "an incident in it? --report shows when and where it rings.",
            highlight=False,
        )
    if untouched := proposal.untouched():
        console.print(f"This history says nothing about: {', '.join(untouched)}", highlight=False)
    if difference:
        Console().print(Syntax(difference, "diff", background_color="default"))
    else:
        console.print("Nothing to change.")


def _difference(file: Path | None, proposal: Proposal) -> str:
    """The proposal as a unified difference of the file's ``detection`` section."""
    text = file.read_text(encoding="utf-8") if file else ""
    loaded = yaml.safe_load(text) or {}
    held: dict[str, Any] = {"detection": dict(loaded.get("detection") or {})}
    changed: dict[str, Any] = {
        "detection": {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in held["detection"].items()
        }
    }
    reasons = []
    for change in proposal.changes:
        section, _, name = change.path.partition(".")
        kind = int if float(change.new).is_integer() and name in _WHOLE else float
        changed["detection"].setdefault(section, {})[name] = kind(change.new)
        reasons.append(f"# {change.path}: {change.reason}")
    if proposal.limits and not held["detection"].get("limits"):
        changed["detection"]["limits"] = proposal.limits
        reasons.append("# limits: none were set; these are far above anything seen")
    if changed == held:
        return ""
    name = file.name if file else "config.yaml"
    lines = difflib.unified_diff(
        [] if held == {"detection": {}} else _lines(held),
        _lines(changed),
        name,
        f"{name} (proposed)",
    )
    return "\n".join([*reasons, *(line.rstrip("\n") for line in lines)]) + "\n"


_WHOLE = frozenset({"calls_in_60_seconds", "repeats", "growing_steps", "retries"})


def _lines(value: dict[str, Any]) -> list[str]:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000).splitlines(True)
