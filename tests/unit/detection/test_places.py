"""Fields that the hot path takes by their place stand where it takes them."""

from __future__ import annotations

import pytest

from detection.contrib import Recorder
from detection.types import Mode, Observation
from proxy.gate_counters import Counters
from proxy.gate_decision import Decision
from proxy.gate_estimate import Estimate, Estimator, Rates
from proxy.gate_rules import UNITS, Counter, compile_limit
from proxy.ledger_totals import Totals, summed
from proxy.settings import LimitSettings
from proxy.store.series import Counts
from tests.recording import record

CALL = Observation(
    ts=100.0,
    id="id",
    key="key",
    agent="agent",
    provider="provider",
    model="model",
    status=503,
    error_type="overloaded",
    input_tokens=11,
    cached_input_tokens=5,
    cache_write_tokens=3,
    output_tokens=7,
    reasoning_tokens=2,
    cost_nano_usd=13,
    usage_source="reported",
    finish_reasons=("stop",),
    ttft_seconds=0.25,
    latency_seconds=2.0,
    action="allow",
)


def test_the_ledger_sums_the_right_fields() -> None:
    assert Counts(*summed([CALL])) == Counts(
        requests=1,
        cost_nano_usd=13,
        input_tokens=11,
        output_tokens=7,
        cached_input_tokens=5,
        errors=1,
        reasoning_tokens=2,
        cache_write_tokens=3,
        refused=0,
    )
    assert Counts(*summed([CALL._replace(action="block")])).refused == 1


def test_the_totals_take_the_right_fields() -> None:
    totals = Totals()
    totals.row_of(CALL)
    assert list(totals.usage) == [("provider", "model", "key", "agent", CALL.project or "")]
    totals.detail([CALL])
    timing = totals.timing["provider", "model"]
    assert (timing.duration.total, timing.ttft.total) == (2.0, 0.25)
    assert totals.usage_sources["reported"] == 1
    assert totals.finish_reasons["provider", "stop"] == 1
    assert totals.error_types["provider", "overloaded"] == 1


def test_the_recorder_takes_the_right_fields() -> None:
    recorder = Recorder()
    record(recorder, CALL)
    (cell,) = recorder.snapshot().cells()
    assert (cell.requests, cell.errors) == (1, 1)
    assert (cell.input_tokens, cell.cached_tokens, cell.output_tokens) == (11, 5, 7)
    assert cell.cost_nano_usd == 13
    record(recorder, CALL._replace(action="block"))
    assert [c.requests for c in recorder.snapshot().cells()] == [1]


@pytest.mark.parametrize(
    ("place", "field"), [(0, "ts"), (7, "tags"), (14, "error_type"), (20, "cost_nano_usd")]
)
def test_single_fields_stand_where_they_are_taken(place: int, field: str) -> None:
    assert Observation._fields[place] == field


def test_the_gate_settles_by_the_right_fields() -> None:
    counters = Counters(lambda: 100.0)
    settings = LimitSettings(
        name="l", requests=10**6, cost_usd=1000, tokens=10**6, in_flight=9, mode="observe"
    )
    by_metric = {rule.metric: rule for rule in compile_limit(settings, Mode.ENFORCE)[0]}
    rules = [by_metric[metric] for metric in UNITS]
    decision = Decision("allow")
    held = [Counter(rule, ("v",)) for rule in rules]
    estimate = Estimate(900, 800, 0, 0, 0, False, ("agent", "model"), 1)
    assert counters.reserve(held, estimate, decision, 100.0, final=False) is None
    assert [c.account.reserved for c in held] == [1, 800, 900, 1]
    counters.settle(decision, CALL)
    assert [c.account.reserved for c in held] == [0, 0, 0, 0]
    assert [c.account.pending for c in held] == [1, 13, 11 + 7, 0]
    # What can't be known is billed as it was estimated, where anything was sent.
    unknown = CALL._replace(cost_nano_usd=None, input_tokens=None, output_tokens=None)
    for call, billed in (
        (unknown._replace(status=200, usage_source="unknown"), 800),
        (unknown, 800),
        (unknown._replace(usage_source="unknown"), 0),
    ):
        cost = Counter(rules[1], ("v",))
        assert counters.reserve([cost], estimate, decision, 100.0, final=False) is None
        counters.settle(decision, call)
        assert cost.account.pending == billed


def test_the_estimator_learns_from_the_right_fields() -> None:
    estimator = Estimator(lambda provider, model, project: Rates(1, 1))
    name = ("agent", "model")
    estimator.learn(Estimate(0, 0, 0, 0, 0, False, name, 22), 0, CALL)
    learned = estimator._learned[name]
    assert (learned.input_per_byte, learned.peak_output) == (0.5, 7.0)
    estimator.learn(
        Estimate(0, 0, 0, 0, 0, False, name, 1), 0, CALL._replace(usage_source="estimated")
    )
    assert learned.count == 1
