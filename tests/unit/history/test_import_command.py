"""`tokenweir import` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from detection.engine import Engine
from detection.types import Series
from proxy.cli import app
from proxy.history.baselines import take
from tests.unit.history.test_baselines import DAYS, START, history, hourly


def test_a_newcomers_import_from_file_to_known_series(tmp_path: Path) -> None:
    export = tmp_path / "spend.csv"
    hourly(history(), export)
    with export.open("a") as out:
        out.write("never,key,agent,m,openai,1,1,1,1\n")
    home = tmp_path / "home"
    command = ["import", str(export), "--data-dir", str(home)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "1 set aside" in done.output
    assert "series known" in done.output
    [bad] = (tmp_path / "spend.csv.rejected.jsonl").read_text().splitlines()
    assert json.loads(bad)["reason"] == "ts: 'never' is not a time"
    engine = Engine()
    assert take(engine, home)
    view = engine.view(Series("agent", "busy"), START + DAYS * 86400)
    assert view is not None
    assert view.state == "known"

    again = CliRunner().invoke(app, [*command, "--no-store", "--no-baselines"])
    assert again.exit_code == 0, again.output
    assert "0 rows added" in again.output
    assert "were imported before" in again.output


def test_columns_are_mapped_and_wrong_ones_named(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("when,bot,usd\n2026-03-01T10:00:00Z,triage,0.5\n")
    command = ["import", str(table), "--data-dir", str(tmp_path / "h"), "--no-store"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 1
    assert "when, bot, usd" in told.output
    mapped = [*command, "--column", "ts=when", "--column", "agent=bot", "--column", "cost_usd=usd"]
    done = CliRunner().invoke(app, mapped)
    assert done.exit_code == 0, done.output
    assert "1 rows added, 1 calls, $0.50" in done.output
    refused = CliRunner().invoke(app, [*command, "--column", "tokens=usd"])
    assert refused.exit_code == 2
    assert "input_tokens" in refused.output
    missing = CliRunner().invoke(app, ["import", str(tmp_path / "no"), "--no-store",
                                       "--data-dir", str(tmp_path)])  # fmt: skip
    assert missing.exit_code == 1
    assert "No such file" in missing.output
