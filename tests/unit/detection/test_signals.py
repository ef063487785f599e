"""Each signal speaks when it should, tells its numbers, and is silent just below."""

from __future__ import annotations

import pytest

from detection.engine import Engine
from detection.settings import DetectionSettings, LimitSettings, Metric, Period
from detection.types import (
    Dimension,
    Family,
    FleetBucket,
    Observation,
    Score,
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
    signals,
    steady,
    worst,
)

FAILED = {"status": 500, "error_type": "server_error", "cost_nano_usd": 0, "output_tokens": None}
WRONG = {"status": 400, "error_type": "invalid_request_error", "cost_nano_usd": 0}


def told_of(told: list[Verdict], signal: Signal) -> Verdict:
    return max((v for v in told if v.signal is signal), key=lambda v: v.tier)


def test_a_surge_far_past_its_own_record_is_critical_and_carries_its_numbers() -> None:
    engine, now = known()
    told = live(engine, steady(now, 300, 200, seed=5))
    found = told_of(told, Signal.VOLUME_SURGE)
    assert found.tier is Tier.CRITICAL
    assert found.families == {Family.VOLUME}
    assert found.baseline is not None
    assert found.ratio == pytest.approx(found.observed / found.baseline)
    assert found.ratio >= 3
    assert found.p_value is None or found.p_value < 1e-6
    assert found.window_seconds in (60.0, 240.0, 300.0, 900.0)
    assert found.since is not None
    assert found.since <= found.ts


def test_twice_the_usual_is_no_critical_and_volume_alone_never_an_emergency() -> None:
    engine, now = known()
    assert worst(live(engine, steady(now, HOUR, 8, seed=5)), Signal.VOLUME_SURGE) < Tier.CRITICAL
    engine, now = known()
    assert max(v.tier for v in live(engine, steady(now, 900, 2000, seed=5))) is Tier.CRITICAL


def test_a_steady_surge_shows_though_the_hour_before_was_busy_too() -> None:
    """Once the window has wrapped, the last minute is still counted from nothing."""
    engine, now = known(per_minute=20)
    live(engine, steady(now, 2 * HOUR, 20, seed=8))
    told = live(engine, steady(now + 2 * HOUR, 600, 400, seed=9))
    assert worst(told, Signal.VOLUME_SURGE, KEY) is Tier.CRITICAL


def test_a_thousand_cheap_calls_are_no_surge_of_a_key_of_dear_ones() -> None:
    engine, now = known()
    told = live(engine, steady(now, 300, 200, seed=5, cost_nano_usd=10_000))
    assert worst(told, Signal.VOLUME_SURGE, KEY) < Tier.CRITICAL


def test_spend_past_its_record_is_critical_though_calls_are_as_ever() -> None:
    engine, now = known()
    told = live(engine, steady(now, HOUR, 4, seed=5, cost_nano_usd=200_000_000))
    found = told_of(told, Signal.SPEND_SPIKE)
    assert found.tier is Tier.CRITICAL
    assert found.detail["unit"] == "usd"
    assert found.observed > 1.0
    assert worst(told, Signal.VOLUME_SURGE) is Tier.NONE


def test_half_of_the_calls_failing_shows_within_twenty_five_of_them() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number in range(25):
        told += engine.observe(call(now + number, **(FAILED if number % 5 else {})))
    found = told_of([v for v in told if v.series == AGENT], Signal.ERROR_RATE)
    assert found.tier is Tier.CRITICAL
    assert found.e_value is not None
    assert found.e_value > 1000
    assert found.baseline == pytest.approx(0.10)


def test_one_failure_in_twenty_never_shows() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number in range(2000):
        told += engine.observe(call(now + number, **(FAILED if number % 20 == 0 else {})))
    assert worst(told, Signal.ERROR_RATE) is Tier.NONE


@pytest.mark.parametrize("keys", [1, 6])
@pytest.mark.parametrize("retries", [0, 2])
def test_an_outage_of_the_provider_blames_none_of_its_users(keys: int, retries: int) -> None:
    """Ten minutes in which every call fails, with clients that retry as SDKs do."""
    engine = Engine()
    told: list[Verdict] = []
    for number in range(600):
        name = f"u{number % keys}"
        for again in range(retries + 1):
            told += engine.observe(
                call(START + number + 0.3 * again, key=name, agent=name, fingerprint=f"{number:x}",
                     **FAILED)
            )  # fmt: skip
    assert max(v.tier for v in told) is Tier.CRITICAL
    assert worst(told, Signal.ERROR_RATE, Series("provider", "openai")) is Tier.CRITICAL


def test_a_caller_whose_requests_are_wrong_is_to_blame() -> None:
    engine = Engine()
    told = [v for n in range(200) for v in engine.observe(call(START + n * 0.5, **WRONG))]
    assert worst(told, Signal.ERROR_RATE, AGENT) is Tier.EMERGENCY


def test_one_failing_request_sent_again_and_again_is_a_retry_storm() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number in range(14):
        told += engine.observe(
            call(now + 2 * number, fingerprint="d" * 16, fingerprint_kind="text", **FAILED)
        )
    assert worst(told, Signal.RETRY_STORM) is Tier.CRITICAL
    assert told_of(told, Signal.RETRY_STORM).detail["fingerprint"] == "d" * 16


def test_a_client_that_hangs_up_is_no_failure() -> None:
    engine, now = known()
    told = [
        v
        for n in range(100)
        for v in engine.observe(call(now + n, status=499, error_type="client_disconnected"))
    ]
    assert signals(told) <= {Signal.VOLUME_SURGE}


def test_a_model_sixteen_times_dearer_shows_after_three_calls() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number in range(3):
        told += engine.observe(call(now + number, model="dear", cost_nano_usd=16_700_000))
    found = told_of(told, Signal.COST_PER_REQUEST)
    assert found.tier is Tier.CRITICAL
    assert found.detail["unit"] == "nano_usd_per_token"
    assert {Signal.NEW_MODEL, Signal.NEW_KEY_MODEL} <= signals(told)


def test_a_swap_of_a_fifth_of_the_calls_shows_within_fifteen_of_them() -> None:
    engine, now = known()
    told: list[Verdict] = []
    for number in range(75):
        dear = {"cost_nano_usd": 16_700_000} if number % 5 == 0 else {}
        told += engine.observe(call(now + number, **dear))
    assert worst(told, Signal.COST_PER_REQUEST) is Tier.CRITICAL


def test_longer_prompts_at_the_same_price_warn_and_far_longer_ones_are_critical() -> None:
    for times, tier in ((3, Tier.WARNING), (12, Tier.CRITICAL)):
        engine, now = known()
        told = [
            v
            for n in range(60)
            for v in engine.observe(
                call(now + n, input_tokens=1400 * times - 400, cost_nano_usd=times * 10**6)
            )
        ]
        assert worst(told, Signal.COST_PER_REQUEST) is tier


def test_longer_answers_warn() -> None:
    engine, now = known()
    told = [v for n in range(60) for v in engine.observe(call(now + n, output_tokens=2000))]
    assert worst(told, Signal.OUTPUT_TOKENS) is Tier.WARNING


def test_truncated_answers_change_the_mix_of_finish_reasons() -> None:
    engine, now = known()
    told = live(engine, steady(now, 2 * HOUR, 5, seed=3, finish_reasons=("length",)))
    found = told_of(told, Signal.FINISH_REASON_MIX)
    assert found.tier is Tier.WARNING
    assert found.detail["reason"] == "length"
    assert found.p_value is not None
    assert found.p_value < 1e-8
    engine, now = known()
    usual = live(engine, steady(now, 6 * HOUR, 5, seed=3))
    assert worst(usual, Signal.FINISH_REASON_MIX) is Tier.NONE


def test_newcomers_are_told_of_once_and_not_during_the_warm_up() -> None:
    engine, now = known()
    told = live(engine, every(now, 60, 2.0, model="n", agent="b", client="net_9"))
    assert signals(told) >= {
        Signal.NEW_MODEL, Signal.NEW_AGENT, Signal.NEW_KEY_MODEL, Signal.NEW_CLIENT,
    }  # fmt: skip
    assert len([v for v in told if v.signal is Signal.NEW_MODEL]) == 1
    fresh = [
        v
        for n in range(30)
        for v in Engine().observe(call(START + n, model=f"m{n}", client=f"net_{n}"))
    ]
    assert not fresh


def test_a_stranger_who_makes_most_of_an_unusual_volume_is_critical_and_the_usual_is_not() -> None:
    engine, now = known()
    told = live(engine, steady(now, 120, 60, seed=5, client="net_stranger", agent=None))
    found = told_of([v for v in told if v.series == KEY], Signal.NEW_CLIENT)
    assert found.tier is Tier.CRITICAL
    assert found.families == {Family.NOVELTY, Family.VOLUME}
    engine, now = known()
    moved = live(engine, steady(now, HOUR, 4, seed=5, client="net_2"))
    assert worst(moved, Signal.NEW_CLIENT) is Tier.WARNING


def weeks(engine: Engine, growth: float, series: Series = KEY) -> list[Verdict]:
    """Seven weeks of 500 calls a day, the cost of a call growing by so much a week."""
    told: list[Verdict] = []
    for day in range(49):
        for part in range(10):
            now = START + day * DAY + part * 2 * HOUR
            cost = int(50 * 1e6 * (1 + growth) ** (day / 7))
            rows = (FleetBucket(int(now) // 10, 50, 0, 0, cost),)
            told += engine.merge_fleet(series, rows, now)
            told += engine.sweep(now + 1)
    return told


def test_cost_per_call_that_creeps_up_by_five_percent_a_week_is_drift() -> None:
    found = told_of(weeks(Engine(), 0.05), Signal.DRIFT)
    assert found.tier is Tier.WARNING
    assert found.detail["weekly_growth"] == pytest.approx(0.05, abs=0.01)
    assert worst(weeks(Engine(), 0.0), Signal.DRIFT) is Tier.NONE


def test_a_day_out_of_line_with_its_own_and_its_peers_is_an_outlier() -> None:
    engine = Engine()
    told: list[Verdict] = []
    for day in range(12):
        for part in range(4):
            now = START + day * DAY + part * 6 * HOUR
            for name in range(6):
                dollars = 300 if (name, day) == (0, 10) else 10
                rows = (FleetBucket(int(now) // 10, 20, 0, 0, dollars * 10**9),)
                told += engine.merge_fleet(Series("key", f"k{name}"), rows, now)
            told += engine.sweep(now + 1)
    found = told_of(told, Signal.PEER_OUTLIER)
    assert (found.series.value, found.tier) == ("k0", Tier.WARNING)
    assert {v.series.value for v in told if v.signal is Signal.PEER_OUTLIER} == {"k0"}


def test_a_budgets_burn_is_evidence_from_elsewhere() -> None:
    engine, now = known()
    score = Score(Signal.BUDGET_BURN, Family.BUDGET, Tier.CRITICAL, 20.0, baseline=14.4)
    told = engine.submit(KEY, score, now)
    assert [(v.signal, v.tier) for v in told] == [(Signal.BUDGET_BURN, Tier.CRITICAL)]
    assert not engine.submit(KEY, score, now + 1), "told once"


@pytest.mark.parametrize(
    ("metric", "limit", "changes"),
    [
        (Metric.REQUESTS, 20, {}),
        (Metric.TOKENS, 22_000, {}),
        (Metric.COST, 0.02, {}),
    ],
)
def test_a_hard_limit_is_an_emergency_from_the_first_minute(
    metric: Metric, limit: float, changes: dict[str, object]
) -> None:
    limits = (LimitSettings(metric=metric, limit=limit, per=Period.MINUTE),)
    engine = Engine(DetectionSettings(limits=limits))
    found = None
    for number in range(40):
        for v in engine.observe(call(START + number, **changes)):
            if v.signal is Signal.HARD_LIMIT:
                found = found or (number + 1, v)
    assert found is not None
    assert found[0] == 21
    assert (found[1].tier, found[1].families) == (Tier.EMERGENCY, {Family.LIMIT})


def test_a_daily_limit_begins_anew_at_midnight() -> None:
    limits = (LimitSettings(Metric.REQUESTS, 100, Period.DAY, Dimension.KEY),)
    engine = Engine(DetectionSettings(limits=limits))
    evening = START + DAY - 50 * MINUTE
    told = live(engine, every(evening, 99 * 30, 30.0))
    told += live(engine, every(START + DAY + MINUTE, 90 * 30, 30.0))
    assert worst(told, Signal.HARD_LIMIT) is Tier.NONE
    told = live(engine, every(START + DAY + HOUR, 20 * 30, 30.0))
    assert worst(told, Signal.HARD_LIMIT) is Tier.EMERGENCY


def test_calls_that_were_stopped_count_nowhere_and_throttled_ones_as_calls() -> None:
    stopped: list[Observation] = [
        one._replace(action="block", status=429)
        for one in every(START, 60, 0.2, fingerprint="f" * 16, fingerprint_kind="tool")
    ]
    engine = Engine()
    assert not live(engine, stopped)
    assert engine.view(AGENT, START + 60) is None
    told = live(engine, [one._replace(action="throttle") for one in stopped])
    assert worst(told, Signal.AGENT_LOOP) is Tier.EMERGENCY
    assert worst(told, Signal.ERROR_RATE) is Tier.NONE


def test_a_newcomer_that_stays_is_counted_after_a_later_one_took_its_place() -> None:
    engine, start = known()
    live(engine, every(start, HOUR, 30.0, model="m2"))
    live(engine, every(start + 3 * HOUR, 60.0, 5.0, client="net_9"))
    told = live(engine, every(start + 4 * HOUR, 90.0, 0.2, model="m2"))
    assert engine.faults == {}
    assert Signal.VOLUME_SURGE in signals(told)


def test_negative_counts_of_a_careless_provider_turn_nothing_off() -> None:
    engine, now = known()
    live(engine, every(now, 60.0, 1.0, input_tokens=-5000, cost_nano_usd=10**9))
    assert engine.faults == {}


def test_a_limit_set_since_holds_at_once_for_series_known_before() -> None:
    before, now = known()
    limit = LimitSettings(
        limit=20, dimension=Dimension.MODEL, metric=Metric.REQUESTS, per=Period.MINUTE
    )
    engine = Engine(DetectionSettings(limits=(limit,)))
    engine.load(before.dump())
    told = live(engine, every(now, 60.0, 1.0))
    assert worst(told, Signal.HARD_LIMIT, Series("model", "m")) is Tier.EMERGENCY
