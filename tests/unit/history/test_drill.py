"""Fire drills find what was planted, and nothing where nothing was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detection.settings import DetectionSettings, PolicySettings
from detection.types import Observation
from proxy.cli import app
from proxy.history.drill import drill
from proxy.history.incidents import IncidentPlan, ScenarioError, plant
from tests.unit.history.test_baselines import START, traffic

DAYS = 6
BEGIN = START + (DAYS - 1) * 86400


@pytest.fixture(scope="module")
def calls() -> list[Observation]:
    both = [*traffic("triage", START, DAYS, 60, 1), *traffic("search", START, DAYS, 30, 2)]
    return sorted(both, key=lambda call: call.ts)


def parts(calls: list[Observation]) -> tuple[list[Observation], list[Observation]]:
    return [c for c in calls if c.ts < BEGIN], [c for c in calls if c.ts >= BEGIN]


@pytest.mark.parametrize("kind", ["loop", "leak", "swap", "bloat", "storm"])
def test_planted_calls_are_told_apart_and_in_order(kind: str, calls: list[Observation]) -> None:
    _, stage = parts(calls)
    plan = IncidentPlan.model_validate({"kind": kind, "at_hours": 3, "minutes": 60})
    played, ids = plant(plan, stage, BEGIN, 7)
    own = [call for call in played if call.id in ids]
    assert own
    assert [c.ts for c in played] == sorted(c.ts for c in played)
    assert all(BEGIN + 3 * 3600 <= c.ts < BEGIN + 4 * 3600 for c in own)
    assert [c for c in played if c.id not in ids] == [c for c in stage if c.id not in ids], (
        "the rest of the traffic stays as it was"
    )
    assert plant(plan, stage, BEGIN, 7) == (played, ids)


@pytest.mark.parametrize(
    ("kind", "signals", "seconds"),
    [
        ("loop", {"agent_loop"}, 60),
        ("leak", {"new_key_model", "new_client", "new_agent", "volume_surge", "new_model"}, 60),
        ("swap", {"cost_per_request", "new_model", "new_key_model"}, 900),
        ("storm", {"retry_storm", "error_rate"}, 60),
    ],
)
def test_a_drill_finds_the_incident(
    kind: str, signals: set[str], seconds: float, calls: list[Observation]
) -> None:
    past, stage = parts(calls)
    plan = IncidentPlan.model_validate({"kind": kind, "at_hours": 3, "minutes": 30})
    found = drill(
        plan, lambda: past, stage, BEGIN, seed=7,
        detection=DetectionSettings(), policies=PolicySettings(),
    )  # fmt: skip
    assert found.signal in signals
    assert found.detected_seconds is not None
    assert 0 <= found.detected_seconds <= seconds
    assert found.detected_cost_nano_usd is not None
    assert found.detected_cost_nano_usd <= found.cost_nano_usd
    assert found.saved_nano_usd <= found.cost_nano_usd
    if kind == "loop":
        assert found.action in ("throttle", "block")
        assert found.stopped_seconds is not None
        assert found.stopped_seconds < 15
        assert found.stopped_calls > 0.95 * found.calls, "as long as it goes on"


def test_an_incident_without_a_victim_says_so(calls: list[Observation]) -> None:
    _, stage = parts(calls)
    with pytest.raises(ScenarioError, match="no call of agent 'nobody'"):
        plant(IncidentPlan(kind="loop", at_hours=1, agent="nobody"), stage, BEGIN, 7)


def test_the_command_reads_a_scenario_and_tells_its_faults(
    tmp_path: Path, calls: list[Observation]
) -> None:
    history = tmp_path / "calls.jsonl"
    history.write_text("".join(json.dumps(call._asdict()) + "\n" for call in calls))
    scenario = tmp_path / "drill.yaml"
    scenario.write_text("incidents:\n  - {kind: loop, at_hours: 5, minutes: 10, agent: search}\n")
    command = ["simulate", "--history", str(history), "--scenario", str(scenario)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["kind"], told["agent"], told["signal"]) == ("loop", "search", "agent_loop")
    shown = CliRunner().invoke(app, command)
    assert "agent_loop" in shown.stdout

    scenario.write_text("incidents: [{kind: flood, at_hours: -1}]\n")
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    told_ = refused.output
    assert "incidents.0.kind" in told_
    assert "incidents.0.at_hours" in told_
