"""What is written out can be read in again, to the field."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import IO

import orjson
import pytest
from typer.testing import CliRunner

from detection.types import Observation
from proxy.cli import app
from proxy.clock import Clock
from proxy.history.exporters import WRITERS
from proxy.history.focus_rows import COLUMNS
from proxy.history.own import calls_of_file
from proxy.journal import Journal, JournalSettings

HOUR = 1_772_323_200.0


def call(number: int, **changes: object) -> Observation:
    base = Observation(
        ts=HOUR + number,
        id=f"c{number}",
        key="key_a",
        agent="triage" if number % 2 else 'a "quoted", agent',
        project="support",
        tags={"env": "prod", "team": "ä,b"},
        provider="openai",
        endpoint="chat_completions",
        model="gpt-4.1-mini",
        status=200,
        input_tokens=1000,
        cached_input_tokens=0,
        output_tokens=100,
        cost_nano_usd=123_456_789,
        usage_source="reported",
        finish_reasons=("stop",),
        stream=True,
        latency_seconds=1.25,
        action="allow",
    )
    return base._replace(**changes)  # type: ignore[arg-type]


CALLS = [*(call(n) for n in range(50)), call(50, status=None, input_tokens=None, tags={}),
         call(51, ts=HOUR + 3600, cost_nano_usd=None)]  # fmt: skip


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"calls.{name}"
    write: Callable[[Iterable[Observation], IO[bytes]], int] = WRITERS[name]
    with path.open("wb") as out:
        assert write(iter(CALLS), out) == len(CALLS)
    assert calls_of_file(path) == CALLS


def focus(calls: list[Observation]) -> list[dict[str, str]]:
    out = io.BytesIO()
    WRITERS["focus"](iter(calls), out)
    return list(csv.DictReader(io.StringIO(out.getvalue().decode())))


def test_focus_charges_add_up_to_the_nano_dollar_and_the_token() -> None:
    rows = focus(CALLS)
    assert list(rows[0]) == list(COLUMNS)
    cost = sum(Decimal(row["BilledCost"]) for row in rows)
    assert cost * 10**9 == sum(c.cost_nano_usd or 0 for c in CALLS)
    tokens = sum((c.input_tokens or 0) + (c.output_tokens or 0) for c in CALLS)
    assert sum(int(row["ConsumedQuantity"]) for row in rows) == tokens
    assert {row["ChargePeriodStart"] for row in rows} == {
        "2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z"
    }  # fmt: skip
    assert {row["BillingPeriodEnd"] for row in rows} == {"2026-04-01T00:00:00Z"}


def test_focus_of_december_ends_in_the_next_year() -> None:
    [row] = focus([call(0, ts=1_796_040_000.0 + 20 * 86400)])
    assert row["BillingPeriodStart"][:7] == "2026-12"
    assert row["BillingPeriodEnd"] == "2027-01-01T00:00:00Z"


def test_late_calls_make_further_charges_and_lose_nothing() -> None:
    calls = [call(n, ts=HOUR + (n * 7919 % 40) * 3600) for n in range(400)]
    rows = focus(calls)
    assert sum(Decimal(r["BilledCost"]) for r in rows) * 10**9 == 400 * 123_456_789


def test_our_focus_is_read_by_our_importer(tmp_path: Path) -> None:
    from proxy.history.reader import read_rows
    from proxy.history.source import Source

    path = tmp_path / "focus.csv"
    with path.open("wb") as out:
        WRITERS["focus"](iter(CALLS), out)
    rows = list(read_rows(Source(path)))
    assert sum(row.cost_nano_usd or 0 for row in rows) == sum(c.cost_nano_usd or 0 for c in CALLS)


def test_formulas_do_not_run_in_a_spreadsheet() -> None:
    out = io.BytesIO()
    WRITERS["csv"](iter([call(0, agent="=HYPERLINK(1)")]), out)
    row = next(csv.DictReader(io.StringIO(out.getvalue().decode())))
    assert row["agent"] == "'=HYPERLINK(1)"


def test_command_writes_the_journals_calls_that_were_asked_for(tmp_path: Path) -> None:
    for worker in ("0", "1"):
        clock = Clock()
        journal = Journal(
            tmp_path / "journal" / worker, JournalSettings(), clock=clock, monotonic=clock.monotonic
        )
        journal.append_many(c for c in CALLS if str(int(c.id[1:]) % 2) == worker)
        journal.close()
    out = tmp_path / "out.jsonl"
    done = CliRunner().invoke(
        app, ["export", str(out), "--data-dir", str(tmp_path), "--since", "2026-03-01T00:00:10Z",
              "--until", "2026-03-01T00:00:20Z", "--agent", "triage"]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [orjson.loads(line)["id"] for line in out.read_bytes().splitlines()] == [
        f"c{n}" for n in range(11, 20, 2)
    ]
    assert not out.with_name("out.jsonl.part").exists()
    refused = CliRunner().invoke(app, ["export", "--data-dir", str(tmp_path), "--since", "now"])
    assert refused.exit_code == 2
