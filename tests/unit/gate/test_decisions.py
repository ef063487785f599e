"""What the gate answers, and in which words."""

from __future__ import annotations

import pytest

from detection.types import ActionKind, Mode, Series
from proxy.keys import KeyRing
from proxy.settings import (
    BlastRadiusSettings,
    BudgetSettings,
    KeysSettings,
    LimitSettings,
    ProtectSettings,
)
from tests.unit.gate.bench import START, Time, action, call, done, gate


def test_a_block_refuses_its_series_alone_and_expires_by_itself(clock: Time) -> None:
    g = gate(clock)
    g.apply([action(ActionKind.BLOCK, "agent", "loop", reason="42 identical calls", signal="s")])
    refused = g.admit(call("loop"))
    assert refused.kind == "block"
    assert refused.refusal is not None
    assert refused.refusal.kind == "anomaly"
    assert refused.refusal.retry_after_seconds is None
    assert "42 identical calls" in refused.refusal.message
    assert refused.refusal.reset_at == START + 60
    assert g.admit(call("other")).kind == "allow"
    clock.now += 60
    assert g.admit(call("loop")).kind == "allow"
    assert [a.series for a in g.expire()] == [Series("agent", "loop")]


def test_a_throttle_lets_its_rate_pass_and_tells_a_sane_wait(clock: Time) -> None:
    g = gate(clock)
    g.apply([action(ActionKind.THROTTLE, "agent", "a", rate_per_second=0.5)])
    kinds = []
    for _ in range(20):
        decision = g.admit(call("a"))
        kinds.append(decision.kind)
        if decision.refusal is not None:
            assert 1 <= (decision.refusal.retry_after_seconds or 0) <= 60
        clock.now += 0.5
    assert kinds.count("allow") == pytest.approx(6, abs=1)


def test_a_share_of_a_throttle_falls_to_each_replica(clock: Time) -> None:
    g = gate(clock)
    g.counters.replicas = 4
    g.apply([action(ActionKind.THROTTLE, "agent", "a", rate_per_second=4)])
    passed = 0
    for _ in range(100):
        passed += g.admit(call("a")).kind == "allow"
        clock.now += 0.1
    assert passed == pytest.approx(10, abs=4)


def test_a_downgrade_gives_another_model_and_says_so(clock: Time) -> None:
    g = gate(clock)
    models = {"big*": "small", "big-legacy": "older"}
    g.apply([action(ActionKind.DOWNGRADE, "agent", "a", models=models)])
    decision = g.admit(call("a", model="big-2"))
    assert (decision.kind, decision.model) == ("downgrade", "small")
    assert ("x-tokenweir-model", "small") in decision.headers
    assert g.admit(call("a", model="big-legacy")).model == "older"
    assert g.admit(call("a", model="tiny")).kind == "allow"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.SHADOW])
def test_milder_modes_let_pass(clock: Time, mode: Mode) -> None:
    g = gate(clock, mode=mode, limits=[LimitSettings(name="r", requests=1, per="hour")])
    g.apply([action(ActionKind.BLOCK, "agent", "a")])
    first, second = g.admit(call("a")), g.admit(call("b"))
    assert (first.refusal, second.refusal) == (None, None)
    assert first.would == ("block" if mode is Mode.SHADOW else None)
    assert second.would == ("block" if mode is Mode.SHADOW else None)
    assert (("x-tokenweir-would", "block") in second.headers) is (mode is Mode.SHADOW)


def test_a_person_is_obeyed_in_every_mode(clock: Time) -> None:
    g = gate(clock, mode=Mode.OBSERVE)
    g.apply([action(ActionKind.BLOCK, "agent", "a", origin="manual")])
    assert g.admit(call("a")).kind == "block"


def test_protected_callers_are_not_touched_by_automation(clock: Time) -> None:
    g = gate(clock, protect=[ProtectSettings(match={"agent": ("billing-*",)})])
    assert g.apply([action(ActionKind.BLOCK, "agent", "billing-run")]) == []
    g.apply([action(ActionKind.BLOCK, "key", "key_0")])
    assert g.admit(call("billing-run")).kind == "allow"
    assert g.admit(call("other")).kind == "block"
    g.apply([action(ActionKind.BLOCK, "agent", "billing-run", origin="manual")])
    assert g.admit(call("billing-run")).kind == "block"


def test_automation_stops_only_so_much_of_all_callers(clock: Time) -> None:
    g = gate(clock, blast_radius=BlastRadiusSettings(share=0.5))
    softened = []
    g.on_softened(softened.append)
    for i in range(10):
        g.admit(call(f"agent-{i}"))
    taken = g.apply([action(ActionKind.BLOCK, "agent", f"agent-{i}") for i in range(6)])
    assert [a.kind for a in taken] == [ActionKind.BLOCK] * 5 + [ActionKind.THROTTLE]
    assert softened == taken[5:]
    assert g.apply([action(ActionKind.BLOCK, "key", "key_0")])[0].kind is ActionKind.THROTTLE
    by_hand = action(ActionKind.BLOCK, "key", "key_0", origin="manual", id="hand")
    assert g.apply([by_hand])[0].kind is ActionKind.BLOCK


def test_half_open_lets_probes_through_and_releases_when_they_stay_healthy(clock: Time) -> None:
    g = gate(clock)
    half_open = {"half_open": True, "probes": 2}
    g.apply([action(ActionKind.THROTTLE, "agent", "a", rate_per_second=0.1, detail=half_open)])
    probes = [g.admit(call("a")), g.admit(call("a"))]
    assert [p.kind for p in probes] == ["allow", "allow"]
    assert g.admit(call("a")).kind == "throttle"
    for probe in probes:
        g.settle(probe, done())
    assert g.admit(call("a")).kind == "allow"


def test_a_probe_that_fails_closes_the_door(clock: Time) -> None:
    g = gate(clock)
    half_open = {"half_open": True, "probes": 2}
    g.apply([action(ActionKind.THROTTLE, "agent", "a", rate_per_second=0.1, detail=half_open)])
    g.settle(g.admit(call("a")), done(status=500))
    assert g.admit(call("a")).kind == "throttle"


def test_a_block_with_cut_ends_running_calls_of_its_series(clock: Time) -> None:
    g = gate(clock)
    cut = []
    g.on_cut(lambda series, refusal: cut.append((series, refusal.kind)))
    g.apply([action(ActionKind.BLOCK, "agent", "a", cut=True)])
    g.apply([action(ActionKind.CUT_STREAMS, "agent", "b")])
    g.apply([action(ActionKind.BLOCK, "agent", "c")])
    assert cut == [(Series("agent", "a"), "anomaly"), (Series("agent", "b"), "anomaly")]


def test_one_call_may_not_cost_more_than_its_cap(clock: Time) -> None:
    g = gate(clock, limits=[LimitSettings(name="cap", cost_per_call_usd=0.0001)])
    refused = g.admit(call(max_tokens=1000))
    assert refused.refusal is not None
    assert refused.refusal.kind == "budget"
    streaming = g.admit(call(max_tokens=None))
    assert streaming.refusal is None
    assert g.progress(streaming, 100) is None
    ended = g.progress(streaming, 2000)
    assert ended is not None
    assert ended.rule == "cap"


def test_a_session_spends_its_own_budget(clock: Time) -> None:
    rule = LimitSettings(name="run", by=("session",), cost_usd=0.0002, per="session")
    g = gate(clock, limits=[rule])
    for expected in ("allow", "allow", "block"):
        decision = g.admit(call(session="s1"))
        assert decision.kind == expected
        g.settle(decision, done(input_tokens=200, output_tokens=100))
    clock.now += 40 * 86_400
    assert g.admit(call(session="s1")).kind == "block"
    assert g.admit(call(session="s2")).kind == "allow"
    assert g.admit(call()).kind == "allow"


def test_unnamed_and_renamed_agents_share_one_count(clock: Time) -> None:
    g = gate(clock, limits=[LimitSettings(name="r", by=("agent",), requests=2, per="hour")])
    kinds = [g.admit(call(None)).kind for _ in range(3)]
    assert kinds == ["allow", "allow", "block"]


def test_a_settled_call_gives_back_what_it_did_not_use(clock: Time) -> None:
    g = gate(clock, budgets=[BudgetSettings(name="b", amount_usd=0.0001)])
    first = g.admit(call())
    assert first.reservation_nano_usd == (200 + 8) * 150 + 100 * 600
    assert g.admit(call()).kind == "throttle"
    g.settle(first, done(input_tokens=10, output_tokens=1))
    g.settle(first, done(input_tokens=10, output_tokens=1))
    assert next(iter(g.counters)).used_now == 10 * 150 + 600
    assert g.admit(call(max_tokens=50)).kind == "allow"


def test_a_budget_tied_up_is_worth_a_short_wait_and_one_used_up_is_not(clock: Time) -> None:
    g = gate(clock, budgets=[BudgetSettings(name="b", amount_usd=0.0001, per="day")])
    running = g.admit(call())
    tied_up = g.admit(call()).refusal
    assert tied_up is not None
    assert (tied_up.kind, tied_up.retry_after_seconds) == ("throttle", 1.0)
    assert "running calls have $0.0001 set aside" in tied_up.message
    g.settle(running, done(input_tokens=200, output_tokens=100))
    used_up = g.admit(call()).refusal
    assert used_up is not None
    assert (used_up.kind, used_up.retry_after_seconds) == ("budget", None)
    assert "is used up" in used_up.message
    assert used_up.reset_at == next(iter(g.counters)).end
    too_dear = gate(clock, budgets=[BudgetSettings(name="b", amount_usd=0.00001)])
    assert too_dear.admit(call()).kind == "block"


def test_a_new_period_begins_with_a_full_budget(clock: Time) -> None:
    g = gate(clock, limits=[LimitSettings(name="r", requests=1, per="minute")])
    assert [g.admit(call()).kind for _ in range(2)] == ["allow", "throttle"]
    clock.now += 60
    assert g.admit(call()).kind == "allow"


def test_a_rolling_window_frees_a_tenth_at_a_time(clock: Time) -> None:
    rule = LimitSettings(name="r", requests=10, per="minute", window="rolling")
    g = gate(clock, limits=[rule])
    for _ in range(5):
        g.settle(g.admit(call()), done())
        g.settle(g.admit(call()), done())
        clock.now += 6
    assert g.admit(call()).kind == "throttle"
    clock.now += 31
    assert [g.admit(call()).kind for _ in range(3)] == ["allow", "allow", "throttle"]


def test_a_virtual_key_keeps_to_its_models_and_limits(clock: Time) -> None:
    keys = KeyRing(b"s" * 32, KeysSettings(), clock)
    record, secret = keys.issue(
        models=["gpt-*"], limits=[LimitSettings(name="r", requests=1, per="hour")]
    )
    keys.put(record)
    caller = keys.identify(secret)
    assert (caller.virtual_key, caller.refusal) == (record.id, None)
    g = gate(clock, keys=keys)
    mine = {"key": caller.key, "virtual_key": caller.virtual_key}
    assert g.admit(call(model="claude", **mine)).refusal.kind == "forbidden"
    assert [g.admit(call(model="gpt-5", **mine)).kind for _ in range(2)] == ["allow", "block"]
