"""When a budget or limit is worth an incident, and when that is over."""

from __future__ import annotations

import pytest

from detection.budget import nano_usd
from detection.engine import Engine
from detection.settings import DetectionSettings
from detection.types import Action, ActionKind, Family, Observation, Series, Signal, Tier, Verdict
from proxy.enforcement_alerts import MoneyAlerts
from proxy.gate import Gate
from proxy.settings import BudgetSettings, LimitSettings
from tests.unit.gate.bench import START, Time, action, call, done, gate

HOUR = 3600.0


def spend(g: Gate, dollars: float, agent: str = "agent") -> None:
    """One call that costs so much."""
    decision = g.admit(call(agent))
    g.settle(decision, done()._replace(cost_nano_usd=nano_usd(dollars)))


def looked(alerts: MoneyAlerts, clock: Time, *, after: float = 0.0) -> list[Verdict]:
    """The verdicts of looks once a minute for so long."""
    found = list(alerts.look(clock.now))
    end = clock.now + after
    while clock.now < end:
        clock.now = min(end, clock.now + 60)
        found += alerts.look(clock.now)
    return found


def test_thresholds_are_told_once_each_and_a_new_period_ends_them(clock: Time) -> None:
    g = gate(clock, budgets=[BudgetSettings(name="b", amount_usd=10, per="day", burn_alerts=False)])
    alerts = MoneyAlerts(g.counters)
    told = []
    for dollars in (4, 2, 1, 2, 1.5):
        spend(g, dollars)
        told.append([(v.tier, v.detail["threshold"]) for v in looked(alerts, clock)])
    assert told == [[], [(Tier.INFO, 0.5)], [], [(Tier.WARNING, 0.8)], [(Tier.CRITICAL, 1.0)]]
    assert g.admit(call()).kind == "block"
    clock.now += 24 * HOUR
    spend(g, 0.01)
    over = looked(alerts, clock)
    assert (Signal.BUDGET_BURN, Tier.NONE) in [(v.signal, v.tier) for v in over]
    assert g.admit(call()).kind == "allow"


def test_a_soft_budget_alerts_and_refuses_nothing(clock: Time) -> None:
    g = gate(clock, budgets=[BudgetSettings(name="b", amount_usd=1, hard=False)])
    alerts = MoneyAlerts(g.counters)
    spend(g, 1.5)
    (verdict,) = looked(alerts, clock)
    assert (verdict.tier, verdict.ratio) == (Tier.CRITICAL, 1.5)
    assert g.admit(call()).kind == "allow"


@pytest.mark.parametrize(
    ("dollars_an_hour", "hours", "tier"),
    [(15.0, 1, Tier.CRITICAL), (7.0, 6, Tier.WARNING), (4.0, 6, None)],
)
def test_burn_rates_need_the_long_and_the_short_window(
    clock: Time, dollars_an_hour: float, hours: int, tier: Tier | None
) -> None:
    # $720 a month is $1 an hour: 14.4 times that over an hour, or 6 times over six.
    clock.now = 1_801_440_000.0  # the first of a month
    g = gate(clock, budgets=[BudgetSettings(name="b", amount_usd=720, alert_at=())])
    alerts = MoneyAlerts(g.counters)
    looked(alerts, clock)
    told = []
    for _ in range(hours * 60):
        spend(g, dollars_an_hour / 60)
        told += looked(alerts, clock, after=60)
    assert max((v.tier for v in told), default=None) == tier
    if tier is None:
        return
    assert [s for s, _ in alerts.burning()] == [Series("total", "")]
    exhausted = told[-1].detail["exhausted_in_seconds"]
    left = 720 - dollars_an_hour * hours
    assert exhausted == pytest.approx(left / dollars_an_hour * HOUR, rel=0.3)
    # Quiet for half an hour: the short windows are empty, and it is over.
    assert looked(alerts, clock, after=1900)[-1].tier is Tier.NONE
    assert list(alerts.burning()) == []


def test_a_burst_that_is_over_burns_nothing(clock: Time) -> None:
    g = gate(clock, budgets=[BudgetSettings(name="b", amount_usd=720, alert_at=())])
    alerts = MoneyAlerts(g.counters)
    looked(alerts, clock)
    clock.now += 60
    spend(g, 20)
    clock.now += 600
    assert looked(alerts, clock, after=600) == []


def test_a_limit_that_refuses_is_told_once_and_is_over_after_a_quiet_minute(clock: Time) -> None:
    limit = LimitSettings(name="few", by=("agent",), requests=2, per="hour", tier="critical")
    g = gate(clock, limits=[limit])
    alerts = MoneyAlerts(g.counters)
    for _ in range(5):
        g.admit(call())
    (verdict,) = looked(alerts, clock)
    assert (verdict.signal, verdict.tier) == (Signal.HARD_LIMIT, Tier.CRITICAL)
    assert verdict.series == Series("agent", "agent")
    assert verdict.detail["refused_calls"] == 3
    g.admit(call())
    assert looked(alerts, clock) == []
    (over,) = looked(alerts, clock, after=120)
    assert over.tier is Tier.NONE


def test_combinations_and_zones(clock: Time) -> None:
    limit = LimitSettings(name="pair", by=("key", "tag:team"), requests=1, per="day")
    g = gate(clock, limits=[limit])
    kinds = [
        g.admit(call(key=key, tags={"team": team})).kind
        for key in ("key_a", "key_b")
        for team in ("x", "y", "x")
    ]
    assert kinds == ["allow", "allow", "block"] * 2
    local = BudgetSettings(name="b", amount_usd=1, per="day", time_zone="Asia/Tokyo")
    g = gate(clock, budgets=[local])
    spend(g, 0.1)
    (counter,) = g.counters
    # Midnight in Tokyo is three in the afternoon of the day before in UTC.
    assert counter.end % 86_400 == 15 * HOUR


def test_the_blast_radius_is_told_of_as_the_worst(clock: Time) -> None:
    g = gate(clock)
    alerts = MoneyAlerts(g.counters)
    softened: Action = action(ActionKind.BLOCK, "agent", "a", reason="loops")
    alerts.softened(softened)
    (verdict,) = looked(alerts, clock)
    assert (verdict.tier, verdict.blockable) == (Tier.EMERGENCY, False)
    assert verdict.detail["instead_of_blocking"] == "agent a"
    assert looked(alerts, clock, after=90)[-1].tier is Tier.NONE


def test_a_burning_budget_makes_a_repeated_prompt_an_emergency(clock: Time) -> None:
    """Repetition alone is weak evidence; with a budget's burn there are two families."""

    def worst(*, burning: bool) -> Tier:
        engine, tier = Engine(DetectionSettings()), Tier.NONE
        g = gate(clock, budgets=[BudgetSettings(name="b", amount_usd=720, by=("agent",))])
        alerts = MoneyAlerts(g.counters)
        looked(alerts, clock)
        spend(g, 0.001)
        looked(alerts, clock)
        clock.now += 60
        if burning:
            spend(g, 20)
        looked(alerts, clock)
        if burning:
            assert list(alerts.burning())
        for number in range(300):
            for series, score in alerts.burning():
                assert engine.submit(series, score, START) == [] or number
            o = Observation(
                START + number / 3, f"r{number}", agent="agent", key="key_0", model="m",
                provider="openai", status=200, cost_nano_usd=10, usage_source="reported",
                fingerprint="0123456789abcdef", fingerprint_kind="text",
            )  # fmt: skip
            for verdict in engine.observe(o):
                if verdict.signal is Signal.AGENT_LOOP:
                    tier = max(tier, verdict.tier)
                    if verdict.tier is Tier.EMERGENCY:
                        assert Family.BUDGET in verdict.families
        return tier

    assert worst(burning=False) < Tier.EMERGENCY
    assert worst(burning=True) is Tier.EMERGENCY


def test_settings_that_change_keep_the_count(clock: Time) -> None:
    budget = BudgetSettings(name="b", amount_usd=1, per="day")
    g = gate(clock, budgets=[budget])
    spend(g, 0.9)
    smaller = replace_amount(budget, 0.5)
    g.configure(g.mode, [], [smaller], [])
    assert g.admit(call()).kind == "block"
    g.configure(g.mode, [], [replace_amount(budget, 2)], [])
    assert g.admit(call()).kind == "allow"


def replace_amount(budget: BudgetSettings, dollars: float) -> BudgetSettings:
    return budget.model_copy(update={"amount_usd": dollars})
