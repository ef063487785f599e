"""The engine as a whole: the same calls, the same verdicts; never an exception; bounded."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detection.backtest import Backtest, line_of
from detection.detectors.base import discover
from detection.engine import Engine
from detection.fleet import RepeatShare
from detection.settings import CapSettings, DetectionSettings, LimitSettings, Metric, Period
from detection.types import (
    FleetBucket,
    Observation,
    Series,
    Signal,
    Tier,
    Verdict,
)
from tests.unit.detection.support import (
    AGENT,
    DAY,
    HOUR,
    KEY,
    MINUTE,
    START,
    call,
    every,
    known,
    live,
    steady,
    worst,
)

LOOP = {"fingerprint": "f" * 16, "fingerprint_kind": "tool"}


def eventful() -> list[Observation]:
    """A day with a bit of everything."""
    calls = list(steady(START, DAY, 3, seed=1))
    calls += steady(START + 4 * HOUR, 300, 200, seed=2, agent="b", tags={"team": "x"})
    calls += every(START + 8 * HOUR, 60, 0.4, **LOOP)
    calls += every(START + 12 * HOUR, 60, 1.0, status=500, error_type="server_error",
                   cost_nano_usd=0)  # fmt: skip
    calls += every(START + 16 * HOUR, 60, 2.0, model="dear", cost_nano_usd=20_000_000)
    calls += every(START + 20 * HOUR, 300, 3.0, client="net_7", user="u", project="p")
    return sorted(calls, key=lambda o: o.ts)


def in_steps(engine: Engine, calls: list[Observation]) -> list[Verdict]:
    """As a proxy does: a sweep with each minute that has passed."""
    told, swept = [], calls[0].ts
    for one in calls:
        while one.ts - swept >= MINUTE:
            swept += MINUTE
            told += engine.sweep(swept)
        told += engine.observe(one)
    return told


def test_a_backtest_tells_what_live_traffic_was_told() -> None:
    calls = eventful()
    replay, lines = Backtest(), []
    for one in calls:
        lines += replay.feed(one)
    wanted = [line_of(v) for v in in_steps(Engine(), calls)]
    assert [line for line in lines if line["action"] is None] == wanted
    assert {line["signal"] for line in lines} >= {"agent_loop", "error_rate", "new_model"}


def test_the_same_calls_give_the_same_verdicts_and_the_same_state() -> None:
    calls = eventful()
    one, other = Engine(), Engine()
    assert in_steps(one, calls) == in_steps(other, calls)
    assert one.dump() == other.dump()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(0.0, 1.0))
def test_a_dump_goes_on_as_if_nothing_had_happened(where: float) -> None:
    calls = eventful()
    cut = int(where * len(calls))
    engine = Engine()
    in_steps(engine, calls[:cut]) if cut else None
    saved = json.loads(json.dumps(engine.dump()))
    again = Engine()
    again.load(saved)
    assert json.loads(json.dumps(again.dump())) == saved
    rest = calls[cut:]
    if rest:
        assert in_steps(again, rest) == in_steps(engine, rest)
    assert json.dumps(again.dump()) == json.dumps(engine.dump())


def test_a_dump_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        Engine().load({"version": 0})


TEXT = st.one_of(st.none(), st.text(max_size=12))
NUMBER = st.one_of(st.none(), st.integers(-5, 2**63), st.floats())
JUNK = st.builds(
    Observation,
    ts=st.one_of(st.floats(), st.floats(START, START + 4 * DAY), st.integers(-9, 2**40)),
    id=st.text(max_size=5),
    key=TEXT, agent=TEXT, project=TEXT, user=TEXT, session=TEXT,
    tags=st.one_of(st.none(), st.dictionaries(st.text(max_size=3), TEXT, max_size=2)),
    provider=TEXT, endpoint=TEXT, model=TEXT,
    status=st.one_of(st.none(), st.integers(-1, 999), st.text(max_size=3)),
    error_type=TEXT,
    input_tokens=NUMBER, output_tokens=NUMBER, cost_nano_usd=NUMBER,
    finish_reasons=st.one_of(st.none(), st.tuples(st.text(max_size=3))),
    fingerprint=TEXT, fingerprint_kind=TEXT, client=TEXT, action=TEXT,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(JUNK, min_size=1, max_size=12))
def test_no_observation_whatever_makes_it_raise(junk: list[Observation]) -> None:
    engine = Engine(DetectionSettings(limits=(LimitSettings(Metric.TOKENS, 1000),)))
    for one in junk:
        assert isinstance(engine.observe(one), list)
    # What follows is judged as ever.
    told = live(engine, every(max(engine.now, START) + 60, 60, 0.4, **LOOP))
    if math.isfinite(engine.now) and engine.now < START + 30 * DAY:
        assert worst(told, Signal.AGENT_LOOP, AGENT) >= Tier.WARNING


def test_a_detector_that_raises_is_counted_and_off_for_that_series_alone() -> None:
    engine, now = known()
    broken = next(d for ds in engine._by.values() for d in ds if d.signal is Signal.AGENT_LOOP)

    def fails(observation: Observation | None, view: object) -> None:
        raise ZeroDivisionError

    broken.observe = fails  # type: ignore[method-assign, assignment]
    live(engine, every(now, 60, 0.5, **LOOP))
    assert engine.faults == {"agent_loop: ZeroDivisionError": 1}
    health = engine.health()
    assert health["detectors_off"] == 1
    view = engine.view(AGENT, now)
    assert view is not None
    assert view.off == ("agent_loop",)
    del broken.observe
    told = live(engine, every(now + 120, 60, 0.5, agent="other", **LOOP))
    assert worst(told, Signal.AGENT_LOOP, Series("agent", "other")) is Tier.EMERGENCY


def test_detectors_are_found_by_themselves_and_keep_the_contract() -> None:
    limits = (LimitSettings(Metric.REQUESTS, 10, Period.MINUTE),)
    found = discover(DetectionSettings(limits=limits))
    assert {d.signal for d in found} == set(Signal) - {Signal.BUDGET_BURN}
    assert all(d.family and d.occasion for d in found)


def test_a_flood_of_names_stays_within_its_bounds() -> None:
    caps = CapSettings(series=300, combinations=200, members_per_series=16)
    engine = Engine(DetectionSettings(caps=caps))
    for number in range(5000):
        engine.observe(
            call(START + number, key=f"k{number}", agent=f"a{number}", model=f"m{number}",
                 client=f"c{number}", fingerprint=f"{number:016x}", session=f"s{number}")
        )  # fmt: skip
    health = engine.health()
    assert health["series"] <= 300 + 16
    assert health["combinations"] <= 200
    assert health["dropped"] > 0
    assert not health["faults"]
    for state in engine.dump()["states"]:
        for members in (state["members"] or {}).values():
            assert len(members) <= 16
    assert 500 < health["bytes_per_series"] < 20_000


def test_one_owner_with_endless_fingerprints_and_sessions_stays_small() -> None:
    engine = Engine()
    for number in range(20_000):
        engine.observe(
            call(START + number * 0.1, fingerprint=f"{number:016x}", session=f"s{number}")
        )
    owner = next(o for o in engine.dump()["owners"] if o["series"] == ["agent", "a"])
    assert len(owner["repeats"]["entries"]) <= 513
    assert len(owner["repeats"]["growth"]) <= 256


def test_counts_of_other_replicas_are_absolute_and_may_be_sent_again() -> None:
    engine, now = known()
    bucket = int(now) // 10
    for calls in (20, 20, 50):
        engine.merge_fleet(KEY, [FleetBucket(bucket, calls, 1, 10, 5)], now + 1)
    view = engine.view(KEY, now + 1)
    assert view is not None
    alone = engine.view(AGENT, now + 1)
    assert alone is not None
    assert view.calls_60 - alone.calls_60 == 50


def test_a_surge_over_many_replicas_is_one_surge() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for step in range(30):
        at = now + 10 * step
        told += engine.merge_fleet(KEY, [FleetBucket(int(at) // 10, 60, 0, 0, 60 * 10**6)], at + 9)
    assert worst(told, Signal.VOLUME_SURGE, KEY) is Tier.CRITICAL


def test_a_loop_spread_over_replicas_is_found_by_what_they_tell_each_other() -> None:
    engines = [known()[0] for _ in range(3)]
    now = START + 2 * DAY
    found = Tier.NONE
    for number, one in enumerate(every(now, 60, 1.5, **LOOP)):
        here = engines[number % 3]
        told = here.observe(one)
        shares = here.repeats_to_share(one.ts)
        for other in engines:
            if other is not here:
                told += other.merge_repeats(str(number % 3), shares, one.ts)
        found = max(found, worst(told, Signal.AGENT_LOOP, AGENT))
    assert found >= Tier.CRITICAL


def test_what_is_told_of_repeats_is_forgotten_after_half_a_window() -> None:
    engine, now = known()
    live(engine, every(now, 8, 2.0, **LOOP))
    share = RepeatShare(AGENT, "f" * 16, "tool", 100)
    engine.merge_repeats("other", [share], now + 8)
    owner = next(o for o in engine._registry.owners.values() if o.state.series == AGENT)
    assert owner.repeats.elsewhere("f" * 16, now + 30) == 100
    assert owner.repeats.elsewhere("f" * 16, now + 90) == 0


def test_only_the_leader_judges_the_slow_lane_and_a_successor_at_once() -> None:
    def weeks(engine: Engine, lead: bool) -> list[Verdict]:
        told: list[Verdict] = []
        for day in range(49):
            at = START + day * DAY
            cost = int(500 * 1e6 * 1.06 ** (day / 7))
            told += engine.merge_fleet(KEY, (FleetBucket(int(at) // 10, 500, 0, 0, cost),), at)
            told += engine.sweep(at + HOUR, lead=lead)
        return told

    leader, other = Engine(), Engine()
    assert worst(weeks(leader, True), Signal.DRIFT) is Tier.WARNING
    assert worst(weeks(other, False), Signal.DRIFT) is Tier.NONE
    told = other.sweep(START + 48 * DAY + HOUR + 61, lead=True)
    assert worst(told, Signal.DRIFT) is Tier.WARNING


def test_nothing_is_judged_where_detection_is_off() -> None:
    engine = Engine(DetectionSettings(enabled=False))
    assert not live(engine, every(START, 300, 0.2, **LOOP))


def test_calls_out_of_order_are_counted_and_harm_nothing() -> None:
    engine = Engine()
    for number in range(400):
        engine.observe(call(START + (number * 37) % 400))
    engine.sweep(START + 460)
    view = engine.view(KEY, START + 460)
    assert view is not None
    assert view.calls_3600 == 400
    assert not engine.faults


def test_a_limit_of_dollars_is_held_by_an_old_key_too() -> None:
    limits = (LimitSettings(Metric.COST, 1.0, Period.MINUTE),)
    engine, now = known(DetectionSettings(limits=limits), days=1.5, per_minute=40.0)
    dear = (call(now + 120 + n * 0.1, cost_nano_usd=50_000_000) for n in range(30))
    signals = [{v.signal for v in engine.observe(o)} for o in dear]
    assert 19 <= [Signal.HARD_LIMIT in told for told in signals].index(True) <= 21
