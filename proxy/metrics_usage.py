"""What the ledger counted, as readings for a scrape.

Owns: the mapping from the ledger's totals to metric names and labels. Must
never: count anything itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.ledger import Ledger
from proxy.ledger_totals import Labels, Totals
from proxy.metrics import Distribution, Provider, Reading
from proxy.store.series import Counts

_NANO = 1e-9


def usage_readings(ledger: Ledger) -> Provider:
    """Requests, errors, tokens, cost and timings of this process's calls."""

    def read() -> Iterable[Reading]:
        totals = ledger.totals()
        rows = [(labels, Counts(*row)) for labels, row in totals.usage.items()]
        return _usage(rows, _details(totals))

    return read


def _usage(rows: list[tuple[Labels, Counts]], details: list[Reading]) -> Iterator[Reading]:
    """Expanded only while rendering, from copies."""
    refused = 0
    for labels, counts in rows:
        refused += counts.refused
        yield Reading("tokenweir_requests_total", labels, counts.requests)
        yield Reading("tokenweir_errors_total", labels, counts.errors)
        yield Reading("tokenweir_cost_usd_total", labels, counts.cost_nano_usd * _NANO)
        for word, tokens in (("input", counts.input_tokens), ("output", counts.output_tokens)):
            yield Reading("tokenweir_tokens_total", (*labels, word), tokens)
        for word, tokens in (
            ("cached_input", counts.cached_input_tokens),
            ("cache_write", counts.cache_write_tokens),
            ("reasoning", counts.reasoning_tokens),
        ):
            if tokens:
                yield Reading("tokenweir_token_parts_total", (*labels, word), tokens)
    yield Reading("tokenweir_refused_requests_total", (), refused)
    yield from details


def _details(totals: Totals) -> list[Reading]:
    found = []
    for labels, timing in totals.timing.items():
        for name, spread in (
            ("tokenweir_request_duration_seconds", timing.duration),
            ("tokenweir_time_to_first_token_seconds", timing.ttft),
        ):
            found.append(Reading(name, labels, Distribution(tuple(spread.counts), spread.total)))
    for name, counter in (
        ("tokenweir_error_types_total", totals.error_types),
        ("tokenweir_finish_reasons_total", totals.finish_reasons),
    ):
        found += [Reading(name, labels, count) for labels, count in counter.items()]
    found += [
        Reading("tokenweir_usage_source_requests_total", (source,), count)
        for source, count in totals.usage_sources.items()
    ]
    return found
