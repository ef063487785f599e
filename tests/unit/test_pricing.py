"""Money: the catalogue's own arithmetic, overrides, and never a free guess."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal

import pytest
from genai_prices import Usage as CatalogueUsage
from genai_prices import calc_price
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from detection.types import Usage
from proxy.pricing import Price, PriceOverride, Pricer, Prices, PricingSettings
from proxy.rates import catalogue_provider

AT = datetime(2026, 9, 21, 12, tzinfo=UTC).timestamp()
PRICER = Pricer(PricingSettings())
TEN = Usage(source="reported", input_tokens=10, output_tokens=10)


def cost(provider: str, model: str | None, usage: Usage = TEN, pricer: Pricer = PRICER) -> Price:
    return pricer.price(provider, model, usage, at=AT)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [
            ("openai", "openai", "gpt-5-mini", ""),
            ("openai", "openai", "gpt-5", "flex"),
            ("openai", "openai", "gpt-5", "priority"),
            ("anthropic", "anthropic", "claude-sonnet-4-5", ""),
            ("anthropic", "anthropic", "claude-opus-4-1", ""),
            ("gemini", "google", "gemini-2.5-pro", ""),
            ("xai", "x-ai", "grok-4", ""),
            ("bedrock", "aws", "amazon.nova-pro-v1:0", ""),
            ("deepseek", "deepseek", "deepseek-chat", ""),
        ]
    ),
    st.integers(0, 400_000),
    st.integers(0, 50_000),
    st.integers(0, 100_000),
    st.integers(0, 20_000),
)
def test_agrees_with_the_catalogue(
    seller: tuple[str, str, str, str], fresh: int, made: int, read: int, written: int
) -> None:
    vendor, catalogue, model, tier = seller
    given_tokens = fresh + read + written
    usage = Usage(
        input_tokens=given_tokens,
        output_tokens=made,
        cached_input_tokens=read,
        cache_write_tokens=written,
        service_tier=tier or None,
    )
    theirs = calc_price(
        CatalogueUsage(
            input_tokens=given_tokens,
            output_tokens=made,
            cache_read_tokens=read,
            cache_write_tokens=written,
        ),
        model,
        provider_id=catalogue,
        genai_request_timestamp=datetime.fromtimestamp(AT, UTC),
        price_context={"service_tier": tier} if tier else None,
    )
    expected = (theirs.total_price * 10**9).to_integral_value(ROUND_CEILING)
    found = cost(vendor, model, usage)
    assert found.cost_nano_usd == expected
    assert not found.unpriced


_DAYS = [datetime(2026, month, 20, 12, tzinfo=UTC) for month in (3, 9, 11)]
_TIERED = [
    ("openai", "openai", "gpt-5"),
    ("openai", "openai", "gpt-4.1"),
    ("anthropic", "anthropic", "claude-opus-4-6"),
    ("anthropic", "anthropic", "claude-sonnet-4-6"),
    ("mistral", "mistral", "codestral-latest"),
    ("gemini", "google", "gemini-2.5-pro"),
    ("deepseek", "deepseek", "deepseek-chat"),
]


@pytest.mark.parametrize("day", _DAYS, ids=str)
@pytest.mark.parametrize("tier", ["default", "flex", "priority", "fast", "batch"])
@pytest.mark.parametrize(("vendor", "catalogue", "model"), _TIERED)
def test_dates_tiers_and_long_contexts_agree_with_the_catalogue(
    vendor: str, catalogue: str, model: str, tier: str, day: datetime
) -> None:
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier}
    if tier == "fast":
        context["speed"] = "fast"
    for length, hour in ((1000, 2), (300_000, 20)):
        at = day.replace(hour=hour)
        theirs = calc_price(
            CatalogueUsage(input_tokens=length, output_tokens=77),
            model,
            provider_id=catalogue,
            genai_request_timestamp=at,
            price_context=context,
        )
        usage = Usage(input_tokens=length, output_tokens=77, service_tier=tier)
        ours = PRICER.price(vendor, model, usage, at=at.timestamp())
        assert ours.cost_nano_usd == (theirs.total_price * 10**9).to_integral_value(ROUND_CEILING)


def test_a_batch_costs_half_and_priority_more() -> None:
    def of(tier: str | None) -> int:
        usage = Usage(input_tokens=1000, output_tokens=1000, service_tier=tier)
        return PRICER.price("openai", "gpt-5", usage, at=_DAYS[-1].timestamp()).cost_nano_usd

    assert of("batch") * 2 == of("flex") * 2 == of(None) == of("auto")
    assert of("priority") == 2 * of(None)


@pytest.mark.parametrize("seconds", [3.25, 10.0, 90.0])
def test_audio_by_the_second_agrees_with_the_catalogue(seconds: float) -> None:
    theirs = calc_price(
        CatalogueUsage(input_audio_seconds=Decimal(str(seconds))),
        "whisper-large-v3",
        provider_id="groq",
        genai_request_timestamp=datetime.fromtimestamp(AT, UTC),
    )
    ours = cost("groq", "whisper-large-v3", Usage(extra={"seconds": seconds})).cost_nano_usd
    assert abs(ours - theirs.total_price * 10**9) <= 1


def test_cached_audio_agrees_with_the_catalogue() -> None:
    theirs = calc_price(
        CatalogueUsage(
            input_tokens=1000,
            output_tokens=50,
            input_audio_tokens=900,
            cache_read_tokens=800,
            cache_audio_read_tokens=700,
        ),
        "gemini-2.5-flash",
        provider_id="google",
        genai_request_timestamp=datetime.fromtimestamp(AT, UTC),
    )
    usage = Usage(
        input_tokens=1000,
        output_tokens=50,
        audio_input_tokens=900,
        cached_input_tokens=800,
        extra={"cached_audio_tokens": 700},
    )
    ours = cost("gemini", "gemini-2.5-flash", usage).cost_nano_usd
    assert ours == (theirs.total_price * 10**9).to_integral_value(ROUND_CEILING)


def test_pages_and_characters_are_charged() -> None:
    pages = Usage(extra={"pages": 250})
    assert cost("mistral", "mistral-ocr-2505", pages).cost_nano_usd == 250_000_000
    spoken = Usage(source="estimated", input_tokens=300, extra={"characters": 1000})
    assert cost("openai", "tts-1", spoken).cost_nano_usd == 15_000_000


def test_an_override_by_the_upstreams_name_is_for_that_upstream() -> None:
    pricer = Pricer(PricingSettings(overrides=(_override("gpt-*", "9", provider="team-gpu"),)))
    found = {
        name: pricer.price("openai", "gpt-5", TEN, at=AT, upstream=name).source
        for name in ("openai", "team-gpu")
    }
    assert found == {"openai": "catalogue", "team-gpu": "override"}


def test_an_override_by_the_name_asked_holds_whatever_was_served() -> None:
    pricer = Pricer(PricingSettings(overrides=(_override("my-deployment", "9"),)))
    served = Usage(input_tokens=10, output_tokens=10, model_served="gpt-4o-2024-08-06")
    assert cost("azure_openai", "my-deployment", served, pricer=pricer).source == "override"


def test_an_hours_cache_write_costs_more() -> None:
    def of(hour: int) -> int:
        usage = Usage(
            input_tokens=1000,
            output_tokens=0,
            cache_write_tokens=1000,
            cache_write_1h_tokens=hour,
        )
        return cost("anthropic", "claude-sonnet-4-5", usage).cost_nano_usd

    assert of(0) == 1000 * 3750
    assert of(1000) == 1000 * 6000
    assert of(400) == 600 * 3750 + 400 * 6000


def test_long_context_has_a_price_of_its_own() -> None:
    short = cost("gemini", "gemini-2.5-pro", Usage(input_tokens=200_000, output_tokens=0))
    long = cost("gemini", "gemini-2.5-pro", Usage(input_tokens=200_001, output_tokens=0))
    assert long.cost_nano_usd > 1.9 * short.cost_nano_usd


def test_web_searches_are_charged() -> None:
    usage = Usage(input_tokens=0, output_tokens=0, web_searches=3)
    assert cost("anthropic", "claude-sonnet-4-5", usage).cost_nano_usd == 30_000_000


def test_audio_by_the_minute() -> None:
    usage = Usage(extra={"seconds": 90})
    assert cost("openai", "whisper-1", usage).cost_nano_usd == 9_000_000


def test_a_missing_prompt_count_is_taken_from_the_total() -> None:
    whole = Usage(input_tokens=575, output_tokens=2, total_tokens=577)
    partial = Usage(output_tokens=2, total_tokens=577)
    assert cost("gemini", "gemini-2.5-flash", partial) == cost("gemini", "gemini-2.5-flash", whole)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-5-of-tomorrow"),
        ("anthropic", "claude-opus-99"),
        ("azure_openai", "my-deployment"),
        ("someone", "something"),
        ("vercel_gateway", "anthropic/claude-sonnet-4"),
        ("ollama", "llama3.2"),
        ("openai", None),
        ("openai", ""),
    ],
)
def test_an_unknown_model_is_never_free(provider: str, model: str | None) -> None:
    found = cost(provider, model)
    assert found.unpriced
    assert found.cost_nano_usd > 0


def test_an_unknown_model_takes_the_dearest_of_its_family() -> None:
    unknown = cost("anthropic", "claude-opus-99").cost_nano_usd
    for known in ("claude-opus-4-1", "claude-opus-4-5"):
        assert unknown >= cost("anthropic", known).cost_nano_usd
    assert unknown > cost("anthropic", "claude-haiku-4-5").cost_nano_usd


def test_the_served_model_prices_a_deployment() -> None:
    served = Usage(input_tokens=10, output_tokens=10, model_served="gpt-4o-2024-08-06")
    found = cost("azure_openai", "my-deployment", served)
    assert not found.unpriced
    assert found.cost_nano_usd == cost("openai", "gpt-4o").cost_nano_usd


def test_what_a_provider_says_it_charged() -> None:
    def told(provider: str, native: dict[str, object]) -> Price:
        usage = Usage(input_tokens=10, output_tokens=10, extra={"native_usage": native})
        return cost(provider, "x-ai/grok-4", usage)

    assert told("openrouter", {"cost": 0.00126}) == Price(1_260_000, 0, False, "reported")
    assert told("openrouter", {"cost": 0}).cost_nano_usd == 0
    own_key = {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}
    assert told("openrouter", own_key).cost_nano_usd == 21_000_000
    assert told("xai", {"cost_in_usd_ticks": 37_756_000}).cost_nano_usd == 3_775_600
    assert told("perplexity", {"cost": {"total_cost": 0.005}}).cost_nano_usd == 5_000_000
    assert told("somebody", {"cost": 0.5}).source != "reported"
    assert told("openrouter", {"cost": -1}).source != "reported"
    assert told("openrouter", {"cost": "free"}).source != "reported"
    distrust = Pricer(PricingSettings(use_reported_cost=False))
    usage = Usage(input_tokens=10, output_tokens=10, extra={"native_usage": {"cost": 0}})
    assert cost("openrouter", "x-ai/grok-4", usage, distrust).cost_nano_usd > 0


def _override(
    model: str, price: str, provider: str = "*", since: str | None = None
) -> PriceOverride:
    return PriceOverride.model_validate(
        {
            "provider": provider,
            "model": model,
            "since": since,
            "prices": {"input": price, "output": price},
        }
    )


def test_overrides_by_pattern_and_date() -> None:
    pricer = Pricer(
        PricingSettings(
            overrides=(
                _override("llama*", "1"),
                _override("llama*", "2", since="2026-09-01"),
                _override("llama*", "3", since="2026-10-01"),
                _override("gpt-*", "7", provider="azure_*"),
            )
        )
    )
    assert cost("ollama", "Llama3.2", pricer=pricer) == Price(40_000, 0, False, "override")
    at = datetime(2026, 8, 1, tzinfo=UTC).timestamp()
    assert pricer.price("ollama", "llama3", TEN, at=at).cost_nano_usd == 20_000
    at = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
    assert pricer.price("ollama", "llama3", TEN, at=at).cost_nano_usd == 60_000
    assert cost("azure_openai", "gpt-5", pricer=pricer).cost_nano_usd == 140_000
    assert cost("openai", "gpt-5", pricer=pricer).source == "catalogue"


def test_a_free_override_is_free() -> None:
    pricer = Pricer(PricingSettings(overrides=(_override("*", "0", provider="ollama"),)))
    assert cost("ollama", "llama3", pricer=pricer) == Price(0, 0, False, "override")


def test_markup_by_project() -> None:
    pricer = Pricer(PricingSettings(markup={"team-a": Decimal("0.15"), "*": Decimal("0.5")}))
    assert pricer.markup("team-a", 1_000_000) == 150_000
    assert pricer.markup("team-b", 1_000_001) == 500_001
    assert pricer.markup(None, 10) == 5
    found = pricer.price("openai", "gpt-5", TEN, at=AT, project="team-a")
    assert found.markup_nano_usd == -(-found.cost_nano_usd * 15 // 100)


def test_costs_are_rounded_up() -> None:
    pricer = Pricer(PricingSettings(overrides=(_override("m", "0.0001"),)))
    assert cost("x", "m", Usage(input_tokens=1, output_tokens=0), pricer).cost_nano_usd == 1


def test_a_look_alike_host_is_not_the_provider() -> None:
    assert catalogue_provider("unknown", "https://api.anthropic.com.evil.test/v1") is None
    real = catalogue_provider("unknown", "https://api.anthropic.com/v1")
    assert real is not None
    assert real.id == "anthropic"


def test_settings_refuse_what_they_do_not_know() -> None:
    for bad in ({"overides": []}, {"default": {"input": -1, "output": 1}}, {"markup": {"a": "x"}}):
        with pytest.raises(ValidationError):
            PricingSettings.model_validate(bad)
    assert Prices(input=Decimal(1), output=Decimal(2)).rates().cache_read == 1_000_000_000


def test_prices_are_at_hand_when_no_file_can_be_opened_any_more() -> None:
    script = """
import os, resource
from detection.types import Usage
from proxy.pricing import Pricer, PricingSettings
pricer = Pricer(PricingSettings())
most = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
while True:
    try:
        os.dup(0)
    except OSError:
        break
usage = Usage(source="reported", input_tokens=1000, output_tokens=10)
url = "https://api.openai.com/v1"
print(pricer.price("openai", "gpt-4o-mini", usage, upstream_url=url, at=1.7e9).source)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "catalogue\n", done.stderr
