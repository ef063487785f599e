"""Learning: what is too little to judge, what is only watched, what was expected."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from detection.backtest import Backtest
from detection.engine import Engine
from detection.settings import DetectionSettings, ExpectedWindow, ScopeMatch
from detection.settings_rules import LearningSettings
from detection.surge import tightening
from detection.types import Dimension, Series, Signal, Tier
from tests.unit.detection.support import (
    AGENT,
    DAY,
    HOUR,
    KEY,
    START,
    call,
    every,
    known,
    live,
    signals,
    steady,
    worst,
)

#: Few calls suffice here; the days are what matters.
SLOW = 0.5


def at_age(days: float, settings: DetectionSettings | None = None) -> tuple[Engine, float]:
    engine = Engine(settings)
    live(engine, steady(START, days * DAY, SLOW))
    return engine, START + days * DAY


@pytest.mark.parametrize(
    ("days", "state"), [(0.5, "learning"), (5, "learning"), (15, "tightening"), (31, "known")]
)
def test_the_states_of_a_series(days: float, state: str) -> None:
    engine, now = at_age(days)
    view = engine.view(KEY, now)
    assert view is not None
    assert view.state == state


def test_a_series_never_seen_is_unknown_and_a_new_one_has_no_usual() -> None:
    engine = Engine()
    assert engine.view(KEY, START) is None
    engine.observe(call(START))
    view = engine.view(KEY, START)
    assert view is not None
    assert (view.state, view.usual_calls_half_hour) == ("learning", None)


def test_while_learning_alarms_are_marked_and_nobody_is_stopped() -> None:
    replay = Backtest()
    for one in steady(START, 5 * DAY, SLOW):
        replay.feed(one)
    lines = [line for one in steady(START + 5 * DAY, 300, 300) for line in replay.feed(one)]
    surges = [line for line in lines if line["signal"] == "volume_surge"]
    assert surges
    assert all(line["learning"] and line["action"] is None for line in surges)
    assert replay.summary.learning > 0
    assert replay.summary.throttled.calls == replay.summary.blocked.calls == 0


def test_loops_act_from_the_first_minute() -> None:
    engine, now = at_age(1)
    told = live(engine, every(now, 60, 0.3, fingerprint="f" * 16, fingerprint_kind="tool"))
    found = [v for v in told if v.signal is Signal.AGENT_LOOP and v.series == AGENT]
    assert found[-1].tier is Tier.EMERGENCY
    assert not any(v.learning for v in found)


def test_an_import_ends_learning_at_once_and_for_one_series_if_asked() -> None:
    engine, now = at_age(2)
    engine.finish_learning(KEY)
    told = live(engine, steady(now, 300, 300))
    by_series = {v.series: v.learning for v in told if v.signal is Signal.VOLUME_SURGE}
    assert by_series[KEY] is False
    assert by_series[AGENT] is True


def test_thresholds_tighten_from_the_end_of_learning_to_their_setting() -> None:
    settings = DetectionSettings(learning=LearningSettings(days=2, tighten_days=4))
    slacks = []
    for days in (2.0, 3.0, 4.0):
        engine, _ = at_age(days, settings)
        slacks.append(tightening(settings, engine._registry.states[KEY]))
    assert slacks == pytest.approx([1.5, 1.25, 1.0], abs=0.01)


def test_newcomers_are_held_back_for_a_day_or_two_hundred_requests() -> None:
    for calls, told_of in ((150, False), (260, True)):
        engine = Engine()
        live(engine, every(START, calls * 10, 10.0))
        told = engine.observe(call(START + calls * 10, model="new"))
        assert (Signal.NEW_KEY_MODEL in signals(told)) is told_of
    engine = Engine()
    live(engine, every(START, 26 * HOUR, HOUR))
    told = engine.observe(call(START + 26 * HOUR, model="new"))
    assert Signal.NEW_KEY_MODEL in signals(told)


def expected(start: float, end: float, factor: float, **scope: object) -> DetectionSettings:
    span = [datetime.fromtimestamp(ts, UTC) for ts in (start, end)]
    window = ExpectedWindow(span[0], span[1], factor, ScopeMatch(**scope))  # type: ignore[arg-type]
    return DetectionSettings(expected=(window,))


def test_what_was_expected_is_no_surge_within_its_time_its_scope_and_its_factor() -> None:
    now = START + 2 * DAY
    surge = list(steady(now, 300, 60, seed=5))
    for settings, found in (
        (expected(now - HOUR, now + HOUR, 20.0), False),
        (expected(now - HOUR, now + HOUR, 20.0, dimensions=(Dimension.KEY,)), False),
        (expected(now - HOUR, now + HOUR, 20.0, values=("somebody-else",)), True),
        (expected(now + HOUR, now + 2 * HOUR, 20.0), True),
        (expected(now - HOUR, now + HOUR, 1.1), True),
    ):
        engine, _ = known(settings)
        told = live(engine, surge)
        assert (worst(told, Signal.VOLUME_SURGE, KEY) is Tier.CRITICAL) is found, settings.expected


def test_a_scope_matches_a_dimension_and_a_pattern() -> None:
    scope = ScopeMatch(dimensions=(Dimension.AGENT,), values=("nightly-*",))
    assert scope.matches("agent", "nightly-report")
    assert not scope.matches("agent", "daily-report")
    assert not scope.matches("key", "nightly-report")
    assert ScopeMatch().matches("anything", "at all")


def test_a_window_without_an_offset_is_utc() -> None:
    window = ExpectedWindow(datetime(2026, 1, 1), datetime(2026, 1, 2))
    assert window.span() == (START, START + DAY)


def test_a_month_of_nothing_teaches_nothing() -> None:
    engine = Engine()
    engine.observe(call(START))
    told = live(engine, [call(START + 30 * DAY)])
    assert not told
    view = engine.view(Series("key", "k"), START + 30 * DAY)
    assert view is not None
    assert view.calls_3600 == 1
