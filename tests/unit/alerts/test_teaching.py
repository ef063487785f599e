"""What a person calls a false alarm is believed: that call is a habit, others are doubted less."""

from __future__ import annotations

from detection.engine import Engine
from detection.settings import DetectionSettings
from detection.types import Signal, Tier, Verdict
from tests.unit.detection.support import AGENT, HOUR, START, every, live

MEANT, OTHER = "f" * 16, "e" * 16


def loops(engine: Engine, start: float, fingerprint: str, step: float = 0.5) -> list[Verdict]:
    """A minute of one repeated tool call; what was told of it."""
    calls = every(start, 60, step, fingerprint=fingerprint, fingerprint_kind="tool")
    found = live(engine, calls)
    return [v for v in found if v.signal is Signal.AGENT_LOOP and v.series == AGENT and v.tier]


def test_a_dismissed_loop_is_a_habit_after_a_restart_too() -> None:
    engine = Engine(DetectionSettings())
    told = loops(engine, START, MEANT)
    assert told[-1].tier >= Tier.CRITICAL
    engine.dismiss(
        Signal.AGENT_LOOP,
        AGENT,
        START + 61,
        fingerprint=str(told[-1].detail["fingerprint"]),
        count=told[-1].observed,
    )
    again = Engine(DetectionSettings())
    again.load(engine.dump())
    assert loops(again, START + 2 * HOUR, MEANT) == []


def test_more_than_twice_as_often_is_no_habit() -> None:
    engine = Engine(DetectionSettings())
    told = loops(engine, START, MEANT, step=2.0)
    assert told
    engine.dismiss(Signal.AGENT_LOOP, AGENT, START + 61, fingerprint=MEANT, count=told[-1].observed)
    assert loops(engine, START + 2 * HOUR, MEANT, step=2.0) == []
    assert loops(engine, START + 4 * HOUR, MEANT, step=0.2)


def test_another_loop_of_that_agent_is_info_for_a_week_unless_more_speaks_for_it() -> None:
    engine = Engine(DetectionSettings())
    assert loops(engine, START, MEANT)[-1].tier >= Tier.CRITICAL
    engine.dismiss(Signal.AGENT_LOOP, AGENT, START + 61, fingerprint=MEANT, count=120)
    quiet = loops(engine, START + 2 * HOUR, OTHER, step=3.0)
    assert [v.tier for v in quiet] == [Tier.INFO]
    assert loops(engine, START + 4 * HOUR, OTHER)[-1].tier is Tier.EMERGENCY
