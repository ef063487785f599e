"""``tokenweir simulate``: a fire drill over one's own traffic.

Owns: reading the scenario, and what is printed. Must never: touch a running
proxy's traffic, or send a call.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import orjson
import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table

from detection.types import Mode, Observation
from proxy import config
from proxy.commands.admin_client import DEFAULT_URL, AdminClient, AdminUrl, fail
from proxy.config import Settings
from proxy.history.drill import Found, as_plain, drill, of_plain
from proxy.history.incidents import IncidentPlan, ScenarioError
from proxy.history.own import calls_of_file, replayed_calls
from proxy.history.source import SourceError

_LOOK_SECONDS = 0.5

#: Played where no scenario file is named: one of each kind.
USUAL = (
    IncidentPlan(kind="loop", at_hours=2),
    IncidentPlan(kind="leak", at_hours=4),
    IncidentPlan(kind="swap", at_hours=6, minutes=120),
    IncidentPlan(kind="bloat", at_hours=10, minutes=240),
    IncidentPlan(kind="storm", at_hours=16),
)


class Scenario(BaseModel):
    """A scenario file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(7, description="The same seed makes the same incidents.")
    stage_hours: float = Field(
        24.0, gt=0, description="The last so many hours are the stage; what is before is learned."
    )
    incidents: tuple[IncidentPlan, ...] = Field(USUAL, description="Each is played by itself.")


def simulate(
    scenario: Annotated[
        Path | None, typer.Option(help="A YAML file; without one, one incident of each kind.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="A file of calls instead of the data directory's.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="The configuration that is tried.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The proxy's data directory; overrides the file's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a drill.")] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="In shadow, over the traffic of the proxy that runs now, as it comes."
        ),
    ] = False,
    admin_url: AdminUrl = DEFAULT_URL,
) -> None:
    """Play incidents over your own traffic: how long until they are found, and at what cost.

    Each incident is put into the last day of your history and judged by the engine and
    policies of the configuration, once with it and once without. Nothing is sent. With
    --live it is put into live traffic instead, in a copy of the running proxy's detection
    that acts on nothing, and ends with the first stop.

    Examples:  tokenweir simulate   ·   tokenweir simulate --config tokenweir.yaml --json   ·
    tokenweir simulate --live --scenario drill.yaml
    """
    console = Console(stderr=True)
    settings = config.load(config_file) if config_file else Settings()
    if live:
        client = AdminClient(admin_url, data_dir or settings.data_dir)
        try:
            played = _live(client, _read(scenario), console)
        except ScenarioError as error:
            fail(str(error))
        _show(played, as_json)
        return
    if settings.mode is not Mode.ENFORCE:
        console.print(
            f"The mode is {settings.mode}: what is stopped below would only have been told.",
            highlight=False,
        )
    try:
        plan = _read(scenario)
        home = (data_dir or settings.data_dir).expanduser()
        calls = calls_of_file(history) if history else list(replayed_calls(home))
        if not calls:
            raise SourceError(f"no calls in {home}; import some, or name a file with --history")
        begin = calls[-1].ts - plan.stage_hours * 3600
        past = [call for call in calls if call.ts < begin]
        stage = [call for call in calls if call.ts >= begin]
        if not past:
            raise SourceError(
                f"all {len(calls):,} calls are within the stage of {plan.stage_hours:g} hours; "
                "there is nothing before it to learn from"
            )
        found = []
        for incident in plan.incidents:
            try:
                found.append(_play(incident, past, stage, begin, plan.seed, settings, console))
            except ScenarioError as error:
                console.print(f"not played: {error}", highlight=False, markup=False)
        if not found:
            raise ScenarioError("none of the incidents could be played")
    except (SourceError, ScenarioError) as error:
        console.print(f"[red]simulate:[/] {error}", highlight=False)
        raise typer.Exit(1) from None
    _show(found, as_json)


def _live(client: AdminClient, plan: Scenario, console: Console) -> list[Found]:
    """Play each incident beside the running proxy, one after another."""
    found = []
    for incident in plan.incidents:
        told = client.post("/api/v1/drill", incident.model_dump())
        try:
            with console.status(f"playing {incident.kind}") as status:
                while told["state"] in ("waiting", "playing"):
                    time.sleep(_LOOK_SECONDS)
                    told = client.get("/api/v1/drill")
                    status.update(f"{incident.kind}: {told['state']}")
        except KeyboardInterrupt:
            client.delete("/api/v1/drill")
            raise
        if told["state"] == "done" and told["found"] is not None:
            found.append(of_plain(told["found"]))
        elif told["state"] == "failed":
            console.print(f"{incident.kind}: the drill failed; the proxy's log says why")
        else:
            whom = f"agent {incident.agent!r}" if incident.agent else "any agent"
            console.print(f"{incident.kind}: no call of {whom} came to make it of", markup=False)
    if not found:
        raise ScenarioError("none of the incidents could be played")
    return found


def _show(found: list[Found], as_json: bool) -> None:
    if as_json:
        for one in found:
            typer.echo(orjson.dumps(as_plain(one)).decode())
    else:
        Console().print(_table(found))


def _play(
    incident: IncidentPlan,
    past: list[Observation],
    stage: list[Observation],
    begin: float,
    seed: int,
    settings: Settings,
    console: Console,
) -> Found:
    with console.status(f"playing {incident.kind}"):
        return drill(
            incident,
            lambda: past,
            stage,
            begin,
            seed=seed,
            detection=settings.detection,
            policies=settings.policies,
        )


def _read(path: Path | None) -> Scenario:
    if path is None:
        return Scenario.model_validate({})
    try:
        return Scenario.model_validate(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ScenarioError(f"{path}: {error}") from None
    except ValidationError as error:
        faults = [
            f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        ]
        raise ScenarioError("\n".join(faults)) from None


def _table(found: list[Found]) -> Table:
    table = Table(title="Fire drill")
    for heading in ("incident", "found by", "found after", "stopped after", "saved", "others hurt"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(
            one.plan.kind,
            f"{one.signal} ({one.tier})" if one.signal else "[red]not found[/]",
            _when(one.detected_seconds, _dollars(one.detected_cost_nano_usd)),
            _when(one.stopped_seconds, str(one.action)),
            f"{_dollars(one.saved_nano_usd)} of {_dollars(one.cost_nano_usd)}",
            f"{one.hurt_calls:,} calls",
        )
    return table


def _when(seconds: float | None, what: str) -> str:
    return "never" if seconds is None else f"{_seconds(seconds)} ({what})"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def _dollars(nano: int | None) -> str:
    return "–" if nano is None else f"${nano / 1e9:,.2f}"
