"""Estimates where a provider was silent, and finish reasons in few words."""

from __future__ import annotations

import pytest

from detection.types import Usage
from proxy.providers import estimate_usage, normalised_finish
from proxy.providers.base import RequestFacts

FACTS = RequestFacts(body_bytes=4000)


def test_nothing_reported() -> None:
    usage = estimate_usage(Usage(output_bytes=401, model_served="m"), FACTS)
    assert (usage.source, usage.input_tokens, usage.output_tokens) == ("estimated", 1000, 101)
    assert usage.model_served == "m"


def test_a_call_that_names_no_model_stays_unknown() -> None:
    usage = Usage(output_bytes=401)
    assert estimate_usage(usage, FACTS) is usage
    named = RequestFacts(body_bytes=4000, model="m")
    assert estimate_usage(usage, named).source == "estimated"


def test_a_stream_cut_after_its_first_count() -> None:
    started = Usage(
        source="reported", input_tokens=25, output_tokens=1, output_bytes=400, complete=False
    )
    usage = estimate_usage(started, FACTS)
    assert (usage.source, usage.input_tokens, usage.output_tokens) == ("estimated", 25, 100)


@pytest.mark.parametrize("complete", [True, None])
def test_what_was_reported_stays(complete: bool | None) -> None:
    usage = Usage(
        source="reported", input_tokens=1, output_tokens=2, output_bytes=9999, complete=complete
    )
    assert estimate_usage(usage, FACTS) is usage


@pytest.mark.parametrize(
    ("native", "word"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("COMPLETE", "stop"),
        ("1", "stop"),
        ("MAX_TOKENS", "length"),
        ("incomplete:max_output_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("TOOL_CALL", "tool_calls"),
        ("SAFETY", "content_filter"),
        ("guardrail_intervened", "content_filter"),
        ("ERROR", "error"),
        ("a word of tomorrow", "other"),
        ("", ""),
    ],
)
def test_finish_reasons(native: str, word: str) -> None:
    assert normalised_finish(native) == word
