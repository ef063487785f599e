"""Calls as the charges of a FOCUS 1.2 bill.

Owns: summing calls into hourly charges and naming them in FOCUS' columns
(https://focus.finops.org/focus-specification/v1-2/). Must never: present our
priced cost as an invoice; it is the list price, and the billed cost equals it
because discounts are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from detection.types import Observation
from proxy.history.rows import HOUR_SECONDS, NANO

COLUMNS: Final = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType",
    "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass",
    "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost", "InvoiceIssuerName",
    "ListCost", "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName",
    "PublisherName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory",
    "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SubAccountId", "SubAccountName",
    "SubAccountType", "Tags",
)  # fmt: skip

#: An hour is written once calls of this much later have been seen.
_LATE_HOURS: Final = 3
#: Where more sets of names than this are open, the oldest hour is written early.
_OPEN_CHARGES: Final = 200_000

Names = tuple[str | None, str | None, str | None, str | None, str | None]


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    tokens: int = 0
    nano_usd: int = 0


def charges(observations: Iterable[Observation]) -> Iterator[dict[str, Any]]:
    """The hourly charges of calls that come about in the order of time.

    A late call makes a second charge for its hour; charges add up.
    """
    hours: dict[int, dict[Names, _Sum]] = {}
    newest = open_charges = 0
    for call in observations:
        hour = int(call.ts // HOUR_SECONDS)
        names = (call.provider, call.model, call.key, call.agent, call.project)
        held = hours.setdefault(hour, {})
        total = held.get(names)
        if total is None:
            total = held[names] = _Sum()
            open_charges += 1
        total.requests += 1
        total.tokens += (call.input_tokens or 0) + (call.output_tokens or 0)
        total.nano_usd += call.cost_nano_usd or 0
        newest = max(newest, hour)
        while hours and (min(hours) < newest - _LATE_HOURS or open_charges > _OPEN_CHARGES):
            oldest = min(hours)
            finished = hours.pop(oldest)
            open_charges -= len(finished)
            yield from _written(oldest, finished)
    for hour in sorted(hours):
        yield from _written(hour, hours[hour])


def _written(hour: int, held: dict[Names, _Sum]) -> Iterator[dict[str, Any]]:
    start = datetime.fromtimestamp(hour * HOUR_SECONDS, UTC)
    end = datetime.fromtimestamp((hour + 1) * HOUR_SECONDS, UTC)
    month = start.replace(day=1, hour=0)
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    for (provider, model, key, agent, project), total in held.items():
        cost = format(Decimal(total.nano_usd) / NANO, "f")
        tags = {"agent": agent, "project": project, "key": key}
        yield {
            **dict.fromkeys(COLUMNS),
            "BilledCost": cost,
            "BillingAccountId": provider or "unknown",
            "BillingAccountName": provider or "unknown",
            "BillingCurrency": "USD",
            "BillingPeriodStart": _time(month),
            "BillingPeriodEnd": _time(following),
            "ChargeCategory": "Usage",
            "ChargeDescription": f"{total.requests} calls of {model or 'an unknown model'}",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": _time(start),
            "ChargePeriodEnd": _time(end),
            "ConsumedQuantity": total.tokens,
            "ConsumedUnit": "Tokens",
            "ContractedCost": cost,
            "EffectiveCost": cost,
            "InvoiceIssuerName": provider or "unknown",
            "ListCost": cost,
            "PricingCategory": "Standard",
            "PricingQuantity": total.tokens,
            "PricingUnit": "Tokens",
            "ProviderName": provider or "unknown",
            "PublisherName": provider or "unknown",
            "ResourceId": key,
            "ResourceName": agent,
            "ResourceType": "API key" if key else None,
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": f"{provider or 'unknown'} LLM API",
            "ServiceSubcategory": "Generative AI",
            "SkuId": model,
            "SkuMeter": model,
            "SubAccountId": project,
            "SubAccountName": project,
            "SubAccountType": "Project" if project else None,
            "Tags": orjson.dumps({k: v for k, v in tags.items() if v}).decode(),
        }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
