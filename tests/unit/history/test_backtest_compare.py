"""Several configurations side by side, as a person types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from proxy.cli import app
from tests.unit.history.test_baselines import DAYS, START, traffic, what_follows


def calls(path: Path) -> Path:
    """Ten quiet days, then the day on which `steady` runs away."""
    past = [*traffic("steady", START, DAYS, 20, 1)]
    held = sorted([*past, *what_follows()], key=lambda call: call.ts)
    path.write_text("".join(json.dumps(call._asdict()) + "\n" for call in held))
    return path


def test_two_policies_over_the_same_calls(tmp_path: Path) -> None:
    history = calls(tmp_path / "calls.jsonl")
    wide, off = tmp_path / "wide.yaml", tmp_path / "<off>.yaml"
    wide.write_text("mode: enforce\n")
    off.write_text(
        "detection:\n  floors: {calls_in_60_seconds: 100000, dollars_in_5_minutes: 100000}\n"
    )
    page = tmp_path / "page.html"
    done = CliRunner().invoke(
        app,
        ["backtest", "--observations", str(history), "--config", str(wide), "--config", str(off),
         "--learned", "--report", str(page)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    html = page.read_text()
    row = html.partition("Calls refused by a throttle</th>")[2].partition("</tr>")[0]
    stopped = [int(cell.replace(",", "")) for cell in re.findall(r"<td>([\d,]+)</td>", row)]
    assert len(stopped) == 2
    assert stopped[0] > 300, "the runaway's calls"
    assert stopped[1] < stopped[0]
    assert "<td>steady</td>" in html
    assert "&lt;off&gt;.yaml" in html and "<off>" not in html
    assert not re.search(r"(src|href)=", html), "it loads nothing"
    assert html.count("<svg") == 2


def test_out_is_for_one_configuration(tmp_path: Path) -> None:
    history = calls(tmp_path / "calls.jsonl")
    done = CliRunner().invoke(
        app,
        ["backtest", "--observations", str(history), "--report", str(tmp_path / "p.html"),
         "--out", str(tmp_path / "o.jsonl")],
    )  # fmt: skip
    assert done.exit_code == 2


def test_a_data_directory_without_calls_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["backtest", "--data-dir", str(tmp_path)])
    assert "No calls to replay" in done.output
