"""Hours become calls that add up to them, in order, and a policy can be tried on them."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from proxy.cli import app
from proxy.history.rows import Aggregate
from proxy.history.spreading import spread
from tests.unit.history.test_baselines import HOUR, START, traffic


def hour(at: float, agent: str, requests: int, errors: int = 0) -> Aggregate:
    return Aggregate(
        start=at, seconds=HOUR, id=f"{agent}-{at}", basis="usage", agent=agent, key=f"key-{agent}",
        provider="openai", model="gpt-4.1-mini", requests=requests, errors=errors,
        input_tokens=requests * 1000 + 7, output_tokens=requests * 100 + 3,
        cost_nano_usd=requests * 500_000 + 1,
    )  # fmt: skip


def test_calls_add_up_to_their_hours_and_come_in_order() -> None:
    hours = [hour(START + n * HOUR, a, 40 + n, n) for n in range(5) for a in ("one", "two")]
    single = list(traffic("three", START, 0.2, 30, 1))
    rows = sorted([*hours, *single], key=lambda r: r.start if isinstance(r, Aggregate) else r.ts)
    calls = list(spread(rows))
    assert [c.ts for c in calls] == sorted(c.ts for c in calls)
    assert len({c.id for c in calls}) == len(calls)
    assert [c for c in calls if c.agent == "three"] == single
    for wanted in hours:
        own = [c for c in calls if c.agent == wanted.agent
               and wanted.start <= c.ts < wanted.start + HOUR]  # fmt: skip
        assert len(own) == wanted.requests
        assert sum(c.status != 200 for c in own) == wanted.errors
        for name in ("input_tokens", "output_tokens", "cost_nano_usd"):
            assert sum(getattr(c, name) for c in own) == getattr(wanted, name)
    assert list(spread(rows)) == calls, "the same each time"


def test_a_policy_is_tried_on_a_providers_usage_export(tmp_path: Path) -> None:
    def result(agent: str, requests: int) -> dict[str, object]:
        return {
            "object": "organization.usage.completions.result", "project_id": agent,
            "api_key_id": f"key_{agent}", "model": "gpt-4.1-mini", "num_model_requests": requests,
            "input_tokens": requests * 900, "output_tokens": requests * 90,
        }  # fmt: skip

    hours = 10 * 24
    buckets = [
        {
            "object": "bucket", "start_time": int(START + n * HOUR),
            "end_time": int(START + (n + 1) * HOUR),
            # In its last hours one project runs away.
            "results": [result("steady", 30), result("wild", 6000 if n >= hours - 3 else 30)],
        }
        for n in range(hours)
    ]  # fmt: skip
    export = tmp_path / "usage.json"
    export.write_text(json.dumps({"object": "page", "data": buckets}))
    home = str(tmp_path / "home")
    run = CliRunner().invoke
    done = run(app, ["import", str(export), "--data-dir", home, "--no-store"])
    assert done.exit_code == 0, done.output
    page = tmp_path / "page.html"
    done = run(app, ["backtest", "--data-dir", home, "--learned", "--report", str(page)])
    assert done.exit_code == 0, done.output
    calls = hours * 60 + 3 * 5970
    assert f"Backtest over {calls:,} calls" in done.output
    assert "key_wild" in page.read_text() and "volume_surge" in page.read_text()
    assert "key_steady" not in page.read_text()
