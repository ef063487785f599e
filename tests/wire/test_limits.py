"""Retry-after and rate limits, in all the formats that vendors use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers import rate_limits, retry_after
from proxy.providers.limits import RateLimit, reset_seconds

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1h7m0.764s", 4020.764),
        ("6m0s", 360.0),
        ("22ms", 0.022),
        ("1.5s", 1.5),
        ("2d1h", 176_400.0),
        ("0s", 0.0),
        ("17", 17.0),
        ("0.5", 0.5),
        ("1790000060", 60.0),
        ("1790000060000", 60.0),
        ("1780000000", 0.0),
        ("2026-09-21T14:14:20Z", 60.0),
        ("2026-09-21T14:14:20+00:00", 60.0),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("nan", None),
    ],
)
def test_resets(value: str, seconds: float | None) -> None:
    found = reset_seconds(value, NOW)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "1", "retry-after-ms": "0"}, 0.0),
        ({"retry-after": "1", "retry-after-ms": "750"}, 0.75),
        ({"retry-after": "Mon, 21 Sep 2026 14:14:00 GMT"}, 40.0),
        ({"retry-after": "Mon, 21 Sep 2020 14:14:00 GMT"}, 0.0),
        ({"retry-after": "never"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("provider", "headers", "limits"),
    [
        (
            "openai",
            {
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-remaining-requests": "499",
                "x-ratelimit-reset-requests": "120ms",
                "x-ratelimit-limit-tokens": "30000",
                "x-ratelimit-remaining-tokens": "29000",
                "x-ratelimit-reset-tokens": "2s",
                "x-request-id": "ratelimit",
            },
            [RateLimit("requests", 500, 499, 0.12), RateLimit("tokens", 30000, 29000, 2)],
        ),
        (
            "anthropic",
            {
                "anthropic-ratelimit-input-tokens-limit": "80000",
                "anthropic-ratelimit-input-tokens-remaining": "79000",
                "anthropic-ratelimit-input-tokens-reset": "2026-09-21T14:14:20Z",
            },
            [RateLimit("input_tokens", 80000, 79000, 60)],
        ),
        (
            "openrouter",
            {
                "x-ratelimit-limit": "20",
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": "1790000030000",
            },
            [RateLimit("requests", 20, 0, 30)],
        ),
        (
            "azure_openai",
            {
                "x-ratelimit-remaining-requests": "-1",
                "x-ratelimit-limit-requests": "-1",
                "x-ratelimit-remaining-tokens": "700",
            },
            [RateLimit("tokens", None, 700, None)],
        ),
        (
            "mistral",
            {"x-ratelimit-limit-tokens-minute": "500000"},
            [RateLimit("tokens_minute", 500000, None, None)],
        ),
        (
            "huggingface",
            {
                "ratelimit": '"api";r=989;t=188, "pages";r=4;t=12',
                "ratelimit-policy": '"fixed window";"api";q=1000;w=300',
            },
            [RateLimit("api", None, 989, 188), RateLimit("pages", None, 4, 12)],
        ),
        (
            "someone",
            {"ratelimit": "limit=100, remaining=50, reset=5"},
            [RateLimit("requests", 100, 50, 5)],
        ),
        (
            "mistral",
            {
                "ratelimitbysize-limit": "500000",
                "ratelimitbysize-remaining": "499000",
                "ratelimitbysize-reset": "34",
            },
            [RateLimit("tokens", 500000, 499000, 34)],
        ),
        ("openai", {"x-ratelimit-remaining-requests": "many"}, []),
        ("openai", {}, []),
    ],
)
def test_rate_limits(provider: str, headers: dict[str, str], limits: list[RateLimit]) -> None:
    assert rate_limits(provider, headers, NOW) == limits


@given(st.text(max_size=30))
def test_any_value(value: str) -> None:
    headers = {
        "retry-after": value,
        "retry-after-ms": value,
        "x-ratelimit-reset-requests": value,
        "x-ratelimit-limit-tokens": value,
        "ratelimit": value,
    }
    for limit in rate_limits("x", headers, NOW):
        assert all(number is None or number >= 0 for number in limit[1:])
    found = retry_after(headers, NOW)
    assert found is None or found >= 0
