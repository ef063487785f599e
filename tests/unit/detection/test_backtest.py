"""The replay and its command: lines, summary, speed of reading, faults in a file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from detection.backtest import Backtest, observation_of
from detection.types import Mode, Observation
from proxy.cli import app
from tests.unit.detection.support import DAY, HOUR, START, call, every, steady

LOOP = {"fingerprint": "f" * 16, "fingerprint_kind": "tool"}
FIELDS = {"ts", "signal", "tier", "scope", "observed", "baseline", "evidence", "learning",
          "action", "until"}  # fmt: skip


def day_with_a_loop() -> list[Observation]:
    calls = [*steady(START, DAY, 1, seed=3), *every(START + 20 * HOUR, 600, 0.5, **LOOP)]
    return sorted(calls, key=lambda o: o.ts)


def as_json(calls: list[Observation]) -> bytes:
    return b"".join(json.dumps(one._asdict()).encode() + b"\n" for one in calls)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["backtest", *map(str, arguments)])


def test_what_would_have_been_stopped_is_counted_to_the_call_and_the_nano_dollar() -> None:
    calls = day_with_a_loop()
    replay = Backtest()
    for one in calls:
        replay.feed(one)
    replay.finish()
    summary = replay.summary
    stopped = summary.throttled.calls + summary.blocked.calls
    assert summary.observations == len(calls)
    assert 1100 < stopped <= 1200, "nearly all of the loop's 1,200 calls"
    assert summary.blocked.cost_nano_usd == summary.blocked.calls * 1_000_000
    assert summary.alarms["emergency"] == 1
    rows = dict(summary.rows())
    assert rows["observations"] == f"{len(calls):,}"
    assert rows["key-weeks"] == f"{summary.key_weeks():.2f}"


@pytest.mark.parametrize("packed", [False, True])
def test_the_command_writes_a_line_per_verdict_and_action_and_a_summary(
    tmp_path: Path, packed: bool
) -> None:
    path = tmp_path / ("calls.jsonl.gz" if packed else "calls.jsonl")
    data = as_json(day_with_a_loop())
    path.write_bytes(gzip.compress(data) if packed else data)
    out = tmp_path / "told.jsonl"
    done = run("--observations", path, "--out", out)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(set(line) == FIELDS for line in lines)
    assert all(set(line["scope"]) == {"dimension", "value"} for line in lines)
    blocks = [line for line in lines if line["action"] == "block"]
    assert blocks
    assert blocks[0]["signal"] == "agent_loop"
    assert blocks[0]["tier"] == "emergency"
    assert blocks[0]["until"] > blocks[0]["ts"]
    assert {"repetition", "volume"} <= set(blocks[0]["evidence"])
    for word in ("key-weeks", "emergency alarms", "calls blocked", "dollars stopped", "speed"):
        assert word in done.output


def test_a_config_changes_what_would_have_been_done(tmp_path: Path) -> None:
    path, config = tmp_path / "calls.jsonl", tmp_path / "tokenweir.yaml"
    path.write_bytes(as_json(day_with_a_loop()))
    out = tmp_path / "told.jsonl"
    config.write_text("detection:\n  rules:\n    agent_loop: {enabled: false}\n")
    done = run("--observations", path, "--config", config, "--out", out)
    assert done.exit_code == 0, done.output
    assert "agent_loop" not in out.read_text()
    config.write_text("detection: {floors: {calls_in_60_seconds: many}}\n")
    refused = run("--observations", path, "--config", config)
    assert refused.exit_code == 2
    assert "tokenweir.yaml:1:" in refused.output


def test_lines_that_are_no_observations_are_told_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    good = as_json([call(START), call(START + 1)])
    path.write_bytes(b'{"segment": 1}\n' + good + b'nonsense\n{"ts": "noon", "id": "x"}\n' + good)
    done = run("--observations", path)
    assert done.exit_code == 0, done.output
    assert (
        "4"
        in dict(
            (part.strip() for part in row.strip("│ ").split("│"))
            for row in done.output.splitlines()
            if row.count("│") == 3
        )["observations"]
    )
    assert "line 4 is no observation" in done.output


def test_nothing_at_all_and_a_missing_file() -> None:
    assert run("--observations", "/nonexistent/calls.jsonl").exit_code == 2


def test_an_empty_file_is_an_empty_summary(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_bytes(b"")
    assert run("--observations", path).exit_code == 0


def test_old_and_short_rows_are_read() -> None:
    assert observation_of({"ts": 5, "id": "x"}) == Observation(5.0, "x")
    full = json.loads(as_json([call(START, tags={"a": "b"})]))
    assert observation_of(full) == call(START, tags={"a": "b"})
    full["something_new"] = 1
    assert observation_of(full).tags == {"a": "b"}


def test_a_silence_ends_what_was_under_way_before_the_next_call() -> None:
    replay, lines = Backtest(), []
    for one in every(START, 60, 0.5, **LOOP):
        lines += replay.feed(one)
    lines += replay.feed(call(START + HOUR))
    ends = [x for x in lines if x["tier"] == "none" and x["signal"] == "agent_loop"]
    assert len(ends) == 1
    assert ends[0]["ts"] < START + 600, "it ended when it ended, not when the next call came"


def test_actions_that_only_shadow_stop_nothing() -> None:
    from detection.settings import PolicySettings

    replay = Backtest(policies=PolicySettings(mode=Mode.SHADOW))
    lines = [line for one in day_with_a_loop() for line in replay.feed(one)]
    assert any(line["action"] == "block" for line in lines)
    assert replay.summary.blocked.calls == replay.summary.throttled.calls == 0
