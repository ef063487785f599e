"""The dashboard's reads, from a real store with a real past."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from detection.engine import Engine
from detection.types import Action, ActionKind, Series
from proxy.admin import series_routes
from proxy.admin.bands import expected_band
from proxy.admin.reader import Reader
from proxy.admin.settings import AdminSettings, AdminToken
from proxy.store.counters import Delta
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.unit.admin.conftest import at, bearer
from tests.unit.admin.past import CALLERS, Filler, counts_of

SCOPED = "scoped-token-0123456789"
SETTINGS = AdminSettings(
    tokens=(AdminToken(name="team", token=SCOPED, projects=("support", "search")),)
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(StoreSettings(timeout_seconds=5.0), tmp_path / "store-data")
    yield opened
    await opened.stop()


async def get(client, server, path: str, token: str | None = None) -> tuple[int, dict]:
    headers = bearer(token) if token else bearer()
    async with client.get(at(server, path), headers=headers) as answer:
        return answer.status, await answer.json()


class Gate:
    """Only what the pages ask of a gate."""

    def __init__(self, *actions: Action) -> None:
        self._actions = actions

    def actions(self) -> tuple[Action, ...]:
        return self._actions


async def test_usage_is_what_was_counted(start, client, store: Store) -> None:
    server = await start(clock=store.clock, reader=Reader(store.counters, store.clock))
    now = store.clock()
    filler = Filler(store)
    caller = CALLERS[0]
    await filler.past(now, days=2, callers=[caller])
    status, found = await get(client, server, "/api/v1/usage?by=agent&window=24h")
    before = found["rows"][0]
    assert (status, before["value"]) == (200, "support-triage")
    row = counts_of(caller, 7, errors=2)
    await filler.send([Delta.of(s, int(now) // 10, row) for s in caller.series()])
    async with asyncio.timeout(60):  # a slow answer is shown once more while it is renewed
        after = before
        while after == before:
            await asyncio.sleep(0.05)
            _, found = await get(client, server, "/api/v1/usage?by=agent&window=24h")
            after = found["rows"][0]
    assert after["requests"] - before["requests"] == 7
    assert after["errors"] - before["errors"] == 2
    assert after["cost_nano_usd"] - before["cost_nano_usd"] == row[1]
    for by in ("total", "key", "model", "project", "provider"):
        status, found = await get(client, server, f"/api/v1/usage?by={by}&window=24h")
        assert found["rows"][0]["requests"] == after["requests"], by
        assert set(found["rows"][0]) >= {
            "value", "requests", "errors", "input_tokens", "cached_input_tokens",
            "output_tokens", "cost_nano_usd",
        }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/usage",
        "/api/v1/usage?by=session",
        "/api/v1/usage?by=total&window=3h",
        "/api/v1/usage?by=total&format=xml",
        "/api/v1/series?by=key&sort=nothing",
        "/api/v1/series?by=key&order=up",
        "/api/v1/series?by=key&limit=-1",
        "/api/v1/series?by=key&limit=100000000000000000000",
        "/api/v1/series?by=key&limit=%C2%B2",
    ],
)
async def test_bad_parameters_are_400(start, client, store, path) -> None:
    server = await start(clock=store.clock, reader=Reader(store.counters, store.clock))
    status, found = await get(client, server, path)
    assert status == 400
    assert found["error"]["message"]


async def test_a_scoped_token_sees_its_projects_and_is_told_nothing_else(
    start, client, store: Store
) -> None:
    server = await start(SETTINGS, clock=store.clock, reader=Reader(store.counters, store.clock))
    await Filler(store).past(store.clock(), days=1)
    for path in ("/api/v1/usage?by=project&window=24h", "/api/v1/series?by=project"):
        status, found = await get(client, server, path, SCOPED)
        assert status == 200
        assert {row["value"] for row in found["rows"]} == {"support", "search"}
    path = "/api/v1/series/detail?by=project&value=support"
    _, mine = await get(client, server, path, SCOPED)
    _, everyones = await get(client, server, path)
    assert (mine["peers"]["count"], everyones["peers"]["count"]) == (2, 4)
    assert mine["totals"] == everyones["totals"]
    refused = [
        "/api/v1/usage?by=total",
        "/api/v1/usage?by=agent",
        "/api/v1/usage?by=project&value=billing",
        "/api/v1/usage?by=project&value=no-such-project",
        "/api/v1/series?by=key",
        "/api/v1/series/detail?by=project&value=billing",
        "/api/v1/series/detail?by=project&value=no-such-project",
        "/api/v1/series/detail?by=agent&value=support-triage",
        "/api/v1/overview",
    ]
    answers = {str(await get(client, server, path, SCOPED)) for path in refused}
    assert len(answers) == 1, answers
    assert "404" in answers.pop()


async def test_the_table_sorts_searches_pages_and_tells_states(start, client, store: Store) -> None:
    now = store.clock()
    blocked = Action("a1", ActionKind.BLOCK, Series("agent", "code-review"), now, now + 600)
    server = await start(
        clock=store.clock,
        reader=Reader(store.counters, store.clock),
        engine=Engine(),
        gate=Gate(blocked),
    )
    await Filler(store).past(now, days=2)
    path = "/api/v1/series?by=agent&window=24h"
    _, found = await get(client, server, path)
    rows = {row["value"]: row for row in found["rows"]}
    assert found["total"] == len(CALLERS)
    assert rows["code-review"]["state"] == "blocked"
    assert rows["invoice-parser"]["state"] == "quiet"
    costs = [row["cost_nano_usd"] for row in found["rows"]]
    assert costs == sorted(costs, reverse=True)
    triage = rows["support-triage"]
    # The spark leaves out the hour that the window's start cuts.
    assert len(triage["spark"]) == 24
    assert 0.85 * triage["cost_nano_usd"] < sum(triage["spark"]) <= triage["cost_nano_usd"]
    assert triage["cost_per_request_nano_usd"] == 8_800_000
    middle = sorted(costs)[len(costs) // 2]
    assert triage["times_median_cost"] == pytest.approx(triage["cost_nano_usd"] / middle, abs=0.01)
    assert triage["record_calls_5_minutes"] is None, "detection has not seen it yet"
    _, found = await get(client, server, f"{path}&sort=value&order=asc&limit=2&offset=1")
    assert [row["value"] for row in found["rows"]] == ["code-review", "invoice-parser"]
    _, found = await get(client, server, f"{path}&q=REPORT")
    assert [row["value"] for row in found["rows"]] == ["nightly-report"]


async def test_csv_holds_the_same_rows(start, client, store: Store) -> None:
    server = await start(clock=store.clock, reader=Reader(store.counters, store.clock))
    await Filler(store).past(store.clock(), days=1)
    _, found = await get(client, server, "/api/v1/usage?by=model&window=24h")
    url = at(server, "/api/v1/usage?by=model&window=24h&format=csv")
    async with client.get(url, headers=bearer()) as answer:
        assert "attachment" in answer.headers["Content-Disposition"]
        rows = list(csv.DictReader(io.StringIO(await answer.text())))
    assert [(r["value"], int(r["cost_nano_usd"])) for r in rows] == [
        (r["value"], r["cost_nano_usd"]) for r in found["rows"]
    ]


async def test_detail_names_parts_peers_and_band(start, client, store: Store) -> None:
    server = await start(
        clock=store.clock, reader=Reader(store.counters, store.clock), engine=Engine()
    )
    # Enough weekends among the days, so that today is compared with its like.
    await Filler(store).past(store.clock(), days=24)
    _, found = await get(
        client, server, "/api/v1/series/detail?by=key&value=key_4f1c09a2be77&window=24h"
    )
    assert [part["value"] for part in found["parts"]] == ["gpt-4o", "gpt-4o-mini"]
    assert found["parts"][0]["by"] == "model"
    assert found["peers"]["count"] == 3
    band = found["bands"]["requests"]
    assert len(band["expected"]) == len(found["curve"]["times"])
    # The sums begin with the bucket that holds the window's start, the curve after it.
    assert sum(found["curve"]["requests"]) == pytest.approx(found["totals"]["requests"], rel=0.03)
    hourly = sum(band["expected"])
    assert hourly == pytest.approx(sum(found["curve"]["requests"]), rel=0.2)
    _, found = await get(client, server, "/api/v1/series/detail?by=key&value=unknown")
    assert found["totals"] is None and found["view"] is None


@pytest.mark.parametrize("window", ["1h", "24h", "7d"])
@pytest.mark.parametrize(
    ("by", "value", "parts"),
    [
        ("key", "key_4f1c09a2be77", ["gpt-4o", "gpt-4o-mini"]),
        ("agent", "code-review", ["claude-sonnet-4"]),
        ("model", "gpt-4o-mini", ["key_4f1c09a2be77", "key_77b0e2c91d55"]),
    ],
)
async def test_parts_are_the_same_by_name_and_out_of_all(
    start, client, store: Store, monkeypatch, by, value, parts, window
) -> None:
    now = store.clock()
    await Filler(store).past(now, days=8)
    server = await start(clock=lambda: now, reader=Reader(store.counters, lambda: now))
    path = f"/api/v1/series/detail?by={by}&value={value}&window={window}"
    _, by_name = await get(client, server, path)
    monkeypatch.setattr(series_routes, "_MOST_PAIRS", -1)
    _, of_all = await get(client, server, path)
    assert by_name["parts"] == of_all["parts"]
    if window != "1h":
        assert [part["value"] for part in by_name["parts"]] == parts
        total = sum(part["cost_nano_usd"] for part in by_name["parts"])
        assert total == by_name["totals"]["cost_nano_usd"]


async def test_the_overview_has_the_eight_metrics(start, client, store: Store) -> None:
    server = await start(
        clock=store.clock, reader=Reader(store.counters, store.clock), engine=Engine()
    )
    await Filler(store).past(store.clock(), days=5)
    status, found = await get(client, server, "/api/v1/overview?window=6h")
    assert status == 200
    for span in ("15m", "1h"):
        metrics = found["metrics"][span]
        assert metrics["requests"] > 0
        assert metrics["cost_nano_usd"] > 0
        assert metrics["by_model"][0]["value"]
        assert metrics["by_key"][0]["value"].startswith("key_")
        assert metrics["cost_per_request_nano_usd"] > 0
        assert metrics["output_tokens_per_request"] > 0
        assert metrics["error_rate"] is not None
        assert metrics["finish_reasons"] == {}
        assert metrics["usual"]["requests"] > 0
    assert found["bands"]["cost_nano_usd"]["high"][0] >= found["bands"]["cost_nano_usd"]["low"][0]


async def test_the_first_call_turns_the_panel_green(start, client, store: Store) -> None:
    server = await start(clock=store.clock, reader=Reader(store.counters, store.clock))
    assert (await get(client, server, "/api/v1/first-call"))[1]["seen"] is False
    await Filler(store).past(store.clock(), days=1, callers=CALLERS[:1])
    async with asyncio.timeout(60):  # a slow answer is shown once more while it is renewed
        while not (found := (await get(client, server, "/api/v1/first-call"))[1])["seen"]:
            await asyncio.sleep(0.1)
    assert found["agent"] == "support-triage" and found["model"] == "gpt-4o"


async def test_a_store_that_is_away_is_a_503_that_says_so(start, client, tmp_path: Path) -> None:
    away = Store(StoreSettings(url=f"unix://{tmp_path}/nothing.sock"), tmp_path, "0")
    server = await start(reader=Reader(away.counters, away.clock))
    status, found = await get(client, server, "/api/v1/usage?by=total")
    assert status == 503
    assert "calls are still served" in found["error"]["message"]


def test_a_band_needs_three_days_and_knows_the_hour() -> None:
    day = 86_400
    start = 1_700_006_400.0 // day * day
    hours = [
        (start + d * day + h * 3600, 100.0 if h == 12 else 10.0)
        for d in range(5)
        for h in range(24)
    ]
    now = start + 5 * day
    times = [now + 12 * 3600, now + 13 * 3600]
    band = expected_band(hours, start, times, 3600)
    assert band is not None
    assert band.expected == [100.0, 10.0]
    assert expected_band(hours, start, times, 300).expected == [8.333, 0.833]
    assert expected_band(hours[-48:], hours[-48][0], times, 3600) is None
    gone = [(at, amount) for at, amount in hours if at < start + day]
    assert expected_band(gone, start, times, 3600).expected == [0.0, 0.0]


@pytest.mark.parametrize("hour", [0, 7, 15, 23])
def test_a_band_tells_weekends_from_weekdays_at_any_hour(hour: int) -> None:
    """A curve that begins at any hour: Saturdays are compared with Saturdays."""
    day = 86_400

    def weekend(at: float) -> bool:
        return int(at // day) % 7 in (2, 3)

    start = 1_700_006_400.0 // day * day + hour * 3600
    hours = [
        (at, 10.0 if weekend(at) else 100.0)
        for n in range(28 * 24)
        if (at := start + n * 3600.0) < start + 28 * day
    ]
    times = [start + 28 * day + n * 3600.0 for n in range(7 * 24)]
    band = expected_band(hours, start, times, 3600)
    assert band.expected == [10.0 if weekend(at) else 100.0 for at in times]
