"""Cloud bills in FOCUS 1.x, as Azure and AWS export them (CSV, gzip or Parquet).

Owns: the columns of the FinOps Open Cost and Usage Specification
(https://focus.finops.org/focus-specification/) that tell what AI services cost,
and the tokens in ConsumedQuantity where its unit says so. Must never: take a
credit, tax or purchase for usage, or a charge of another service for AI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from proxy.history.base import Importer
from proxy.history.rows import (
    DAY_SECONDS,
    Aggregate,
    BadRowError,
    Options,
    Row,
    content_id,
    nano_usd,
    object_of,
    required,
    seconds_since_epoch,
    tags_of,
    text,
    whole,
)

_UNIT = re.compile(r"^\s*(\d+(?:\.\d+)?)?\s*([KMB]?)\s*(?:input |output )?tokens?\s*$", re.I)
_SCALE: Final = {"": 1, "K": 1000, "M": 10**6, "B": 10**9}
_OUTPUT = re.compile(r"\b(?:output|outp?|opt|completion)s?\b", re.I)
_CACHE_READ = re.compile(r"cache.?read|cached|\bcchd\b", re.I)
_CACHE_WRITE = re.compile(r"cache.?(?:write|creation)", re.I)
_CLOUD: Final = (
    ("bedrock", "aws.bedrock"),
    ("openai", "azure.ai.openai"),
    ("azure", "azure.ai.inference"),
    ("cognitive", "azure.ai.openai"),
    ("foundry", "azure.ai.openai"),
    ("vertex", "gcp.vertex_ai"),
    ("gemini", "gcp.gemini"),
)


def _recognises(first: Mapping[str, Any]) -> bool:
    return "BilledCost" in first and "ChargePeriodStart" in first


def _convert(data: Mapping[str, Any], options: Options) -> Iterable[Row]:
    service = text(data.get("ServiceName")) or ""
    described = " ".join(
        str(data[column])
        for column in ("SkuMeter", "x_SkuMeterName", "x_UsageType", "ChargeDescription", "SkuId")
        if data.get(column)
    )
    if not re.search(options.ai_services, f"{service} {described}", re.I):
        return
    if (text(data.get("ChargeCategory")) or "Usage").lower() != "usage":
        return
    currency = text(data.get("BillingCurrency")) or "USD"
    if currency != "USD":
        raise BadRowError(f"BillingCurrency: {currency!r}, and only USD can be read")
    start = required(
        seconds_since_epoch(data.get("ChargePeriodStart"), "ChargePeriodStart"), "ChargePeriodStart"
    )
    end = seconds_since_epoch(data.get("ChargePeriodEnd"), "ChargePeriodEnd")
    seconds = DAY_SECONDS if end is None else end - start
    if seconds <= 0:
        raise BadRowError("ChargePeriodEnd: not after ChargePeriodStart")
    column = "EffectiveCost" if data.get("EffectiveCost") not in (None, "") else "BilledCost"
    tokens = _tokens(data.get("ConsumedQuantity"), text(data.get("ConsumedUnit")))
    output = bool(_OUTPUT.search(described))
    tags = tags_of(object_of(data.get("Tags"), "Tags"))
    row = Aggregate(
        start=start,
        seconds=seconds,
        id="",
        basis="cost",
        agent=_tag(tags, "agent"),
        project=_tag(tags, "project") or text(data.get("SubAccountName")),
        tags=tags,
        provider=options.provider or _provider(service, described),
        model=text(data.get("SkuMeter")) or text(data.get("x_SkuMeterName")),
        input_tokens=None if output else tokens,
        cached_input_tokens=tokens if not output and _CACHE_READ.search(described) else None,
        cache_write_tokens=tokens if not output and _CACHE_WRITE.search(described) else None,
        output_tokens=tokens if output else None,
        cost_nano_usd=nano_usd(data.get(column), column),
    )
    marks = (data.get("ResourceId"), data.get("SkuId"), data.get("SkuPriceId"), described)
    yield row._replace(id=content_id("focus", *row, *marks))


def _tokens(quantity: Any, unit: str | None) -> int | None:
    matched = _UNIT.match(unit or "")
    if matched is None or quantity in (None, ""):
        return None
    try:
        amount = Decimal(str(quantity))
    except InvalidOperation:
        raise BadRowError(f"ConsumedQuantity: {quantity!r} is not a number") from None
    count = amount * Decimal(matched[1] or "1") * _SCALE[matched[2].upper()]
    return whole(round(count), "ConsumedQuantity") if count.is_finite() and count >= 0 else None


def _provider(service: str, described: str) -> str | None:
    lowered = f"{service} {described}".lower()
    return next((name for word, name in _CLOUD if word in lowered), None)


def _tag(tags: Mapping[str, str], name: str) -> str | None:
    return next((held for tag, held in tags.items() if tag.lower().endswith(name)), None)


IMPORTER = Importer("focus", "FOCUS 1.x cloud bills (Azure, AWS)", _recognises, _convert)
