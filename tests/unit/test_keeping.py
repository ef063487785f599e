"""What the engine knows is written while calls go on, and is read again whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson

from detection.cells import PART
from detection.engine import Engine
from detection.types import Observation
from proxy.engine_file import keep, restore

AT = 1_700_000_000.0


def call(number: int, agent: str) -> Observation:
    return Observation(
        ts=AT + number, id=str(number), agent=agent, key=f"key-{agent}", model="gpt-5",
        provider="openai", endpoint="chat_completions", status=200, input_tokens=100,
        output_tokens=10, cost_nano_usd=1_000,
    )  # fmt: skip


def lived(calls: int, agents: int) -> Engine:
    engine = Engine()
    for number in range(calls):
        engine.observe(call(number, f"agent-{number % agents}"))
    engine.sweep(AT + calls)
    return engine


def plain(engine: Engine) -> object:
    """A dump as JSON reads it, in no order."""
    dump = orjson.loads(orjson.dumps(engine.dump(), option=orjson.OPT_NON_STR_KEYS))
    for name in ("states", "owners", "cells"):
        dump[name].sort(key=orjson.dumps)
    return dump


async def test_a_quiet_engine_comes_back_as_it_was(tmp_path: Path) -> None:
    engine, again = lived(600, 3 * PART), Engine()
    await keep(engine, tmp_path / "engine.json")
    assert restore(again, tmp_path / "engine.json")
    assert plain(again) == plain(engine)


async def test_an_engine_without_calls_can_be_kept(tmp_path: Path) -> None:
    await keep(Engine(), tmp_path / "engine.json")
    assert restore(Engine(), tmp_path / "engine.json")


async def test_calls_and_new_names_in_between_break_nothing(tmp_path: Path) -> None:
    engine, again = lived(600, 3 * PART), Engine()
    written = asyncio.create_task(keep(engine, tmp_path / "engine.json"))
    number = 600
    while not written.done():
        engine.observe(call(number, f"agent-{number % 50 * 7}"))
        number += 1
        await asyncio.sleep(0)
    assert number > 605, "calls went on while it was written"
    assert restore(again, tmp_path / "engine.json")
    assert again.health()["series"] >= 6 * PART
