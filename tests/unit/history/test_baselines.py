"""Imported baselines judge as lived ones do."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from detection.engine import Engine
from detection.types import Observation, Series, Tier, Verdict
from proxy.history import baselines
from proxy.history.archive import Archive
from proxy.history.importing import import_file
from proxy.history.markers import Markers
from proxy.history.rows import Aggregate, Options
from proxy.history.source import Source
from proxy.pricing import Pricer, PricingSettings

START = 1_772_323_200.0
HOUR = 3600.0
DAYS = 10


def traffic(
    agent: str, start: float, days: float, per_hour: float, seed: int
) -> Iterator[Observation]:
    """Calls with a daily rhythm and bursts, in order of time."""
    chance = random.Random(f"{agent}{seed}")
    now, number = start, 0
    while True:
        daily = 1.0 + 0.8 * math.sin((now % 86400) / 86400 * 2 * math.pi)
        burst = 4.0 if chance.random() < 0.05 else 1.0
        now += chance.expovariate(per_hour * daily * burst / HOUR)
        if now >= start + days * 86400:
            return
        number += 1
        yield Observation(
            ts=now,
            id=f"{agent}-{seed}-{number}",
            key=f"key-{agent}",
            agent=agent,
            provider="openai",
            model="gpt-4.1-mini",
            endpoint="chat_completions",
            status=200,
            input_tokens=chance.randint(800, 1200),
            output_tokens=chance.randint(80, 120),
            cost_nano_usd=chance.randint(450_000, 650_000),
            usage_source="reported",
        )


def history() -> list[Observation]:
    calls = [*traffic("steady", START, DAYS, 60, 1), *traffic("busy", START, DAYS, 200, 2)]
    return sorted(calls, key=lambda call: call.ts)


def what_follows() -> list[Observation]:
    """A normal day, in which `steady` runs away for ten minutes and swaps its model."""
    start = START + DAYS * 86400
    calls = [*traffic("steady", start, 1, 60, 3), *traffic("busy", start, 1, 200, 4)]
    for number in range(1200):
        calls.append(
            calls[0]._replace(ts=start + 6 * HOUR + number * 0.5, id=f"x{number}", model="gpt-5",
                              cost_nano_usd=9_000_000)
        )  # fmt: skip
    return sorted(calls, key=lambda call: call.ts)


def live(engine: Engine, calls: list[Observation], every: float = 60.0) -> list[Verdict]:
    told: list[Verdict] = []
    swept = calls[0].ts
    for call in calls:
        while call.ts - swept >= every:
            swept += every
            told += engine.sweep(swept)
        told += engine.observe(call)
    return told


def agree(one: list[Verdict], other: list[Verdict]) -> None:
    """The same verdicts, as early: while calls come thick to a few calls, else within the
    two minutes for which the engine lets a lone call wait."""
    runaway = START + DAYS * 86400 + 6 * HOUR

    def told(verdicts: list[Verdict]) -> dict[Any, list[float]]:
        found: dict[Any, list[float]] = {}
        for v in verdicts:
            found.setdefault((v.signal, v.tier, v.series, v.families), []).append(v.ts)
        return found

    first, second = told(one), told(other)
    assert set(first) == set(second)
    for what, times in first.items():
        assert len(times) == len(second[what]), what
        if what[1] is Tier.NONE:
            continue  # an end comes with the sweep after the last evidence
        for a, b in zip(times, second[what], strict=True):
            assert abs(a - b) <= (15 if runaway <= a <= runaway + 600 else 120), what


def bring(path: Path, home: Path, **options: Any) -> None:
    asyncio.run(
        import_file(
            Source(path),
            home,
            format_name="auto",
            options=Options(**options),
            pricer=Pricer(PricingSettings()),
            rejected=home / "rejected.jsonl",
            counters=None,
            now=time.time(),
        )
    )


def test_a_shuffled_file_of_calls_teaches_what_living_through_them_does(tmp_path: Path) -> None:
    calls = history()
    lived = Engine()
    live(lived, calls)
    lived.finish_learning()

    shuffled = calls.copy()
    random.Random(9).shuffle(shuffled)
    path = tmp_path / "calls.jsonl"
    path.write_text("".join(json.dumps(call._asdict()) + "\n" for call in shuffled))
    bring(path, tmp_path)
    assert baselines.write(tmp_path) > 8
    imported = Engine()
    assert baselines.take(imported, tmp_path)

    following = what_follows()
    wanted = live(lived, following)
    assert any(v.tier >= Tier.CRITICAL and v.series.value == "steady" for v in wanted)
    agree(live(imported, following), wanted)


def hourly(calls: list[Observation], path: Path) -> None:
    """The same history as an export that sums by hour, key, agent and model."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for call in calls:
        held = sums.setdefault((int(call.ts // HOUR), call.key, call.agent, call.model), [0] * 4)
        for place, count in enumerate(
            (1, call.input_tokens or 0, call.output_tokens or 0, call.cost_nano_usd or 0)
        ):
            held[place] += count
    with path.open("w") as out:
        out.write("ts,key,agent,model,provider,requests,input_tokens,output_tokens,cost_nano_usd\n")
        for (hour, key, agent, model), counts in sums.items():
            row = [hour * int(HOUR), key, agent, model, "openai", *counts]
            out.write(",".join(map(str, row)) + "\n")


def test_hourly_sums_find_the_runaway_and_leave_the_normal_day_alone(tmp_path: Path) -> None:
    path = tmp_path / "hours.csv"
    hourly(history(), path)
    bring(path, tmp_path)
    baselines.write(tmp_path)
    engine = Engine()
    baselines.take(engine, tmp_path)
    view = engine.view(Series("agent", "busy"), START + DAYS * 86400)
    assert view is not None
    assert view.state == "known"

    told = [v for v in live(engine, what_follows()) if v.tier >= Tier.CRITICAL]
    assert {v.series.value for v in told if v.series.dimension == "agent"} == {"steady"}
    began = START + DAYS * 86400 + 6 * HOUR
    assert all(began <= v.ts <= began + 1800 for v in told)
    assert told[0].ts - began < 60


def test_sums_reach_the_engine_to_the_call_and_the_nano_dollar(tmp_path: Path) -> None:
    rows = [
        Aggregate(start=START + 3600 * n, seconds=3600, id=f"a{n}{m}", basis="usage", agent="x",
                  model=m, requests=997, input_tokens=10, cost_nano_usd=123_457)
        for n in range(48)
        for m in ("one", "two")
    ]  # fmt: skip
    with Markers(tmp_path / "imports.db") as markers:
        Archive(tmp_path).add(rows, markers)
        markers.commit()
    dump = baselines.learn(Archive(tmp_path).rows()).dump()
    states = {tuple(state["series"]): state for state in dump["states"]}
    for series in (("agent", "x"), ("total", "")):
        state = states[series]
        assert (state["window"]["calls"], state["window"]["cost"]) == (96 * 997, 96 * 123_457)
        assert sum(day[1] for day in state["profile"]["days"]) == pytest.approx(96 * 997, rel=1e-3)


def test_rows_that_do_not_count_calls_teach_no_calls(tmp_path: Path) -> None:
    rows = [
        Aggregate(start=START, seconds=86400, id="a", basis="cost", key="k", cost_nano_usd=10**9)
    ]
    assert baselines.learn(rows).dump()["states"] == []


def test_a_running_engine_keeps_its_own_and_gains_the_rest(tmp_path: Path) -> None:
    calls = history()
    running = Engine()
    own = list(traffic("steady", START + 8 * 86400, 2, 60, 5))
    live(running, own)
    before = running.dump()
    path = tmp_path / "calls.jsonl"
    path.write_bytes(b"".join(orjson.dumps(call._asdict()) + b"\n" for call in calls))
    bring(path, tmp_path)
    baselines.write(tmp_path)

    assert baselines.take(running, tmp_path)
    assert not baselines.take(running, tmp_path), "the same is not taken twice"
    for name in ("steady", "busy"):
        view = running.view(Series("agent", name), own[-1].ts)
        assert view is not None
        assert view.state == "known"
    after = {tuple(state["series"]): state for state in running.dump()["states"]}
    for state in before["states"]:
        series = tuple(state["series"])
        assert after[series]["window"] == state["window"]
        assert after[series]["evidence"] == state["evidence"]
    again = Engine()
    again.load(running.dump())
    baselines.take(again, tmp_path)
    first, second = running.dump(), again.dump()
    assert first["states"] == second["states"], "taking again after a restart changes nothing"


def test_without_an_import_there_is_nothing_to_take(tmp_path: Path) -> None:
    assert baselines.write(tmp_path) == 0
    assert not baselines.take(Engine(), tmp_path)


@pytest.mark.parametrize("seconds", [60.0, 3600.0, 86400.0])
def test_pieces_of_a_sum_add_up(seconds: float) -> None:
    row = Aggregate(START, seconds, "a", "usage", requests=1001, errors=7, input_tokens=13,
                    output_tokens=5, cost_nano_usd=99)  # fmt: skip
    pieces = list(baselines._pieces(row))
    for name in ("requests", "errors", "input_tokens", "output_tokens", "cost_nano_usd"):
        assert sum(getattr(piece, name) for piece in pieces) == getattr(row, name)
    assert all(START <= piece.start < START + seconds for piece in pieces)
