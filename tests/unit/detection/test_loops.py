"""Loops are found within a few calls; those who merely repeat themselves are left alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.backtest import Backtest
from detection.engine import Engine
from detection.settings import DetectionSettings
from detection.settings_rules import RepetitionSettings
from detection.types import ActionKind, Observation, Signal, Tier, Verdict
from tests.unit.detection.support import (
    AGENT,
    DAY,
    HOUR,
    START,
    call,
    every,
    known,
    live,
    steady,
    worst,
)

LOOP = {"fingerprint": "f" * 16, "fingerprint_kind": "tool"}


def emergency(engine: Engine, calls: list[Observation]) -> int | None:
    """After how many calls the loop is an emergency."""
    for number, one in enumerate(calls, 1):
        if worst(engine.observe(one), Signal.AGENT_LOOP, AGENT) is Tier.EMERGENCY:
            return number
    return None


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_a_tool_call_repeated_by_a_known_agent_is_an_emergency_within_thirty_calls(
    step: float,
) -> None:
    engine, now = known()
    found = emergency(engine, list(every(now, 200 * step, step, **LOOP)))
    assert found is not None
    assert found <= 31


def test_an_agent_without_any_history_loops_from_the_first_minute() -> None:
    found = emergency(Engine(), list(every(START, 60, 0.5, **LOOP)))
    assert found is not None
    assert found <= 45


@pytest.mark.parametrize("period", [2, 3, 4])
def test_ping_pong_between_a_few_calls_is_a_loop(period: int) -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number, one in enumerate(every(now, 120, 0.5)):
        name = f"{number % period:016x}"
        told += engine.observe(one._replace(fingerprint=name, fingerprint_kind="tool"))
    assert worst(told, Signal.AGENT_LOOP, AGENT) is Tier.EMERGENCY
    found = [v for v in told if v.signal is Signal.AGENT_LOOP and v.tier is Tier.EMERGENCY]
    assert [v.detail["period"] for v in found] == [period]
    assert found[0].observed <= 40


def test_five_calls_in_turn_at_a_healthy_pace_are_no_ping_pong() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number, one in enumerate(every(now, 300, 6.0)):
        name = f"{number % 5:016x}"
        told += engine.observe(one._replace(fingerprint=name, fingerprint_kind="tool"))
    assert worst(told, Signal.AGENT_LOOP) is Tier.NONE


def test_a_context_that_grows_by_the_same_step_is_a_loop() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number, one in enumerate(every(now, 60, 0.5)):
        told += engine.observe(
            one._replace(session="s", input_tokens=2000 + 350 * number,
                         fingerprint=f"{number:016x}", fingerprint_kind="tool")
        )  # fmt: skip
    assert worst(told, Signal.AGENT_LOOP, AGENT) is Tier.EMERGENCY
    first = next(v for v in told if v.tier >= Tier.CRITICAL)
    assert first.detail["session"] == "s"
    assert first.observed <= 30


def test_a_conversation_that_grows_by_uneven_steps_is_none() -> None:
    engine, now = known()
    chance, tokens, told = random.Random(3), 2000, []
    for number, one in enumerate(every(now, 600, 5.0)):
        tokens += chance.randint(50, 900)
        told += engine.observe(
            one._replace(session="s", input_tokens=tokens, fingerprint=f"{number:016x}")
        )
    assert worst(told, Signal.AGENT_LOOP) is Tier.NONE


def test_three_failing_repeats_and_a_rerun_of_tests_are_no_loop() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for run in range(20):
        told += engine.observe(call(now + 45.0 * run, **LOOP))
        for step in range(3):
            ts = now + 45.0 * run + 10.0 * (step + 1)
            told += engine.observe(call(ts, fingerprint=f"{run:08x}{step:08x}"))
    assert worst(told, Signal.AGENT_LOOP) is Tier.NONE


def test_a_fingerprint_or_an_agent_on_the_allowlist_may_repeat() -> None:
    for allowed in (
        RepetitionSettings(allow=("f" * 16,)),
        RepetitionSettings(allow_agents=("a*",)),
    ):
        engine, now = known(DetectionSettings(repetition=allowed))
        told = live(engine, every(now, 120, 0.5, **LOOP))
        assert worst(told, Signal.AGENT_LOOP) is Tier.NONE


def test_a_poller_becomes_a_habit_and_a_new_one_never_an_emergency() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for day in range(4):
        start = now + day * DAY
        last = live(engine, every(start, 2 * HOUR, 6.0, **LOOP))
        told += last
    assert worst(told, Signal.AGENT_LOOP) <= Tier.WARNING
    assert worst(last, Signal.AGENT_LOOP) is Tier.NONE, "a habit of three days is not told of"


def test_a_habit_that_runs_away_is_a_loop_again() -> None:
    engine, now = known()
    for day in range(4):
        live(engine, every(now + day * DAY, HOUR, 6.0, **LOOP))
    told = live(engine, every(now + 4 * DAY, 300, 0.2, **LOOP))
    assert worst(told, Signal.AGENT_LOOP, AGENT) is Tier.EMERGENCY


def test_each_owner_loops_by_itself() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number, one in enumerate(every(now, 120, 0.5)):
        told += engine.observe(one._replace(agent=f"a{number % 30}", **LOOP))
    assert worst(told, Signal.AGENT_LOOP) is Tier.NONE


@settings(max_examples=25, deadline=None)
@given(
    st.integers(20, 400),
    st.floats(0.05, 5.0),
    st.integers(0, 10_000),
    st.floats(0.0, 8.0),
)
def test_a_sampler_of_one_prompt_is_never_blocked(
    samples: int, step: float, seed: int, per_minute: float
) -> None:
    """However fast and however often one plain prompt is sampled: throttled at most."""
    chance = random.Random(seed)
    replay = Backtest()
    past = list(steady(START, HOUR, per_minute, seed)) if per_minute > 0.1 else []
    for one in past:
        replay.feed(one)
    replay.engine.finish_learning()
    now, lines = START + HOUR, []
    for _ in range(samples):
        now += chance.uniform(0.0, 2.0 * step)
        lines += replay.feed(call(now, fingerprint="e" * 16, fingerprint_kind="text"))
    lines += replay.finish()
    kinds = {line["action"] for line in lines}
    assert not kinds & {ActionKind.BLOCK, ActionKind.DISABLE_KEY, ActionKind.CUT_STREAMS}
    assert all(line["tier"] != "emergency" for line in lines)


def test_repeated_prompts_that_fail_are_an_emergency() -> None:
    engine, now = known()
    told = live(
        engine,
        every(now, 60, 0.5, fingerprint="e" * 16, fingerprint_kind="text", status=500,
              error_type="server_error", cost_nano_usd=0),
    )  # fmt: skip
    assert max(v.tier for v in told) is Tier.EMERGENCY
    lead = max(told, key=lambda v: v.tier)
    assert {"errors", "volume"} <= {str(f) for f in lead.families}
