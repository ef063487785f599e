"""Tuning proposes what keeps to the wanted rate, says why, and changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from detection.settings import DetectionSettings, PolicySettings
from detection.types import Observation
from proxy.cli import app
from proxy.tuning import KNOBS, learned_at, nice, propose, propose_limits, run, some_of
from proxy.tuning_report import page
from tests.unit.history.test_baselines import START, traffic


def bursty(agent: str, seed: int) -> list[Observation]:
    """Ten days of calls with a few honest rushes far above the record."""
    calls = list(traffic(agent, START, 10, 12, seed))
    for day, rush in ((4, 40), (6, 160), (8, 640)):
        start = START + day * 86400 + 3600 * 11
        calls += [
            calls[0]._replace(ts=start + 60 * n / rush, id=f"{agent}-{day}-{n}")
            for n in range(rush)
        ]
    return sorted(calls, key=lambda call: call.ts)


@pytest.fixture(scope="module")
def calls() -> list[Observation]:
    both = bursty("triage", 1) + list(traffic("<img src=x onerror=1>", START, 10, 20, 2))
    return sorted(both, key=lambda call: call.ts)


def test_every_knob_turns_a_threshold_that_exists() -> None:
    settings = DetectionSettings()
    for knob in KNOBS:
        for value in knob.values:
            turned = knob.set(settings, value)
            assert knob.of(turned) == value
            assert type(getattr(getattr(turned, knob.section), knob.name)) is type(
                getattr(getattr(settings, knob.section), knob.name)
            )


def middle(calls: list[Observation]) -> float:
    return learned_at(calls[0].ts, calls[-1].ts)


def test_of_a_long_history_whole_callers_are_taken_and_the_weeks_kept() -> None:
    def call(number: int, agent: str) -> Observation:
        return Observation(ts=START + number, id=str(number), agent=agent)

    calls = [call(n, f"agent-{n % 10}") for n in range(1000)]
    some = some_of(lambda: calls, 350)
    agents = {c.agent for c in some}
    assert len(agents) == 3 and [c for c in calls if c.agent in agents] == some
    assert some_of(lambda: calls, 1000) == calls
    one = [call(n, "one" if n % 20 else "two") for n in range(1000)]
    assert some_of(lambda: one, 400) == one[-400:], "one caller makes nearly all"


def test_what_is_proposed_keeps_to_the_wanted_rate_when_replayed(calls: list[Observation]) -> None:
    before = run("now", calls, DetectionSettings(), PolicySettings(), learned=middle(calls))
    assert before.loud_a_week > 0, "the rushes ring with the defaults, or there is nothing to tune"
    wanted = before.loud_a_week / 2
    knobs = [
        knob for knob in KNOBS if knob.path in ("volume.record_ratio", "floors.calls_in_60_seconds")
    ]
    found = propose(calls, DetectionSettings(), PolicySettings(), wanted_a_week=wanted, knobs=knobs)
    again = run("check", calls, found.settings, PolicySettings(), learned=middle(calls))
    assert again.loud_a_week == found.after.loud_a_week <= wanted
    assert found.changes
    for change in found.changes:
        assert change.old != change.new
        assert "alarms per key-week" in change.reason
    assert set(found.curves) == {knob.path for knob in knobs}


def test_limits_are_above_anything_seen(calls: list[Observation]) -> None:
    trial = run("now", calls, DetectionSettings(), PolicySettings(), learned=middle(calls))
    limits = propose_limits(trial)
    busiest = 0
    for start in range(len(calls)):
        window = [c for c in calls[start : start + 600]
                  if c.agent == "triage" and c.ts < calls[start].ts + 60]  # fmt: skip
        busiest = max(busiest, len(window))
        if calls[start].ts > START + 9 * 86400:
            break
    requests = next(
        x for x in limits if x["metric"] == "requests" and x.get("values") == ["triage"]
    )
    assert requests["limit"] >= 2.5 * busiest
    with_limits = DetectionSettings(**yaml_limits(limits))
    assert run("x", calls, with_limits, PolicySettings(), learned=None).signals["hard_limit"] == 0


def yaml_limits(limits: list[dict[str, object]]) -> dict[str, object]:
    from pydantic import TypeAdapter

    read = TypeAdapter(DetectionSettings).validate_python({"limits": limits})
    return {"limits": read.limits}


def test_round_numbers() -> None:
    assert [nice(v) for v in (0, 0.0231, 97.2, 100, 1234, 9.9)] == [0, 0.024, 98, 100, 1300, 9.9]


class Strict(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for n, v in attrs if n in ("src", "href", "onerror")]


def test_the_report_loads_nothing_and_escapes_names(calls: list[Observation]) -> None:
    trial = run("<script>", calls, DetectionSettings(), PolicySettings(), learned=middle(calls))
    trial.hurt["<img src=x onerror=1>"] = 3
    assert trial.episodes
    trial.episodes.insert(0, replace(trial.episodes[0], value="<img src=x onerror=2>"))
    reader = Strict()
    reader.feed(page([trial, trial], None, ""))
    assert not {"script", "img", "link", "iframe"} & set(reader.tags)
    assert reader.loads == []
    assert reader.tags.count("svg") == 2


def test_the_command_proposes_a_difference_that_the_checker_accepts(
    tmp_path: Path, calls: list[Observation]
) -> None:
    history = tmp_path / "calls.jsonl"
    history.write_text("".join(json.dumps(call._asdict()) + "\n" for call in calls))
    config = tmp_path / "tokenweir.yaml"
    config.write_text("mode: observe\ndetection:\n  volume: {record_ratio: 1.5}\n")
    held = config.read_text()
    report = tmp_path / "report.html"
    done = CliRunner().invoke(
        app,
        ["tune", "--history", str(history), "--config", str(config), "--report", str(report),
         "--alarms-per-key-week", "0.3", "--most-calls", "3000"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert config.read_text() == held
    assert report.stat().st_size > 5000
    lines = done.stdout.splitlines()
    added = "\n".join(line[1:].rstrip() for line in lines if line[:1] == "+" and line[:3] != "+++")
    assert "limits:" in added
    assert "# limits:" in done.stdout

    few = tmp_path / "few.jsonl"
    few.write_text(json.dumps(calls[0]._asdict()) + "\n")
    refused = CliRunner().invoke(app, ["tune", "--history", str(few)])
    assert refused.exit_code == 1
    assert "too few" in refused.output


def test_the_difference_applied_is_a_valid_section(calls: list[Observation]) -> None:
    from pydantic import TypeAdapter

    from proxy.commands.tune import _difference

    found = propose(
        calls[-3000:], DetectionSettings(), PolicySettings(), wanted_a_week=0.3, knobs=KNOBS[:3]
    )
    difference = _difference(None, found)
    new = "\n".join(
        line[1:] for line in difference.splitlines() if line.startswith("+") and line[:3] != "+++"
    )
    section = yaml.safe_load(new)["detection"]
    read = TypeAdapter(DetectionSettings).validate_python(section)
    assert read.limits
    for change in found.changes:
        name, _, field = change.path.partition(".")
        assert getattr(getattr(read, name), field) == change.new
