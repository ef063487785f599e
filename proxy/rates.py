"""What a model costs: resolved prices as integers.

Owns: reading genai-prices' bundled catalogue, and the arithmetic on what was read.
Must never: reach the network, use floating point for money, or give a model away
because it is unknown.

A rate is femto-USD (10⁻¹⁵) per token, so that a catalogue price of $0.0375 per
million tokens is the integer 37,500,000. A cost is nano-USD, rounded up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from detection.types import Usage

_FEMTO_PER_NANO = 1_000_000
_MTOK = Decimal(1_000_000_000)
_KCOUNT = Decimal(1_000_000_000_000)
_HOUR = Decimal(1_000_000_000_000_000) / 3600

#: Our vendor -> the catalogue's, where the two differ.
_VENDORS = {
    "gemini": "google",
    "vertex": "google",
    "bedrock": "aws",
    "bedrock_agents": "aws",
    "azure_openai": "azure",
    "azure_ai": "azure",
    "xai": "x-ai",
    "moonshot": "moonshotai",
    "voyage": "voyageai",
    "copilot": "github-copilot",
    "chatgpt": "openai",
}
_HUGGING_FACE = re.compile(r"^https://router\.huggingface\.co/([a-z0-9-]+)")


@dataclass(frozen=True, slots=True)
class Rates:
    """Femto-USD per token, per search, per second, per page, per character and per call."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    audio_input: int
    audio_output: int
    image_input: int
    image_output: int
    reasoning: int
    web_search: int = 0
    audio_second: int = 0
    request: int = 0
    audio_cache_read: int = 0
    page: int = 0
    character: int = 0

    @property
    def dearness(self) -> int:
        """For comparing models."""
        return self.input + 3 * self.output


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rates of one model; ``steps`` are (more input tokens than, rates), rising.

    ``least_seconds`` of audio are charged for, however short it was.
    """

    base: Rates
    steps: tuple[tuple[int, Rates], ...] = ()
    least_seconds: int = 0

    def cost_nano_usd(self, usage: Usage) -> int:
        """The cost of one call, rounded up."""
        given = usage.input_tokens
        if given is None:
            # Some answers tell the total, and leave out the prompt's part of it.
            given = max(0, (usage.total_tokens or 0) - (usage.output_tokens or 0))
        rates = self.base
        for threshold, dearer in self.steps:
            if given > threshold:
                rates = dearer
        left = given
        told = usage.extra
        made = usage.output_tokens or 0
        total = rates.request
        # Most calls have few of these, and what is not there costs no arithmetic.
        heard = 0
        if usage.cached_input_tokens:
            read = min(usage.cached_input_tokens, left)
            left -= read
            heard = min(told.get("cached_audio_tokens") or 0, read) if told else 0
            total += (read - heard) * rates.cache_read + heard * rates.audio_cache_read
        if usage.cache_write_tokens:
            written = min(usage.cache_write_tokens, left)
            left -= written
            hour = min(usage.cache_write_1h_tokens or 0, written)
            total += (written - hour) * rates.cache_write + hour * rates.cache_write_1h
        if usage.audio_input_tokens:
            audio = min(max(0, usage.audio_input_tokens - heard), left)
            left -= audio
            total += audio * rates.audio_input
        if usage.image_input_tokens:
            image = min(usage.image_input_tokens, left)
            left -= image
            total += image * rates.image_input
        if usage.audio_output_tokens:
            spoken = min(usage.audio_output_tokens, made)
            made -= spoken
            total += spoken * rates.audio_output
        if usage.image_output_tokens:
            drawn = min(usage.image_output_tokens, made)
            made -= drawn
            total += drawn * rates.image_output
        if usage.reasoning_tokens:
            thought = min(usage.reasoning_tokens, made)
            made -= thought
            total += thought * rates.reasoning
        if usage.web_searches:
            total += usage.web_searches * rates.web_search
        total += left * rates.input + made * rates.output
        if rates.audio_second:
            seconds = told.get("seconds")
            if isinstance(seconds, int | float) and seconds > 0:
                charged = max(Decimal(str(seconds)), Decimal(self.least_seconds))
                total += int(charged * rates.audio_second)
        if rates.page or rates.character:
            total += (told.get("pages") or 0) * rates.page
            total += (told.get("characters") or 0) * rates.character
        return -(-total // _FEMTO_PER_NANO)


def rates_from(prices: Mapping[str, Any]) -> Rates:
    """Rates from USD per million tokens, by the catalogue's names.

    What has no price of its own costs what the wider unit costs: cached tokens as
    fresh ones, an hour's cache write as five minutes', audio as text.
    """

    def rate(name: str, scale: Decimal, default: int) -> int:
        value = prices.get(name)
        return default if value is None else int((Decimal(value) * scale).to_integral_value())

    given = rate("input_mtok", _MTOK, 0)
    made = rate("output_mtok", _MTOK, 0)
    written = rate("cache_write_5m_mtok", _MTOK, rate("cache_write_mtok", _MTOK, given))
    read = rate("cache_read_mtok", _MTOK, given)
    second = rate("input_audio_hours", _HOUR, rate("audio_hours", _HOUR, 0))
    return Rates(
        input=given,
        output=made,
        cache_read=read,
        cache_write=written,
        cache_write_1h=rate("cache_write_1h_mtok", _MTOK, written),
        audio_input=rate("input_audio_mtok", _MTOK, given),
        audio_output=rate("output_audio_mtok", _MTOK, made),
        image_input=rate("input_image_mtok", _MTOK, given),
        image_output=rate("output_image_mtok", _MTOK, made),
        reasoning=rate("output_reasoning_mtok", _MTOK, made),
        web_search=rate("web_searches_kcount", _KCOUNT, 0),
        audio_second=second,
        request=rate("requests_kcount", _KCOUNT, 0),
        audio_cache_read=rate("cache_audio_read_mtok", _MTOK, read),
        page=rate("input_document_kpages", _KCOUNT, 0),
        character=rate("input_mchars", _MTOK, 0),
    )


def tariff_of(
    model: ModelInfo, at: datetime, context: Mapping[str, str], seller: str = ""
) -> Tariff:
    """A catalogue model's tariff at a point in time, for one service tier."""
    tariff = _tariff(model.get_prices(at, context or None))
    # https://groq.com/pricing: at least ten seconds a transcription.
    return replace(tariff, least_seconds=10) if seller == "groq" else tariff


def _tariff(price: ModelPrice) -> Tariff:
    stored = {k: v for k, v in vars(price).items() if v is not None and not k.startswith("_")}
    starts = sorted(
        {tier.start for v in stored.values() if isinstance(v, TieredPrices) for tier in v.tiers}
    )

    def at(tokens: int) -> Rates:
        flat: dict[str, Any] = {}
        for name, value in stored.items():
            if isinstance(value, TieredPrices):
                chosen = value.base
                for tier in value.tiers:
                    if tokens > tier.start:
                        chosen = tier.price
                flat[name] = chosen
            else:
                flat[name] = value
        return rates_from(flat)

    return Tariff(at(0), tuple((start, at(start + 1)) for start in starts))


#: Providers that tell what a call cost.
TELL_COSTS = frozenset(("openrouter", "xai", "perplexity"))


def reported_cost_nano_usd(provider: str, native: Any) -> int | None:
    """What a provider says that it charged, rounded up; ``None`` where it does not.

    OpenRouter: ``cost`` in USD, and with the customer's own key what the model's host
    charged beside it. xAI: ticks of 10⁻¹⁰ USD. Perplexity: ``cost.total_cost``.
    """
    if not isinstance(native, dict):
        return None
    dollars: Any = None
    if provider == "openrouter":
        dollars = native.get("cost")
        if native.get("is_byok") is True:
            details = native.get("cost_details")
            upstream: Any = None
            if isinstance(details, dict):
                upstream = details.get("upstream_inference_cost")
            if not _is_amount(upstream) or not _is_amount(dollars):
                return None
            return _nano(dollars) + _nano(upstream)
    elif provider == "xai":
        ticks = native.get("cost_in_usd_ticks")
        return -(-ticks // 10) if type(ticks) is int and ticks >= 0 else None
    elif provider == "perplexity":
        cost = native.get("cost")
        dollars = cost.get("total_cost") if isinstance(cost, dict) else None
    return _nano(dollars) if _is_amount(dollars) else None


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1_000_000


def _nano(dollars: float) -> int:
    return int((Decimal(repr(dollars)) * 1_000_000_000).to_integral_value(ROUND_CEILING))


def catalogue_provider(vendor: str, upstream_url: str) -> Provider | None:
    """The catalogue's entry for who bills: by the vendor of the host, else by its URL pattern.

    The catalogue's patterns are open at the end, so a match must stop where a host
    stops: ``api.anthropic.com.evil.test`` is not Anthropic.
    """
    return _catalogue_provider(vendor, upstream_url)


def load_catalogue() -> None:
    """Read the price list now: the first call may come when no file can be opened any more.

    Two in three of its prices are another model's as well, and are kept once; what it
    says to people, and how it would read answers, is let go of.
    """
    kept: dict[tuple[tuple[str, object], ...], ModelPrice] = {}

    def once(prices: ModelPrice) -> ModelPrice:
        try:
            return kept.setdefault(tuple(vars(prices).items()), prices)
        except TypeError:  # prices by the length of the prompt, which can't be a key
            return prices

    for provider in get_snapshot().providers:
        provider.extractors = None
        for model in provider.models:
            model.description = model.price_comments = None
            if isinstance(model.prices, ModelPrice):
                model.prices = once(model.prices)
            else:
                for dated in model.prices:
                    dated.prices = once(dated.prices)


@lru_cache(maxsize=512)
def _catalogue_provider(vendor: str, url: str) -> Provider | None:
    providers = {p.id: p for p in get_snapshot().providers}
    if vendor == "huggingface" and (found := _HUGGING_FACE.match(url)):
        return providers.get(f"huggingface_{found[1]}")
    known = providers.get(_VENDORS.get(vendor, vendor))
    if known is not None:
        return known
    for provider in providers.values():
        match = re.match(provider.api_pattern, url)
        if match and (match.end() == len(url) or url[match.end() - 1] == "/"):
            return provider
        if match and url[match.end()] in "/:?":
            return provider
    return None


def find_model(provider: Provider, name: str) -> ModelInfo | None:
    """A model of a provider, by any of the names it goes by."""
    providers = get_snapshot().providers
    for candidate in _spellings(name):
        found = provider.find_model(candidate, all_providers=providers)
        if found is not None:
            return found
    return None


def _spellings(name: str) -> Iterable[str]:
    yield name
    if "/" in name:
        yield name.rpartition("/")[2]
    if "@" in name:
        yield name.replace("@", "-")
        yield name.partition("@")[0]
    if name.startswith("models/"):
        yield name[7:]


def vendor_by_model(name: str) -> tuple[Provider, ModelInfo] | None:
    """The maker of a model, for hosts that the catalogue does not know."""
    snapshot = get_snapshot()
    prefix, slash, rest = name.partition("/")
    candidates = [p for p in snapshot.providers if slash and p.id == _VENDORS.get(prefix, prefix)]
    candidates += [p for p in snapshot.providers if p.model_match is not None]
    for provider in candidates:
        for candidate in (rest, name) if slash else (name,):
            matcher = provider.model_match
            if not slash and matcher is not None and not matcher.is_match(candidate.lower()):
                continue
            model = provider.find_model(candidate)
            if model is not None:
                return provider, model
    return None


def dearest_of_family(
    provider: Provider, name: str, at: datetime, context: Mapping[str, str]
) -> Tariff | None:
    """The dearest model whose name begins like this one's, as long a beginning as any has."""
    name = name.removeprefix("ft:")
    words = re.split(r"[-.:@/ ]", name.lower().rpartition("/")[2])
    models = [(re.split(r"[-.:@/ ]", m.id.lower().rpartition("/")[2]), m) for m in provider.models]
    for length in range(len(words), 0, -1):
        if not any(w.isalpha() for w in words[:length]):
            break
        family = [m for other, m in models if other[:length] == words[:length]]
        if family:
            tariffs = [tariff_of(m, at, context) for m in family]
            best = max(tariffs, key=lambda t: t.base.dearness)
            return best if best.base.dearness > 0 else None
    return None
