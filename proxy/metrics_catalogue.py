"""Every metric that Tokenweir exposes: name, kind, help, labels, how to merge.

Owns: the catalogue, from which the exposition, the merge of several workers
and the reference in the docs are made. Must never: hold a value, or gain a
label whose values a client can choose without a bound (``max_series``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from proxy import semconv

Kind = Literal["counter", "gauge", "histogram"]

_PROVIDER: Final = semconv.label(semconv.PROVIDER)
_MODEL: Final = semconv.label(semconv.REQUEST_MODEL)
_AGENT: Final = semconv.label(semconv.AGENT)
_KEY: Final = semconv.label(semconv.KEY)
_PROJECT: Final = semconv.label(semconv.PROJECT)
_TOKEN_TYPE: Final = semconv.label(semconv.TOKEN_TYPE)
_ERROR_TYPE: Final = semconv.label(semconv.ERROR_TYPE)

#: Who called what, at whose expense: the labels of the usage counters.
USAGE_LABELS: Final = (_PROVIDER, _MODEL, _KEY, _AGENT, _PROJECT)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    ``merge`` says how the values of several workers become one: ``sum``,
    ``max``, or ``min`` for what is only true if it is true everywhere.
    ``max_series`` bounds its label sets; the rest is gathered under ``other``.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    merge: Literal["sum", "max", "min"] = "sum"
    max_series: int = 100
    buckets: tuple[float, ...] = ()


_ALL: Final = (
    Metric("tokenweir_requests_total", "counter",
           "Calls that went to a provider and finished, whatever their end.",
           USAGE_LABELS, max_series=400),
    Metric("tokenweir_refused_requests_total", "counter",
           "Calls that enforcement answered instead of a provider."),
    Metric("tokenweir_errors_total", "counter",
           "Calls that ended in an error of the provider or the connection.",
           USAGE_LABELS, max_series=400),
    Metric("tokenweir_tokens_total", "counter",
           "Tokens used. Input includes cached and written ones, output includes reasoning.",
           (*USAGE_LABELS, _TOKEN_TYPE), max_series=800),
    Metric("tokenweir_token_parts_total", "counter",
           "Parts of tokenweir_tokens_total: cached_input and cache_write of input, "
           "reasoning of output.",
           (*USAGE_LABELS, "part"), max_series=1200),
    Metric("tokenweir_cost_usd_total", "counter", "Cost of finished calls in US dollars.",
           USAGE_LABELS, max_series=400),
    Metric("tokenweir_finish_reasons_total", "counter", "Calls by normalised finish reason.",
           (_PROVIDER, "reason")),
    Metric("tokenweir_error_types_total", "counter",
           "Errors by the type that the provider gave, or the connection's failure.",
           (_PROVIDER, _ERROR_TYPE)),
    Metric("tokenweir_time_to_first_token_seconds", "histogram",
           "Time from the call's arrival to the first byte of its answer.",
           (_PROVIDER, _MODEL), max_series=100, buckets=semconv.TTFT_BUCKETS_SECONDS),
    Metric("tokenweir_request_duration_seconds", "histogram",
           "Time from the call's arrival to the end of its answer.",
           (_PROVIDER, _MODEL), max_series=100, buckets=semconv.DURATION_BUCKETS_SECONDS),
    Metric("tokenweir_unpriced_requests_total", "counter",
           "Calls of models without a known price, billed at the dearest of their family.",
           (_PROVIDER,)),
    Metric("tokenweir_usage_source_requests_total", "counter",
           "Calls by where their usage came from: reported, estimated or unknown.", ("source",)),
    Metric("tokenweir_requests_in_flight", "gauge", "Calls being served now."),
    Metric("tokenweir_streams_in_flight", "gauge", "Calls whose answer is streaming now."),
    Metric("tokenweir_connections_open", "gauge", "Client connections open now."),
    Metric("tokenweir_overhead_seconds", "histogram",
           "The proxy's own time per call before the upstream is asked.",
           buckets=semconv.OVERHEAD_BUCKETS_SECONDS),
    Metric("tokenweir_rejected_requests_total", "counter",
           "Requests that the proxy itself refused, or failed on (`internal`), by reason.",
           ("reason",)),
    Metric("tokenweir_upstream_failures_total", "counter",
           "Calls that the upstream or the way to it broke, by reason.", ("reason",)),
    Metric("tokenweir_client_aborts_total", "counter", "Calls whose client hung up first."),
    Metric("tokenweir_decisions_total", "counter",
           "Admission decisions: allow, throttle, block, downgrade, unavailable, would_block, ...",
           ("decision",)),
    Metric("tokenweir_actions_in_force", "gauge",
           "Throttles, downgrades, blocks and disabled keys in force now.", ("kind", "mode"),
           merge="max"),
    Metric("tokenweir_streams_cut_total", "counter", "Running streams ended by a block."),
    Metric("tokenweir_verdicts_total", "counter", "Verdicts opened or raised, by signal and tier.",
           ("signal", "tier")),
    Metric("tokenweir_detector_failures_total", "counter",
           "Detectors that raised and were set aside for their series.", ("detector",)),
    Metric("tokenweir_detection_series", "gauge", "Series that detection watches now."),
    Metric("tokenweir_incidents_open", "gauge", "Incidents open or acknowledged now, by tier.",
           ("tier",), merge="max"),
    Metric("tokenweir_notifications_total", "counter",
           "Alert deliveries by receiver and outcome.", ("receiver", "outcome")),
    Metric("tokenweir_notifications_pending", "gauge", "Alerts waiting in the outbox.",
           merge="max"),
    Metric("tokenweir_budget_limit_usd", "gauge", "A budget's limit in US dollars.",
           ("budget", "scope"), merge="max"),
    Metric("tokenweir_budget_spent_usd", "gauge",
           "What was spent of a budget in its current period, in US dollars.",
           ("budget", "scope"), merge="max"),
    Metric("tokenweir_budget_reserved_usd", "gauge",
           "What running calls hold reserved of a budget, in US dollars.", ("budget", "scope"),
           merge="max"),
    Metric("tokenweir_upstream_ratelimit_remaining", "gauge",
           "What the provider last said remains of its own rate limit.",
           (_PROVIDER, _KEY, "limit"), merge="min"),
    Metric("tokenweir_upstream_ratelimit_reset_timestamp_seconds", "gauge",
           "When the provider last said its own rate limit is full again, in epoch seconds.",
           (_PROVIDER, _KEY, "limit"), merge="max"),
    Metric("tokenweir_upstream_retry_after_timestamp_seconds", "gauge",
           "Until when the provider last asked to wait, in epoch seconds.",
           (_PROVIDER, _KEY), merge="max"),
    Metric("tokenweir_store_up", "gauge", "1 while the store answers, 0 while it does not.",
           merge="min"),
    Metric("tokenweir_store_lag_seconds", "gauge",
           "Age of the oldest count that the store has not confirmed.", merge="max"),
    Metric("tokenweir_store_pending_records", "gauge",
           "Finished calls journalled here and not yet confirmed by the store."),
    Metric("tokenweir_store_failures_total", "counter", "Store batches that failed, by reason.",
           ("reason",)),
    Metric("tokenweir_journal_bytes", "gauge", "Size of the journal on disk."),
    Metric("tokenweir_journal_failures_total", "counter",
           "Journal writes that failed (disk full, permissions)."),
    Metric("tokenweir_loop_tasks", "gauge",
           "Tasks of the event loop: a number that only grows is a leak."),
    Metric("tokenweir_loop_stall_seconds", "gauge",
           "The longest stall of the event loop in the last minute.", merge="max"),
    Metric("tokenweir_config_reloads_total", "counter", "Configuration reloads by outcome.",
           ("outcome",)),
    Metric("tokenweir_config_loaded_timestamp_seconds", "gauge",
           "When the configuration in force was loaded.", merge="max"),
    Metric("tokenweir_tls_certificate_expiry_timestamp_seconds", "gauge",
           "When the certificate of a port ends.", ("port",), merge="min"),
    Metric("tokenweir_admin_auth_failures_total", "counter",
           "Admin requests refused for want of a valid token or session.", ("reason",)),
    Metric("tokenweir_label_sets_dropped", "gauge",
           "Label sets gathered under other, by metric.", ("metric",)),
    Metric("tokenweir_workers", "gauge", "Worker processes that answered this scrape."),
    Metric("tokenweir_build_info", "gauge", "1, labelled with the versions at work.",
           ("version", "python"), merge="max"),
    Metric("tokenweir_process_cpu_seconds_total", "counter", "CPU time of the workers."),
    Metric("tokenweir_process_resident_memory_bytes", "gauge", "Resident memory of the workers."),
    Metric("tokenweir_process_open_fds", "gauge", "Open file descriptors of the workers."),
    Metric("tokenweir_process_start_time_seconds", "gauge",
           "When the oldest worker started.", merge="min"),
)  # fmt: skip

CATALOGUE: Final[dict[str, Metric]] = {metric.name: metric for metric in _ALL}
