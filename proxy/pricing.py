"""Money: what one call cost, as integer nano-USD.

Owns: the ``pricing`` section of the configuration and the way from (provider,
model, tier) to a cost. Must never: block, raise on an unknown model, or call
anything free that is only unknown.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import translate
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from detection.types import Usage
from proxy.rates import (
    TELL_COSTS,
    Rates,
    Tariff,
    catalogue_provider,
    dearest_of_family,
    find_model,
    load_catalogue,
    rates_from,
    reported_cost_nano_usd,
    tariff_of,
    vendor_by_model,
)

_new = tuple.__new__
_CACHED_TARIFFS = 4096
#: Time-of-day prices change on quarters of an hour.
_SLOT_SECONDS = 900
_TIERS = {
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "batch": {"processing": "batch"},
}


class Prices(BaseModel):
    """Prices in USD per million tokens, except where the name says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal = Field(ge=0, description="Fresh input tokens.")
    output: Decimal = Field(ge=0, description="Output tokens, reasoning included.")
    cache_read: Decimal | None = Field(None, ge=0, description="Cached input; unset: as input.")
    cache_write: Decimal | None = Field(
        None, ge=0, description="Input written to the cache for five minutes; unset: as input."
    )
    cache_write_1h: Decimal | None = Field(
        None, ge=0, description="Input written to the cache for an hour; unset: as cache_write."
    )
    audio_input: Decimal | None = Field(None, ge=0, description="Audio input; unset: as input.")
    audio_output: Decimal | None = Field(None, ge=0, description="Audio output; unset: as output.")
    image_input: Decimal | None = Field(None, ge=0, description="Image input; unset: as input.")
    image_output: Decimal | None = Field(None, ge=0, description="Image output; unset: as output.")
    web_search_per_thousand: Decimal | None = Field(
        None, ge=0, description="USD per thousand web searches."
    )
    per_thousand_requests: Decimal | None = Field(None, ge=0, description="USD per thousand calls.")

    def rates(self) -> Rates:
        """As integers."""
        return rates_from(
            {
                "input_mtok": self.input,
                "output_mtok": self.output,
                "cache_read_mtok": self.cache_read,
                "cache_write_mtok": self.cache_write,
                "cache_write_1h_mtok": self.cache_write_1h,
                "input_audio_mtok": self.audio_input,
                "output_audio_mtok": self.audio_output,
                "input_image_mtok": self.image_input,
                "output_image_mtok": self.image_output,
                "web_searches_kcount": self.web_search_per_thousand,
                "requests_kcount": self.per_thousand_requests,
            }
        )


class PriceOverride(BaseModel):
    """A price of your own, for all models that match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = Field("*", description="Provider or upstream name; `*` and `?` are wildcards.")
    model: str = Field(description="Model, asked or served; `*` and `?` are wildcards.")
    since: date | None = Field(
        None, description="First day (UTC) that this price holds; unset: always."
    )
    prices: Prices = Field(description="The prices.")


class PricingSettings(BaseModel):
    """The `pricing` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overrides: tuple[PriceOverride, ...] = Field(
        (),
        description="Own prices. Of those that match, the one with the latest `since` wins; of "
        "equals the first.",
    )
    markup: dict[str, Decimal] = Field(
        default_factory=dict,
        description="Factor that is added to the cost per project, as in `{team-a: 0.15}`; the "
        "project `*` is for all others.",
    )
    default: Prices = Field(
        Prices(input=Decimal(15), output=Decimal(75)),
        description="For models that neither the catalogue nor an override knows, and whose "
        "family is unknown too.",
    )
    use_reported_cost: bool = Field(
        True,
        description="Where a provider tells what it charged for a call (OpenRouter, xAI, "
        "Perplexity), take that.",
    )

    def markup_nano_usd(self, project: str | None, cost_nano_usd: int) -> int:
        """What is added to a cost for a project, rounded up."""
        factor = self.markup.get(project or "", self.markup.get("*"))
        return 0 if factor is None else -(-cost_nano_usd * int(factor.scaleb(9)) // 1_000_000_000)


class Price(NamedTuple):
    """What a call cost. ``unpriced``: by a guess, since the model's price is not known.

    ``source`` is ``catalogue``, ``override``, ``reported``, ``family`` or ``default``.
    """

    cost_nano_usd: int
    markup_nano_usd: int = 0
    unpriced: bool = False
    source: str = "catalogue"


class _Found(NamedTuple):
    tariff: Tariff
    unpriced: bool
    source: str


class Pricer:
    """Prices calls. Resolves each (provider, model, tier) once, then computes."""

    def __init__(self, settings: PricingSettings) -> None:
        #: Goes up with each change of settings, for those who remember rates.
        self.revision = 0
        load_catalogue()
        self.configure(settings)

    def configure(self, settings: PricingSettings) -> None:
        """Take new settings, and forget what was resolved by the old ones."""
        self.revision += 1
        self._settings = settings
        self._overrides = [
            (re.compile(translate(o.provider)), re.compile(translate(o.model.lower())), o)
            for o in settings.overrides
        ]
        self._default = Tariff(settings.default.rates())
        self._marks_up = bool(settings.markup)
        self._takes_reported = settings.use_reported_cost
        self._cache: OrderedDict[tuple[Any, ...], _Found] = OrderedDict()

    def price(
        self,
        provider: str,
        model: str | None,
        usage: Usage,
        *,
        upstream_url: str = "",
        at: float,
        project: str | None = None,
        upstream: str = "",
    ) -> Price:
        """The cost of one call.

        Parameters
        ----------
        provider : str
            The vendor, as :func:`proxy.providers.provider_of` names it.
        model : str or None
            As asked; what was served stands in ``usage``.
        upstream_url : str
            The configured base URL, never anything that a client sent.
        at : float
            Epoch seconds of the call.
        """
        tier = usage.service_tier or ""
        if tier:
            tier = tier.lower()
            if tier not in _TIERS:
                tier = ""
        served, slot = usage.model_served, at // _SLOT_SECONDS
        key = (provider, model, served, tier, upstream_url, upstream, slot)
        found = self._cache.get(key)
        if found is None:
            found = self._resolve(provider, upstream, model, served, tier, upstream_url, at)
            self._cache[key] = found
            if len(self._cache) > _CACHED_TARIFFS:
                self._cache.popitem(last=False)
        tariff, unpriced, source = found
        if provider in TELL_COSTS and self._takes_reported and source != "override":
            reported = reported_cost_nano_usd(provider, usage.extra.get("native_usage"))
            if reported is not None:
                return Price(reported, self.markup(project, reported), False, "reported")
        cost = tariff.cost_nano_usd(usage)
        markup = self.markup(project, cost) if self._marks_up else 0
        # In the order of its fields: by its own way it takes three times as long.
        return _new(Price, (cost, markup, unpriced, source))

    def markup(self, project: str | None, cost_nano_usd: int) -> int:
        """What is added to a cost for a project, rounded up."""
        return self._settings.markup_nano_usd(project, cost_nano_usd) if self._marks_up else 0

    def _resolve(
        self,
        provider: str,
        upstream: str,
        model: str | None,
        served: str | None,
        tier: str,
        url: str,
        at: float,
    ) -> _Found:
        when = datetime.fromtimestamp(at, UTC)
        context: Mapping[str, str] = _TIERS.get(tier, {})
        # Bedrock's own names carry the region's price; elsewhere the served name is the finer one.
        names = [model, served] if provider.startswith("bedrock") else [served, model]
        if model is not None and model.endswith(":free"):
            names = [model, served]
        known = [name for name in names if name]
        own = self._override(provider, upstream, known, when.date())
        if own is not None:
            return _Found(own, False, "override")
        seller = catalogue_provider(provider, url)
        if seller is not None:
            for name in known:
                found = find_model(seller, name)
                if found is not None:
                    tariff = tariff_of(found, when, context, seller.id)
                    return _Found(tariff, False, "catalogue")
        for name in known:
            made = vendor_by_model(name)
            if made is not None:
                tariff = tariff_of(made[1], when, context)
                if tariff.base.dearness > 0:
                    return _Found(tariff, True, "family")
        if seller is not None:
            for name in known:
                dearest = dearest_of_family(seller, name, when, context)
                if dearest is not None:
                    return _Found(dearest, True, "family")
        return _Found(self._default, True, "default")

    def _override(self, provider: str, upstream: str, names: list[str], day: date) -> Tariff | None:
        best: PriceOverride | None = None
        for seller, pattern, override in self._overrides:
            if not (seller.match(provider) or (upstream and seller.match(upstream))):
                continue
            if not any(pattern.match(name.lower()) for name in names):
                continue
            if override.since is not None and override.since > day:
                continue
            if best is None or (override.since or date.min) > (best.since or date.min):
                best = override
        return Tariff(best.prices.rates()) if best is not None else None
