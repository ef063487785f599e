"""OpenAI's usage and cost exports: the organization API's JSON and the dashboard's CSV.

Owns: the fields of ``/v1/organization/usage/*`` and ``/v1/organization/costs``
(https://platform.openai.com/docs/api-reference/usage) and of the CSV files that
the usage dashboard downloads, which flatten the same. Must never: add usage and
cost rows up as if they were different money.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from proxy.history.base import Importer
from proxy.history.rows import (
    DAY_SECONDS,
    Aggregate,
    BadRowError,
    Options,
    Row,
    content_id,
    key_of,
    nano_usd,
    required,
    seconds_since_epoch,
    text,
    whole,
)

_RESULT = "organization."


def _recognises(first: Mapping[str, Any]) -> bool:
    if "start_time" not in first or "end_time" not in first:
        return False
    return (
        isinstance(first.get("results"), list)
        or "num_model_requests" in first
        or "amount_value" in first
    )


def _convert(data: Mapping[str, Any], options: Options) -> Iterable[Row]:
    start = required(seconds_since_epoch(data.get("start_time"), "start_time"), "start_time")
    end = seconds_since_epoch(data.get("end_time"), "end_time")
    seconds = DAY_SECONDS if end is None else end - start
    if seconds <= 0:
        raise BadRowError("end_time: not after start_time")
    results = data.get("results")
    if not isinstance(results, list):
        results = [data]
    for result in results:
        if "num_model_requests" in result:
            yield from _usage(result, start, seconds, options)
        elif "amount" in result or "amount_value" in result:
            yield from _cost(result, start, seconds, options)


def _usage(
    result: Mapping[str, Any], start: float, seconds: float, options: Options
) -> Iterator[Row]:
    requests = whole(result["num_model_requests"], "num_model_requests")
    if not requests:
        return
    kind = str(result.get("object") or "").removeprefix(_RESULT + "usage.").removesuffix(".result")
    row = Aggregate(
        start=start,
        seconds=seconds,
        id="",
        basis="usage",
        key=key_of(result.get("api_key_id"), options),
        project=text(result.get("project_name")) or text(result.get("project_id")),
        user=text(result.get("user_id")),
        provider=options.provider or "openai",
        endpoint=kind or None,
        model=text(result.get("model")),
        requests=requests,
        input_tokens=whole(result.get("input_tokens"), "input_tokens"),
        cached_input_tokens=whole(result.get("input_cached_tokens"), "input_cached_tokens"),
        output_tokens=whole(result.get("output_tokens"), "output_tokens"),
    )
    parts = (result.get("batch"), result.get("service_tier"))
    yield row._replace(id=content_id("openai", *row, *parts))


def _cost(
    result: Mapping[str, Any], start: float, seconds: float, options: Options
) -> Iterator[Row]:
    amount = result.get("amount")
    if isinstance(amount, Mapping):
        value, currency = amount.get("value"), amount.get("currency")
    else:
        value, currency = result.get("amount_value"), result.get("amount_currency")
    cost = nano_usd(value, "amount")
    if not cost:
        return
    if str(currency or "usd").lower() != "usd":
        raise BadRowError(f"amount: the currency is {currency!r}, and only USD can be read")
    item = text(result.get("line_item"))
    row = Aggregate(
        start=start,
        seconds=seconds,
        id="",
        basis="cost",
        key=key_of(result.get("api_key_id"), options),
        project=text(result.get("project_name")) or text(result.get("project_id")),
        user=text(result.get("user_id")),
        provider=options.provider or "openai",
        model=item.split(",")[0].strip() if item and "," in item else None,
        cost_nano_usd=cost,
    )
    yield row._replace(id=content_id("openai-cost", *row, item))


IMPORTER = Importer("openai", "OpenAI usage and cost exports, JSON or CSV", _recognises, _convert)
