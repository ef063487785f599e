"""Anthropic's usage and cost reports: the Admin API's JSON and the Console's CSV.

Owns: the fields of ``/v1/organizations/usage_report/messages`` and
``/v1/organizations/cost_report``
(https://docs.claude.com/en/api/admin-api/usage-cost/get-messages-usage-report)
and of the CSV files of the Console's Usage and Cost pages. Neither counts
requests. Must never: read the API's amounts as dollars; they are cents.
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

_CSV_TOKENS = {
    "uncached": "usage_input_tokens_no_cache",
    "write_5m": "usage_input_tokens_cache_write_5m",
    "write_1h": "usage_input_tokens_cache_write_1h",
    "read": "usage_input_tokens_cache_read",
    "output": "usage_output_tokens",
}


def _recognises(first: Mapping[str, Any]) -> bool:
    return "usage_date_utc" in first or ("starting_at" in first and "results" in first)


def _convert(data: Mapping[str, Any], options: Options) -> Iterable[Row]:
    if "usage_date_utc" in data:
        start = required(
            seconds_since_epoch(data["usage_date_utc"], "usage_date_utc"), "usage_date_utc"
        )
        if "cost_usd" in data:
            cost = nano_usd(data["cost_usd"], "cost_usd")
            yield from _cost(data, start, DAY_SECONDS, cost, _slug(data.get("model")), options)
        else:
            counts = {name: whole(data.get(column), column) for name, column in _CSV_TOKENS.items()}
            yield from _usage(data, start, DAY_SECONDS, counts, "model_version", options)
        return
    start = required(seconds_since_epoch(data.get("starting_at"), "starting_at"), "starting_at")
    end = seconds_since_epoch(data.get("ending_at"), "ending_at")
    seconds = DAY_SECONDS if end is None else end - start
    if seconds <= 0:
        raise BadRowError("ending_at: not after starting_at")
    for result in data.get("results") or ():
        if "amount" in result:
            if str(result.get("currency") or "USD").upper() != "USD":
                raise BadRowError(f"amount: the currency is {result['currency']!r}, not USD")
            cost = nano_usd(result["amount"], "amount", per_dollar=100)
            yield from _cost(result, start, seconds, cost, text(result.get("model")), options)
        else:
            yield from _usage(result, start, seconds, _api_counts(result), "model", options)


def _api_counts(result: Mapping[str, Any]) -> dict[str, int | None]:
    written = result.get("cache_creation")
    written = written if isinstance(written, Mapping) else {}
    return {
        "uncached": whole(result.get("uncached_input_tokens"), "uncached_input_tokens"),
        "write_5m": whole(written.get("ephemeral_5m_input_tokens"), "ephemeral_5m_input_tokens"),
        "write_1h": whole(written.get("ephemeral_1h_input_tokens"), "ephemeral_1h_input_tokens"),
        "read": whole(result.get("cache_read_input_tokens"), "cache_read_input_tokens"),
        "output": whole(result.get("output_tokens"), "output_tokens"),
    }


def _named(row: Aggregate, data: Mapping[str, Any], options: Options, *kinds: Any) -> Aggregate:
    """The row with its names, and an id over all that tells it from its neighbours."""
    named = row._replace(
        key=key_of(data.get("api_key") or data.get("api_key_id"), options),
        project=text(data.get("workspace")) or text(data.get("workspace_id")),
        provider=options.provider or "anthropic",
    )
    place = (data.get("context_window"), data.get("speed"), data.get("inference_geo"))
    return named._replace(id=content_id("anthropic", *named, *kinds, *place))


def _usage(
    data: Mapping[str, Any],
    start: float,
    seconds: float,
    counts: Mapping[str, int | None],
    model: str,
    options: Options,
) -> Iterator[Row]:
    if not any(counts.values()):
        return
    written = (counts["write_5m"] or 0) + (counts["write_1h"] or 0)
    read = counts["read"] or 0
    row = Aggregate(
        start=start,
        seconds=seconds,
        id="",
        basis="usage",
        endpoint="messages",
        model=text(data.get(model)),
        input_tokens=(counts["uncached"] or 0) + written + read,
        cached_input_tokens=read,
        cache_write_tokens=written,
        output_tokens=counts["output"],
    )
    yield _named(row, data, options, data.get("service_tier"), data.get("usage_type"))


def _cost(
    data: Mapping[str, Any],
    start: float,
    seconds: float,
    cost: int | None,
    model: str | None,
    options: Options,
) -> Iterator[Row]:
    if not cost:
        return
    row = Aggregate(
        start=start,
        seconds=seconds,
        id="",
        basis="cost",
        model=model,
        cost_nano_usd=cost,
    )
    kinds = (data.get("token_type"), data.get("cost_type"), data.get("description"))
    yield _named(row, data, options, *kinds)


def _slug(name: Any) -> str | None:
    """The Console's display name as the API's family name: Claude Haiku 4.5."""
    shown = text(name)
    return shown.lower().replace(" ", "-").replace(".", "-") if shown else None


IMPORTER = Importer("anthropic", "Anthropic usage and cost reports", _recognises, _convert)
