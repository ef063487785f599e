"""An import counts every row once, whatever is imported again or breaks off."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from detection.types import Observation
from proxy.history import importing
from proxy.history.archive import Archive
from proxy.history.importing import Outcome, import_file
from proxy.history.markers import ImportBusyError, Markers
from proxy.history.rows import Aggregate, Options
from proxy.history.source import Source
from proxy.pricing import Pricer, PricingSettings
from proxy.store.settings import StoreSettings
from proxy.store.store import Store

NOW = time.time() - 3600
PRICER = Pricer(PricingSettings())


@pytest.fixture
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    settings = StoreSettings(timeout_seconds=2.0)
    opened = await Store.open(settings, tmp_path_factory.mktemp("s"), worker="import")
    yield opened
    await opened.stop()


def observation(number: int, **changes: Any) -> dict[str, Any]:
    row = Observation(
        ts=NOW - number * 7.0,
        id=f"c{number}",
        key="key_a",
        agent=f"agent-{number % 3}",
        provider="openai",
        model="gpt-4.1-mini",
        endpoint="chat_completions",
        status=200 if number % 10 else 500,
        input_tokens=1000,
        output_tokens=100,
        cost_nano_usd=560_000,
        usage_source="reported",
    )
    return {**row._asdict(), **changes}


def journal(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def bring(path: Path, home: Path, store: Store | None = None, **more: Any) -> Outcome:
    return await import_file(
        Source(path),
        home,
        format_name="auto",
        options=Options(**more),
        pricer=PRICER,
        rejected=home / "rejected.jsonl",
        counters=store.counters if store else None,
        now=time.time(),
    )


async def totals(store: Store) -> tuple[int, int, int]:
    rows = await store.usage("total", 5 * 86400)
    counts = rows[0].counts
    return counts.requests, counts.errors, counts.cost_nano_usd


async def test_store_holds_what_the_file_held_and_no_more(tmp_path: Path, store: Store) -> None:
    rows = [observation(n) for n in range(5000)]
    path = journal(tmp_path / "a.jsonl", rows)
    outcome = await bring(path, tmp_path / "home", store)
    assert (outcome.added, outcome.calls) == (5000, 5000)
    assert await totals(store) == (5000, 500, 5000 * 560_000)
    agents = {row.value: row.counts.requests for row in await store.usage("agent", 5 * 86400)}
    assert agents == {"agent-0": 1667, "agent-1": 1667, "agent-2": 1666}

    again = await bring(path, tmp_path / "home", store)
    assert (again.added, again.known) == (0, 5000)
    overlapping = journal(tmp_path / "b.jsonl", [observation(n) for n in range(4000, 6000)])
    third = await bring(overlapping, tmp_path / "home", store)
    assert (third.added, third.known) == (1000, 1000)
    assert await totals(store) == (6000, 600, 6000 * 560_000)


class BrokenOffError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("where", ["archived", "committed", "sent"])
async def test_an_import_that_breaks_off_goes_on_without_counting_twice(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(importing, "_CHUNK_ROWS", 100)
    path = journal(tmp_path / "a.jsonl", [observation(n) for n in range(1000)])
    home = tmp_path / "home"
    for chunk in range(1, 12):
        calls = 0
        real_add, real_apply, real_commit = Archive.add, type(store.counters).apply, Markers.commit

        def step(after: int = chunk) -> None:
            nonlocal calls
            calls += 1
            if calls == after:
                raise BrokenOffError

        def add(self: Archive, rows: Any, markers: Markers, real: Any = real_add) -> None:
            real(self, rows, markers)
            step()

        def commit(self: Markers, real: Any = real_commit) -> None:
            real(self)
            step()

        async def apply(self: Any, batch: Any, real: Any = real_apply) -> Any:
            reply = await real(self, batch)
            step()
            return reply

        target = {
            "archived": (Archive, "add", add),
            "committed": (Markers, "commit", commit),
            "sent": (type(store.counters), "apply", apply),
        }[where]
        with monkeypatch.context() as patched:
            patched.setattr(*target)
            try:
                await bring(path, home, store)
            except BrokenOffError:
                continue
            break
    outcome = await bring(path, home, store)
    assert outcome.added + outcome.known == 1000
    assert await totals(store) == (1000, 100, 1000 * 560_000)
    kept = list(Archive(home).observations())
    assert len(kept) == len({row.id for row in kept}) == 1000


async def test_archive_gives_rows_back_in_order_of_time(tmp_path: Path) -> None:
    rows = [observation(n, ts=NOW - n * 100.0) for n in range(2000)]
    random.Random(4).shuffle(rows)
    path = journal(tmp_path / "a.jsonl", rows)
    await bring(path, tmp_path / "home")
    kept = list(Archive(tmp_path / "home").observations())
    assert [row.ts for row in kept] == sorted(row["ts"] for row in rows)
    assert kept[0] == Observation(**{**observation(1999, ts=NOW - 199_900.0), "finish_reasons": ()})
    late = list(Archive(tmp_path / "home").rows(since=NOW - 5000))
    assert {row.id for row in late} == {f"c{n}" for n in range(51)}


async def test_usage_and_cost_exports_of_one_day_are_one_money(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "contract" / "importers" / "openai"
    first = await bring(folder / "usage_dashboard.csv", tmp_path / "home")
    assert first.added == 1
    assert first.cost_nano_usd > 0, "tokens without a cost are priced"
    second = await bring(folder / "costs_api.json", tmp_path / "home")
    assert (second.counted_otherwise, second.added) == (0, 1), "another day's cost goes in"
    third = await bring(folder / "cost_dashboard.csv", tmp_path / "home")
    assert (third.counted_otherwise, third.added) == (1, 0)


async def test_bad_rows_are_named_and_set_aside_without_their_prompts(tmp_path: Path) -> None:
    bad = observation(1, input_tokens=-4, messages="secret prompt " * 100)
    secret = "sk-proj-" + "a1B2" * 10
    rows = [observation(0), bad, observation(2, status=9000, key=secret)]
    outcome = await bring(journal(tmp_path / "a.jsonl", rows), tmp_path)
    assert (outcome.added, outcome.tally.rejected) == (1, 2)
    told = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in told] == [
        (2, "input_tokens: -4 is below zero"),
        (3, "status: 9000 is not an HTTP status"),
    ]
    assert secret not in (tmp_path / "rejected.jsonl").read_text()
    assert len(told[0]["row"]["messages"]) < 250


async def test_two_imports_at_once_are_refused(tmp_path: Path) -> None:
    path = journal(tmp_path / "a.jsonl", [observation(0)])
    with Markers(tmp_path / "imports.db"):
        refused = asyncio.create_task(bring(path, tmp_path))
        with pytest.raises(ImportBusyError, match="another import"):
            await refused


async def test_a_store_that_was_emptied_takes_later_imports(tmp_path: Path, store: Store) -> None:
    await bring(journal(tmp_path / "a.jsonl", [observation(n) for n in range(50)]), tmp_path, store)
    await store.link.command("FLUSHALL")
    await bring(
        journal(tmp_path / "b.jsonl", [observation(n) for n in range(50, 90)]), tmp_path, store
    )
    assert (await totals(store))[0] == 40


def test_archive_cells_are_readable_by_anything(tmp_path: Path) -> None:
    row = Aggregate(start=NOW, seconds=3600, id="a", basis="usage", requests=3, cost_nano_usd=9)
    with Markers(tmp_path / "imports.db") as markers:
        Archive(tmp_path).add([row], markers)
        markers.commit()
    [path] = (tmp_path / "history").glob("*/*.gz")
    assert json.loads(gzip.decompress(path.read_bytes()))["requests"] == 3
    assert list(Archive(tmp_path).rows()) == [row]
