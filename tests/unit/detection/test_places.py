"""Fields that the hot path takes by their place stand where it takes them."""

from __future__ import annotations

from detection.contrib import Recorder
from detection.types import Observation
from proxy.ledger_totals import Totals, summed
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
    assert summed([CALL]) == Counts(
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
    assert summed([CALL._replace(action="block")]).refused == 1


def test_the_totals_take_the_right_fields() -> None:
    totals = Totals()
    totals.add([CALL], summed([CALL]))
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
