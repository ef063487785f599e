"""Scores become verdicts: tiers, two families, hysteresis, self-trust."""

from __future__ import annotations

import heapq
import itertools

import pytest

from detection.combine import HOLD, HOLD_DEFAULT, Combiner
from detection.engine import Engine
from detection.methods import band
from detection.settings import DetectionSettings
from detection.settings_rules import RuleSettings, TierName
from detection.state import SeriesState, View
from detection.types import Family, Score, Series, Signal, Tier, Verdict
from tests.unit.detection.support import (
    AGENT,
    DAY,
    HOUR,
    KEY,
    START,
    every,
    known,
    live,
    steady,
    worst,
)

CRITICAL, EMERGENCY = Tier.CRITICAL, Tier.EMERGENCY

#: Evidence at critical, as the detectors give it.
EVIDENCE = {
    "loop": Score(Signal.AGENT_LOOP, Family.REPETITION, CRITICAL, 40.0, detail={"strong": True}),
    "prompt": Score(Signal.AGENT_LOOP, Family.REPETITION, CRITICAL, 300.0, ceiling=CRITICAL),
    "poller": Score(Signal.AGENT_LOOP, Family.REPETITION, Tier.WARNING, 13.0),
    "storm": Score(Signal.RETRY_STORM, Family.ERRORS, CRITICAL, 14.0),
    "outage": Score(Signal.ERROR_RATE, Family.ERRORS, CRITICAL, 1.0, ceiling=CRITICAL),
    "surge": Score(Signal.VOLUME_SURGE, Family.VOLUME, CRITICAL, 900.0, ceiling=CRITICAL),
    "spend": Score(Signal.SPEND_SPIKE, Family.VOLUME, CRITICAL, 9.0, ceiling=CRITICAL),
    "dear": Score(Signal.COST_PER_REQUEST, Family.SHAPE, CRITICAL, 9.0, ceiling=CRITICAL),
    "model": Score(Signal.NEW_MODEL, Family.NOVELTY, Tier.INFO, 1.0, ceiling=Tier.WARNING),
    "burn": Score(Signal.BUDGET_BURN, Family.BUDGET, CRITICAL, 20.0),
    "limit": Score(Signal.HARD_LIMIT, Family.LIMIT, EMERGENCY, 20.0),
}
#: What makes an emergency; nothing else does.
ENOUGH = [
    {"limit"},
    {"loop", "surge"}, {"loop", "spend"}, {"loop", "storm"}, {"loop", "burn"},
    {"prompt", "storm"}, {"prompt", "burn"},
    {"poller", "limit"},
    {"storm", "surge"}, {"storm", "spend"}, {"storm", "burn"},
    {"surge", "burn"}, {"spend", "burn"},
]  # fmt: skip


def told_of(names: tuple[str, ...], series: Series = AGENT) -> list[Verdict]:
    """What a quiet series of a day tells when this evidence comes together."""
    state = SeriesState(series, int(START) // 10, 0, profiled=True)
    assert state.profile is not None
    state.profile.learned = True
    state.profile.records = [10**6] * len(state.profile.records)
    combiner, told = Combiner(DetectionSettings()), []
    for place, name in enumerate(names):
        now = START + 10.0 * place
        told += combiner.add(View(now, int(now) // 10, state), EVIDENCE[name])
    return told


#: Evidence of one signal replaces the other, so that two of one are left out.
TOGETHER = [
    names
    for n in (1, 2, 3)
    for names in itertools.combinations(sorted(EVIDENCE), n)
    if len({EVIDENCE[name].signal for name in names}) == n
]


@pytest.mark.parametrize("names", TOGETHER)
def test_an_emergency_needs_two_families_or_a_limit(names: tuple[str, ...]) -> None:
    told = told_of(names)
    found = [v for v in told if v.tier is EMERGENCY]
    assert bool(found) is any(enough <= set(names) for enough in ENOUGH)
    for verdict in found:
        assert len(verdict.families) >= 2 or verdict.families == {Family.LIMIT}


@pytest.mark.parametrize("dimension", ["total", "provider", "model", "endpoint"])
def test_what_everyone_shares_is_an_emergency_by_a_limit_only(dimension: str) -> None:
    series = Series(dimension, "x")
    assert max(v.tier for v in told_of(("loop", "storm", "surge", "burn"), series)) is CRITICAL
    assert max(v.tier for v in told_of(("limit",), series)) is EMERGENCY


def test_weak_repetition_may_not_block() -> None:
    (weak,) = told_of(("prompt",))
    (strong,) = told_of(("loop",))
    assert (weak.blockable, strong.blockable) == (False, True)


def test_the_bands_of_an_excess() -> None:
    assert [band(x).label for x in (0.24, 0.25, 0.5, 2.0, 5.0)] == [
        "none", "info", "warning", "critical", "emergency",
    ]  # fmt: skip


def test_a_rules_ceiling_holds() -> None:
    rules = {Signal.COST_PER_REQUEST: RuleSettings(ceiling=TierName.WARNING)}
    combiner = Combiner(DetectionSettings(rules=rules))
    state = SeriesState(KEY, 0, 0, profiled=True)
    (verdict,) = combiner.add(View(1.0, 0, state), EVIDENCE["dear"])
    assert verdict.tier is Tier.WARNING


def test_a_verdict_is_told_once_raised_and_ended_after_its_hold() -> None:
    combiner, state = Combiner(DetectionSettings()), SeriesState(AGENT, 0, 0, profiled=True)
    warning = EVIDENCE["poller"]
    assert [v.tier for v in combiner.add(View(10.0, 1, state), warning)] == [Tier.WARNING]
    assert not combiner.add(View(11.0, 1, state), warning)
    assert [v.tier for v in combiner.add(View(12.0, 1, state), EVIDENCE["loop"])] == [CRITICAL]
    assert not combiner.add(View(13.0, 1, state), warning), "never told milder while it goes on"
    assert not combiner.expire(state, 13.0 + HOLD_DEFAULT)
    (over,) = combiner.expire(state, 13.1 + HOLD_DEFAULT)
    assert (over.tier, over.signal, over.since) == (Tier.NONE, Signal.AGENT_LOOP, 10.0)
    assert not combiner.expire(state, 1e6)


@pytest.mark.parametrize("name", ["surge", "dear"])
def test_a_statistical_critical_that_led_nowhere_costs_a_week_of_trust(name: str) -> None:
    combiner, state = Combiner(DetectionSettings()), SeriesState(KEY, 0, 0, profiled=True)
    assert state.profile is not None
    state.profile.learned = True
    score = EVIDENCE[name]
    combiner.add(View(10.0, 1, state), score)
    ended = 10.1 + HOLD[score.signal]
    combiner.expire(state, ended)
    (again,) = combiner.add(View(ended + 5 * DAY, 1, state), score)
    assert again.tier is Tier.INFO
    combiner.expire(state, ended + 7 * DAY + 1)
    (later,) = combiner.add(View(ended + 7.1 * DAY, 1, state), score)
    assert later.tier is CRITICAL


def test_an_alarm_that_became_an_emergency_was_no_wolf() -> None:
    combiner, state = Combiner(DetectionSettings()), SeriesState(KEY, 0, 0, profiled=True)
    assert state.profile is not None
    state.profile.learned = True
    for name in ("surge", "burn"):
        combiner.add(View(10.0, 1, state), EVIDENCE[name])
    combiner.expire(state, 1e5)
    assert not state.wolf


def test_a_person_who_dismisses_an_alarm_is_heard() -> None:
    engine, now = known()
    engine.dismiss(Signal.VOLUME_SURGE, KEY, now)
    told = live(engine, steady(now, 300, 200, seed=5))
    assert worst(told, Signal.VOLUME_SURGE, KEY) is Tier.INFO
    assert worst(told, Signal.VOLUME_SURGE, AGENT) is CRITICAL


def test_a_flow_is_critical_where_as_many_calls_in_clumps_are_not() -> None:
    """Bursts of 400 calls are usual here; 90 a minute without a pause are not."""
    usual = [steady(START, 2 * DAY, 2.0)]
    usual += [every(START + day * DAY + 9 * HOUR, 10.0, 0.025) for day in (0, 1)]
    engine = Engine()
    live(engine, heapq.merge(*usual, key=lambda o: o.ts))
    engine.finish_learning()
    saved, now = engine.dump(), START + 2 * DAY
    clumps = [every(now + 30 * place, 2.25, 0.05) for place in range(10)]
    for surge, tier in (
        ([steady(now, 300.0, 90.0)], CRITICAL),
        (clumps, Tier.NONE),
    ):
        again = Engine()
        again.load(saved)
        told = live(again, heapq.merge(*surge, key=lambda o: o.ts))
        assert worst(told, Signal.VOLUME_SURGE, KEY) is tier
