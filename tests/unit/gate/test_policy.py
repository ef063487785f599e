"""The ladder: up while evidence comes, open again by probes, down by itself."""

from __future__ import annotations

from typing import Any

import pytest

from detection.policy import HALF_OPEN_SECONDS, Policy
from detection.settings import LadderStep, PolicyMatch, PolicyRule, PolicySettings, TierName
from detection.types import (
    TOTAL,
    Action,
    ActionKind,
    Family,
    Mode,
    Observation,
    Series,
    Signal,
    Tier,
    Verdict,
)
from proxy.common_tags import CommonTags

AGENT = Series("agent", "a")
THROTTLE = LadderStep(ActionKind.THROTTLE, for_seconds=60, rate_per_second=2)
DOWNGRADE = LadderStep(ActionKind.DOWNGRADE, for_seconds=60, models={"big*": "small"})
BLOCK = LadderStep(ActionKind.BLOCK, for_seconds=100, cut=True)
WEBHOOK = LadderStep(ActionKind.WEBHOOK, webhook="gateway")


def verdict(series: Series = AGENT, *, now: float = 0.0, **more: Any) -> Verdict:
    signal = more.pop("signal", Signal.AGENT_LOOP)
    tier = more.pop("tier", Tier.EMERGENCY)
    return Verdict(now, signal, tier, series, frozenset((Family.REPETITION,)), 40.0, 12.0, **more)


class Bench:
    """A policy and the evidence that it sees."""

    def __init__(self, *ladder: LadderStep, match: PolicyMatch | None = None, **rule: Any) -> None:
        match = match or PolicyMatch(tier=TierName.CRITICAL)
        settings = PolicySettings(rules=(PolicyRule("p", match, ladder=ladder, **rule),))
        self.policy = Policy(settings)
        self.last: float | None = 0.0

    def decide(self, found: Verdict, now: float = 0.0, **more: Any) -> list[Action]:
        return self.policy.decide(found, now, **more)

    def tick(self, now: float, *, evidence: bool = False) -> list[str]:
        if evidence:
            self.last = now
        actions = self.policy.tick(now, lambda series, signal: self.last)
        return [str(a.kind) + (" half-open" if a.detail.get("half_open") else "") for a in actions]


def test_the_ladder_is_climbed_while_evidence_comes_and_not_without() -> None:
    bench = Bench(THROTTLE, DOWNGRADE, BLOCK)
    assert [a.kind for a in bench.decide(verdict())] == [ActionKind.THROTTLE]
    assert bench.tick(2, evidence=True) == []
    assert bench.tick(4, evidence=True) == ["downgrade"]
    assert bench.tick(30) == []
    assert bench.tick(31, evidence=True) == ["block"]
    assert bench.tick(32) == []


def test_a_block_opens_by_probes_and_comes_back_longer() -> None:
    bench = Bench(BLOCK, WEBHOOK)
    (first,) = bench.decide(verdict())
    assert (first.until, first.cut) == (100.0, True)
    assert bench.tick(4, evidence=True) == ["webhook"]
    assert bench.tick(97) == []
    # In place before the block ends: no gap between the two.
    (half_open,) = bench.policy.tick(98.5, lambda s, g: 4.0)
    assert (half_open.detail["probes"], half_open.until) == (3, 100 + HALF_OPEN_SECONDS)
    assert bench.tick(105) == []
    (again,) = (a for a in bench.policy.tick(106, lambda s, g: 105.0))
    assert (again.kind, again.until) == (ActionKind.BLOCK, 106 + 2 * 100)
    bench.last = 105.0
    assert bench.tick(305) == ["throttle half-open"]
    assert bench.tick(305 + HALF_OPEN_SECONDS) == []


def test_what_was_blocked_of_late_is_blocked_at_once() -> None:
    bench = Bench(THROTTLE, BLOCK)
    bench.decide(verdict())
    assert bench.tick(4, evidence=True) == ["block"]
    assert bench.decide(verdict(tier=Tier.NONE), 150) == []
    (again,) = bench.decide(verdict(), 400)
    assert (again.kind, again.until) == (ActionKind.BLOCK, 400 + 200)
    (later,) = bench.decide(verdict(), 400 + 200 + 3601)
    assert later.kind is ActionKind.THROTTLE


def test_an_action_is_taken_again_if_evidence_comes_after_its_end() -> None:
    bench = Bench(THROTTLE)
    bench.decide(verdict())
    assert bench.tick(59, evidence=True) == []
    assert bench.tick(61) == []
    assert bench.tick(62, evidence=True) == ["throttle"]
    assert bench.decide(verdict(tier=Tier.NONE), 63) == []
    assert bench.tick(130, evidence=True) == []


def test_nothing_lasts_longer_than_the_policy_allows() -> None:
    bench = Bench(BLOCK, longest_seconds=120)
    for expected in (100, 120, 120):
        (block,) = bench.decide(verdict(), 0.0)
        assert block.until == expected


def test_a_throttle_is_a_rate_or_a_share_of_the_usual() -> None:
    share = LadderStep(ActionKind.THROTTLE, rate_per_second=2, share_of_normal=0.5)
    for usual, rate in ((None, 2.0), (6.0, 3.0)):
        (taken,) = Bench(share).decide(verdict(), usual_per_second=usual)
        assert taken.rate_per_second == rate
    soft_capped = verdict(detail={"soft_cap_per_second": 9.0})
    (taken,) = Bench(THROTTLE).decide(soft_capped)
    assert taken.rate_per_second == 9.0


def test_only_a_key_is_disabled_and_until_a_person_lifts_it() -> None:
    disable = LadderStep(ActionKind.DISABLE_KEY)
    assert Bench(disable).decide(verdict()) == []
    (taken,) = Bench(disable).decide(verdict(Series("key", "key_1")))
    assert (taken.kind, taken.until) == (ActionKind.DISABLE_KEY, None)


def test_weak_evidence_throttles_and_never_stops() -> None:
    weak = verdict(tier=Tier.CRITICAL, blockable=False)
    cut = LadderStep(ActionKind.CUT_STREAMS)
    assert [a.kind for a in Bench(BLOCK, cut, THROTTLE).decide(weak)] == [ActionKind.THROTTLE]
    assert Bench(BLOCK).decide(weak) == []


def test_what_serves_everyone_is_only_told_of_unless_a_policy_names_it() -> None:
    everyone = verdict(TOTAL)
    assert [a.kind for a in Bench(THROTTLE, WEBHOOK).decide(everyone)] == [ActionKind.WEBHOOK]
    named = PolicyMatch(tier=TierName.CRITICAL, dimensions=("total",))
    assert [a.kind for a in Bench(THROTTLE, match=named).decide(everyone)] == [ActionKind.THROTTLE]


@pytest.mark.parametrize("signal", [Signal.BUDGET_BURN, Signal.HARD_LIMIT])
def test_a_limit_refuses_by_itself_and_more_is_done_where_a_policy_names_it(signal: Signal) -> None:
    own = verdict(signal=signal, blockable=False)
    assert Bench(THROTTLE).decide(own) == []
    named = PolicyMatch((signal,), TierName.INFO)
    assert [a.kind for a in Bench(DOWNGRADE, match=named).decide(own)] == [ActionKind.DOWNGRADE]


def test_a_policy_matches_by_signal_tier_scope_value_and_tags() -> None:
    match = PolicyMatch(
        (Signal.AGENT_LOOP,), TierName.CRITICAL, ("agent",), ("team-*",), {"env": "prod"}
    )
    bench = Bench(THROTTLE, match=match)
    hit = verdict(Series("agent", "team-a"), tier=Tier.CRITICAL)
    assert bench.decide(hit, tags={"env": "prod", "x": "y"})
    assert bench.decide(hit, tags={"env": "test"}) == []
    assert bench.decide(verdict(Series("agent", "other")), tags={"env": "prod"}) == []
    assert bench.decide(verdict(Series("key", "team-a")), tags={"env": "prod"}) == []
    milder = verdict(Series("agent", "team-a"), tier=Tier.WARNING)
    assert bench.decide(milder, tags={"env": "prod"}) == []


def test_a_policy_has_a_mode_of_its_own() -> None:
    (taken,) = Bench(BLOCK, mode=Mode.SHADOW).decide(verdict())
    assert taken.mode is Mode.SHADOW


def test_a_policy_that_fails_does_what_it_declared() -> None:
    odd = verdict(detail={"soft_cap_per_second": 1}, now=0.0)
    bench = Bench(LadderStep(ActionKind.THROTTLE, for_seconds="soon"))  # type: ignore[arg-type]
    assert [a.kind for a in bench.decide(odd)] == [ActionKind.NOTIFY]
    assert bench.policy.faults == 1


def test_common_tags_are_those_of_the_last_quarter_of_an_hour() -> None:
    tags = CommonTags()
    call = Observation(0.0, "r", agent="a", tags={"team": "x"})
    tags.observe(call)
    assert tags.of(AGENT) == {"team": "x"}
    assert tags.of(Series("agent_model", "a|m")) == {"team": "x"}
    assert tags.of(Series("tag", "team=y")) == {"team": "y"}
    tags.observe(call._replace(tags={}))
    assert tags.of(AGENT) == {}
    tags.observe(call._replace(ts=1000.0))
    assert tags.of(AGENT) == {"team": "x"}
