"""A change of the policy file, replayed over recorded calls."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from detection.types import Observation
from proxy import config
from proxy.journal import Journal, JournalSettings
from proxy.whatif import Replay, as_made, compare, context_of
from tests.unit.admin.conftest import at, bearer

NOW = 1_700_000_000.0
LIMITED = """
limits:
  - name: pace
    by: [agent]
    requests: 10
    per: minute
"""
SHADOWED = LIMITED + "    mode: shadow\n"
BUDGET = """
budgets:
  - name: day
    by: [agent]
    amount_usd: 0.00005
    per: day
"""


def calls(count: int = 100, agent: str = "a", start: float = NOW - 7200, **more) -> list:
    """Two calls a second, a microdollar each, every one with another prompt."""
    usual = {"model": "m", "provider": "openai", "endpoint": "chat_completions", "status": 200}
    return [
        Observation(
            ts=start + n / 2, id=f"{agent}{n}", key="key_0123456789ab", agent=agent,
            input_tokens=10, output_tokens=5, cost_nano_usd=1000, usage_source="reported",
            fingerprint=f"{n:016x}", fingerprint_kind="text", **{**usual, **more},
        )
        for n in range(count)
    ]  # fmt: skip


def outcome(text: str, observations: list, count_from: float = 0.0) -> dict:
    replay = Replay(config.trial(text), count_from)
    for call in as_made(observations):
        replay.feed(call, context_of(call))
    return replay.outcome.as_dict()


def test_a_limit_refuses_what_is_beyond_it() -> None:
    found = outcome("mode: enforce" + LIMITED, calls())
    # Fifty seconds and ten calls a minute: 10 in the first calendar minute, 10 in the next.
    passed = found["all"]["calls"] - found["refused"]["calls"]
    assert passed in (10, 20)
    (rule,) = (r for r in found["rules"] if r["rule"] == "pace")
    assert rule["scope"] == "agent a" and rule["calls"] == found["refused"]["calls"]
    assert rule["cost_nano_usd"] == 1000 * rule["calls"]
    assert found["samples"][0]["rule"] == "pace"


def test_shadow_tells_and_refuses_nothing() -> None:
    found = outcome(SHADOWED, calls())
    assert found["refused"]["calls"] == 0
    (rule,) = (r for r in found["rules"] if r["rule"] == "pace")
    assert rule["what"] == "would_block" and rule["calls"] >= 80


def test_a_budget_counts_real_costs() -> None:
    found = outcome(BUDGET, calls())
    assert found["all"]["calls"] - found["refused"]["calls"] == 50


def test_a_loop_is_stopped_by_the_defaults_and_alarms_count_once() -> None:
    looping = calls(150, agent="stuck")
    looping = [c._replace(fingerprint="f" * 16, fingerprint_kind="tool") for c in looping]
    found = outcome("", looping)
    assert found["refused"]["calls"] > 50
    assert found["actions"]["block"] == 1
    assert found["alarms"]["emergency"] == 1
    assert outcome("mode: observe", looping)["refused"]["calls"] == 0


def test_earlier_calls_teach_and_do_not_count() -> None:
    found = outcome(LIMITED, calls(), count_from=NOW - 7200 + 25)
    assert found["all"]["calls"] == 50


def test_refused_calls_stand_as_the_caller_s_last() -> None:
    refused = calls(2, start=NOW, action="block", status=429)
    refused = [c._replace(cost_nano_usd=None, input_tokens=None) for c in refused]
    made = list(as_made([*calls(1), *refused]))
    assert [c.cost_nano_usd for c in made] == [1000, 1000, 1000]
    assert [c.status for c in made] == [200, 200, 200]


def journalled(data_dir: Path, observations: list) -> None:
    journal = Journal(
        data_dir / "journal" / "0", JournalSettings(), clock=lambda: NOW, monotonic=lambda: NOW
    )
    for call in observations:
        journal.append(call)
    journal.close()


def test_two_configurations_are_compared(tmp_path: Path) -> None:
    journalled(tmp_path, [*calls(60), *calls(60, agent="b", start=NOW - 3600)])
    steps = list(compare(tmp_path, config.defaults(), config.trial(LIMITED), 7, NOW))
    result = steps[-1]["result"]
    assert result["now"]["all"]["calls"] == result["then"]["all"]["calls"] == 120
    assert result["now"]["refused"]["calls"] < result["then"]["refused"]["calls"]


async def test_the_api_runs_it_in_a_child(start, client, tmp_path: Path, clock) -> None:
    clock.now = NOW
    server = await start(config=lambda: config.defaults())
    journalled(tmp_path, calls(60))
    url = at(server, "/api/v1/policy/trials")
    async with client.post(url, json={"text": "limitz: 3"}, headers=bearer()) as answer:
        assert answer.status == 400
        assert "limitz" in (await answer.json())["error"]["message"]
    async with client.post(url, json={"text": LIMITED}, headers=bearer()) as answer:
        assert answer.status == 202, await answer.text()
        trial = await answer.json()
    async with client.post(url, json={"text": LIMITED}, headers=bearer()) as answer:
        assert answer.status == 409
    for _ in range(600):
        async with client.get(
            at(server, f"/api/v1/policy/trials/{trial['id']}"), headers=bearer()
        ) as answer:
            found = json.loads(await answer.text())
        if found["state"] != "running":
            break
        await asyncio.sleep(0.1)
    assert (found["state"], found["error"]) == ("done", "")
    assert found["result"]["then"]["refused"]["calls"] > 0
    async with client.get(at(server, "/api/v1/policy/trials/x"), headers=bearer()) as answer:
        assert answer.status == 404
