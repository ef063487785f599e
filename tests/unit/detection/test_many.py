"""More callers than there is room for, and those there is room for, by the thousand."""

from __future__ import annotations

from detection.engine import Engine
from detection.settings import (
    CapSettings,
    DetectionSettings,
    LimitSettings,
    Metric,
    Period,
)
from detection.types import TOTAL, Series, Signal, Tier
from tests.unit.detection.support import AGENT, KEY, MINUTE, START, call, every, live, steady

SMALL = DetectionSettings(caps=CapSettings(series=600, combinations=200))
LOOP = {"fingerprint": "f00d", "fingerprint_kind": "tool"}


def stranger(number: int, ts: float) -> object:
    return call(ts, key=f"k{number}", agent=f"a{number}", model=f"m{number % 7}")


def test_who_calls_all_the_time_is_not_let_go_of_for_those_who_came_once() -> None:
    engine = Engine(SMALL)
    for number in range(3_000):
        engine.observe(stranger(number, START + number / 10))
        if number % 20 == 0:
            engine.observe(call(START + number / 10))
    engine.sweep(START + 400)
    view = engine.view(KEY, START + 400)
    assert view is not None
    assert view.calls_3600 == 150
    assert engine.health()["dropped"] > 2_000


def test_calls_that_wait_with_a_caller_who_is_let_go_of_are_counted() -> None:
    engine = Engine(SMALL)
    calls = [stranger(number // 10, START + number / 50) for number in range(10_000)]
    for one in calls:
        engine.observe(one)
    engine.sweep(START + 600)
    view = engine.view(TOTAL, START + 600)
    assert view is not None
    assert view.calls_3600 == 10_000


def test_an_alarm_under_way_outlives_a_flood_and_is_told_when_it_is_over() -> None:
    engine = Engine(SMALL)
    told = live(engine, every(START, 40, 0.5, **LOOP))
    assert any(v.signal is Signal.AGENT_LOOP for v in told)
    for number in range(3_000):
        engine.observe(stranger(number, START + 40 + number / 1000))
    view = engine.view(AGENT, START + 44)
    assert view is not None
    assert "agent_loop" in view.alarms
    over = engine.sweep(START + 30 * MINUTE)
    assert (Signal.AGENT_LOOP, Tier.NONE, AGENT) in {(v.signal, v.tier, v.series) for v in over}
    assert not engine.sweep(START + 31 * MINUTE)


def test_callers_who_come_all_the_time_take_the_room_of_several() -> None:
    caps = CapSettings(series=120, combinations=1_000)
    sizes = []
    for seconds in (300, 7_200):
        engine = Engine(DetectionSettings(caps=caps))
        live(
            engine,
            (call(START + n / 10, key=f"k{n % 20}", agent=None) for n in range(10 * seconds)),
        )
        engine.sweep(START + seconds)
        health = engine.health()
        sizes.append(health["series"])
        assert health["series"] + 3 * health["heavy"] <= 120
    assert sizes[0] == 44, "all fit while they are new"


def test_the_parts_of_a_sweep_are_the_sweep() -> None:
    whole, parts = Engine(), Engine()
    calls = [*steady(START, 1800, 300), *every(START + 1800, 40, 0.5, **LOOP)]
    for number, one in enumerate(calls):
        one = one._replace(key=f"k{number % 150}")
        whole.observe(one)
        parts.observe(one)
    for minute in range(40, 44):
        now = START + minute * MINUTE
        told = []
        for place, verdicts in enumerate(parts.sweep_in_parts(now)):
            told += verdicts
            if minute == 43 and place % 5 == 0:
                parts.observe(call(now, key=f"new{place}", fingerprint=f"{place:016x}"))
        assert told == whole.sweep(now)
    assert parts.health()["series"] > whole.health()["series"]


def test_new_settings_go_on_with_what_was_known() -> None:
    old = Engine()
    live(old, steady(START, 1800, 60))
    for number in range(9):
        old.observe(call(START + 1800, key="w", fingerprint=f"{number:016x}"))
    limit = LimitSettings(Metric.REQUESTS, 30, Period.MINUTE)
    new = Engine(DetectionSettings(limits=(limit,)))
    new.take_over(old)
    told = live(new, every(START + 1801, 20, 0.5, fingerprint=None))
    assert any(v.signal is Signal.HARD_LIMIT for v in told)
    new.sweep(START + 1900)
    alone = Engine()
    live(alone, steady(START, 1800, 60))
    for number in range(9):
        alone.observe(call(START + 1800, key="w", fingerprint=f"{number:016x}"))
    live(alone, every(START + 1801, 20, 0.5, fingerprint=None))
    alone.sweep(START + 1900)
    for series in (KEY, AGENT, Series("key", "w"), TOTAL, Series("model", "m")):
        mine, theirs = new.view(series, START + 1900), alone.view(series, START + 1900)
        assert mine is not None
        assert theirs is not None
        assert mine.calls_3600 == theirs.calls_3600
        assert mine.age_days == theirs.age_days


def test_a_dimension_that_comes_to_be_judged_is_judged_from_then_on() -> None:
    model = Series("model", "m")
    old = Engine()
    live(old, steady(START, 600, 60))
    limit = LimitSettings(Metric.REQUESTS, 30, Period.MINUTE, dimension="model")
    new = Engine(DetectionSettings(limits=(limit,)))
    new.take_over(old)
    told = live(new, every(START + 601, 60, 0.5, fingerprint=None))
    assert (Signal.HARD_LIMIT, model) in {(v.signal, v.series) for v in told}


def test_a_name_is_forgotten_with_its_pairs_and_from_the_lists_of_others() -> None:
    engine = Engine()
    for number in range(100):
        engine.observe(call(START + number, key="mine", agent="a"))
        engine.observe(call(START + number, key="other", agent="b"))

    def owns(dimension: str, value: str) -> bool:
        return dimension in ("key", "key_model") and value.split("|")[0] == "mine"

    assert engine.forget(owns, "key", "mine") == 2
    assert b"mine" not in repr(engine.dump()).encode()
    view = engine.view(Series("key", "other"), START + 100)
    assert view is not None
    for number in range(40):
        engine.observe(call(START + 100 + number, key="mine", agent="a"))
    assert not engine.health()["faults"]
    again = engine.view(Series("key", "mine"), START + 140)
    assert again is not None
    assert again.calls_3600 <= 40
