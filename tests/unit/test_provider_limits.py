"""What providers said of their limits: read at the scrape, and the last word of each stays."""

from __future__ import annotations

from proxy.provider_limits import ProviderLimits

REMAINING = "tokenweir_upstream_ratelimit_remaining"
RESET = "tokenweir_upstream_ratelimit_reset_timestamp_seconds"
WAIT = "tokenweir_upstream_retry_after_timestamp_seconds"


def told(limits: ProviderLimits) -> dict[tuple[str, ...], object]:
    return {(r.name, *r.labels): r.value for r in limits.readings()}


def test_the_last_word_of_each_limit_stays() -> None:
    limits = ProviderLimits()
    limits.note("openai", "k", {"x-ratelimit-remaining-requests": "9"}, 100.0)
    limits.note("openai", "k", {"x-ratelimit-remaining-requests": "8"}, 101.0)
    limits.note("openai", "k", {"x-ratelimit-reset-tokens": "2s"}, 102.0)
    limits.note("openai", "k", {"content-type": "text/html"}, 103.0)
    limits.note("openai", "other", {"retry-after": "5"}, 104.0)
    assert told(limits) == {
        (REMAINING, "openai", "k", "requests"): 8.0,
        (RESET, "openai", "k", "tokens"): 104.0,
        (WAIT, "openai", "other"): 109.0,
    }
    assert told(limits) == told(limits)


def test_a_pause_told_in_the_body() -> None:
    limits = ProviderLimits()
    limits.told_to_wait("gemini", "k", 60.0)
    assert told(limits) == {(WAIT, "gemini", "k"): 60.0}


def test_neither_keys_nor_field_names_grow_without_bound() -> None:
    limits = ProviderLimits()
    for n in range(1000):
        limits.note("openai", f"key {n}", {"x-ratelimit-remaining-requests": str(n)}, float(n))
        limits.note("openai", f"key {n}", {f"x-{n}": ""}, float(n))
    found = told(limits)
    assert len(found) == 200
    assert found[REMAINING, "openai", "key 999", "requests"] == 999.0
    assert len(limits._names) <= 200
