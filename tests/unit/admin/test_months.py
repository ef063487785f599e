"""A running month is compared with the same days of the last one, and with no more."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from proxy.admin.months import by_month, compare, month_start
from proxy.admin.reader import Reader
from proxy.store.series import Counts
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.unit.admin.conftest import at, bearer
from tests.unit.admin.past import CALLERS, Filler

DAY = 86_400.0


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def every_day(first: str, last: str, cost: int) -> dict[float, Counts]:
    start, end = moment(first), moment(last)
    return {start + n * DAY: Counts(2, cost) for n in range(int((end - start) / DAY) + 1)}


def test_only_whole_days_on_both_sides_count() -> None:
    days = every_day("2026-10-01", "2026-10-31", 10) | every_day("2026-11-01", "2026-11-11", 15)
    found = compare(days, moment("2026-11-11 09:30"))
    assert found["days_compared"] == 10
    assert found["this_month"]["cost_nano_usd"] == 150
    assert found["same_days_before"]["cost_nano_usd"] == 100
    assert found["change"]["cost_nano_usd"] == 0.5
    assert found["change"]["errors"] is None
    curve = found["curve"]
    assert {len(values) for values in curve.values()} == {31}
    assert curve["month_before"][-1] == 310
    assert curve["this_month"][10] == 165 and curve["this_month"][11] is None


def test_months_of_other_lengths() -> None:
    days = every_day("2026-02-01", "2026-02-28", 1) | every_day("2026-03-01", "2026-03-31", 1)
    found = compare(days, moment("2026-03-31 23:00"))
    assert found["days_compared"] == 28
    assert found["change"]["cost_nano_usd"] == 0.0
    assert compare(days, moment("2026-03-01 00:00"))["days_compared"] == 0
    assert month_start(moment("2026-03-31"), 12) == moment("2025-03-01")


def test_rows_by_month() -> None:
    days = every_day("2026-02-20", "2026-03-02", 1) | every_day("2024-01-01", "2024-01-02", 1)
    rows = by_month(days, moment("2026-03-02 12:00"))
    assert [(r["month"], r["days"], r["cost_nano_usd"]) for r in rows] == [
        ("2026-03", 2, 2),
        ("2026-02", 9, 9),
    ]


async def test_months_of_a_real_store(start, client, tmp_path: Path) -> None:
    store = await Store.open(StoreSettings(timeout_seconds=5.0), tmp_path / "store")
    try:
        server = await start(clock=store.clock, reader=Reader(store.counters, store.clock))
        await Filler(store).past(store.clock(), days=40, callers=CALLERS[:1])
        url = at(server, "/api/v1/series/months?by=agent&value=support-triage")
        async with client.get(url, headers=bearer()) as answer:
            assert answer.status == 200
            found = await answer.json()
        assert len(found["rows"]) >= 2
        known = sum(row["days"] for row in found["rows"])
        assert known in (40, 41)
        assert found["curve"]["this_month"][0] is not None
    finally:
        await store.stop()
