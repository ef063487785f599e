"""The methods that users know by name: each finds a jump and leaves the usual alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detection.engine import Engine
from detection.settings import DetectionSettings
from detection.settings_rules import Method, RuleSettings, Sensitivity
from detection.types import Signal, Tier, Verdict
from tests.unit.detection.support import DAY, HOUR, KEY, START, live, steady, worst

NAMED = [Method.SEASONAL, Method.MAD, Method.ZSCORE, Method.MOVING_AVERAGE]


def settings(signal: Signal, rule: RuleSettings) -> DetectionSettings:
    return DetectionSettings(rules={signal: rule})


def played(
    signal: Signal, rule: RuleSettings, per_minute: float, **changes: object
) -> list[Verdict]:
    """Three steady days of 4 calls a minute, then two hours at another pace."""
    engine = Engine(settings(signal, rule))
    live(engine, steady(START, 3 * DAY, 4))
    engine.finish_learning()
    return live(engine, steady(START + 3 * DAY, 2 * HOUR, per_minute, 9, **changes))


@pytest.mark.parametrize("method", [Method.SEQUENTIAL, *NAMED])
def test_a_method_finds_a_jump_of_calls_and_leaves_the_usual_alone(method: Method) -> None:
    rule = RuleSettings(method=method)
    assert worst(played(Signal.VOLUME_SURGE, rule, 4), Signal.VOLUME_SURGE, KEY) < Tier.CRITICAL
    told = played(Signal.VOLUME_SURGE, rule, 60)
    assert worst(told, Signal.VOLUME_SURGE, KEY) is Tier.CRITICAL


@pytest.mark.parametrize("method", [Method.SEQUENTIAL, *NAMED])
def test_a_method_finds_a_jump_of_spend(method: Method) -> None:
    rule = RuleSettings(method=method)
    told = played(Signal.SPEND_SPIKE, rule, 4, cost_nano_usd=100_000_000)
    assert worst(told, Signal.SPEND_SPIKE, KEY) is Tier.CRITICAL
    assert worst(played(Signal.SPEND_SPIKE, rule, 4), Signal.SPEND_SPIKE) is Tier.NONE


def test_static_alarms_at_its_threshold_without_any_history() -> None:
    rule = RuleSettings(method=Method.STATIC, threshold=100, window_seconds=300)
    engine = Engine(settings(Signal.VOLUME_SURGE, rule))
    engine.observe(next(steady(START, HOUR, 4)))
    engine.finish_learning()
    below = live(engine, steady(START, 280, 10))
    assert worst(below, Signal.VOLUME_SURGE) is Tier.NONE
    above = live(engine, steady(START + 300, 300, 30))
    found = next(v for v in above if v.signal is Signal.VOLUME_SURGE and v.series == KEY)
    assert (found.tier, found.baseline, found.window_seconds) == (Tier.CRITICAL, 100.0, 300.0)
    assert 100 <= found.observed <= 120


def test_static_spend_counts_dollars() -> None:
    rule = RuleSettings(method=Method.STATIC, threshold=2.5, window_seconds=600)
    told = played(Signal.SPEND_SPIKE, rule, 10, cost_nano_usd=100_000_000)
    found = next(v for v in told if v.signal is Signal.SPEND_SPIKE and v.series == KEY)
    assert found.baseline == 2.5
    assert 2.5 <= found.observed < 3.2


@pytest.mark.parametrize("method", NAMED)
def test_more_sensitivity_never_finds_later(method: Method) -> None:
    times = []
    for sensitivity in (1.5, Sensitivity.HIGH, Sensitivity.MEDIUM, Sensitivity.LOW, 5.0):
        rule = RuleSettings(method=method, sensitivity=sensitivity)
        told = played(Signal.VOLUME_SURGE, rule, 9)
        found = [v.ts for v in told if v.signal is Signal.VOLUME_SURGE and v.series == KEY]
        times.append(min(found, default=float("inf")))
    assert times == sorted(times)
    assert times[0] < float("inf")


def test_sensitivities_are_two_three_four_standard_deviations_or_a_number() -> None:
    words = [Sensitivity.HIGH, Sensitivity.MEDIUM, Sensitivity.LOW]
    assert [RuleSettings(sensitivity=w).sigmas() for w in words] == [2.0, 3.0, 4.0]
    assert RuleSettings(sensitivity=1.5).sigmas() == 1.5
    for wrong in (1.4, 5.1):
        with pytest.raises(ValueError, match=r"1\.5"):
            RuleSettings(sensitivity=wrong).sigmas()


def test_the_forest_finds_an_odd_half_hour_and_tells_the_same_twice() -> None:
    pytest.importorskip("sklearn", reason="the extra 'forest' is not installed")
    rule = RuleSettings(method=Method.ISOLATION_FOREST)
    told = played(Signal.VOLUME_SURGE, rule, 60)
    assert worst(told, Signal.VOLUME_SURGE, KEY) is Tier.CRITICAL
    assert played(Signal.VOLUME_SURGE, rule, 60) == told
    usual = played(Signal.VOLUME_SURGE, rule, 4)
    assert worst(usual, Signal.VOLUME_SURGE, KEY) < Tier.CRITICAL


def test_a_rule_that_is_off_is_silent() -> None:
    rule = RuleSettings(enabled=False)
    assert worst(played(Signal.VOLUME_SURGE, rule, 200), Signal.VOLUME_SURGE) is Tier.NONE


def test_a_rule_judges_the_dimensions_that_it_names() -> None:
    rule = replace(RuleSettings(), dimensions=("agent",))
    told = played(Signal.VOLUME_SURGE, rule, 200)
    assert {v.series.dimension for v in told if v.signal is Signal.VOLUME_SURGE} == {"agent"}
