"""OpenTelemetry: each finished call as a span and in metrics, sent over OTLP/HTTP.

Owns: how an observation reads in the semantic conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/), and the thread that sends
it. Must never: do more on the request path than append to a bounded queue, block
or grow when the collector is away, or send a prompt, an answer or a credential.

Needs the extra ``otel``.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from detection.types import Observation
from proxy import semconv
from proxy.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

_NANO: Final = 10**9
_DRAIN_SECONDS: Final = 0.2
_TRACEPARENT = re.compile(
    r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)

#: Bucket bounds that the conventions recommend for ``gen_ai.client.token.usage``.
_TOKEN_BOUNDS: Final = tuple(float(4**power) for power in range(14))

#: Our endpoint families as ``gen_ai.operation.name``.
_OPERATIONS: Final[Mapping[str, str]] = {
    "chat_completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "converse": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "generate_content": "generate_content",
}


class OtelSettings(BaseModel):
    """The YAML section ``otel``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = Field(
        None,
        description="Base URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318; unset "
        "sends nothing.",
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="Headers of every export, such as an API key."
    )
    traces: bool = Field(True, description="Send a span for each call.")
    metrics: bool = Field(True, description="Send the metrics of the GenAI conventions.")
    sample_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of calls without a traceparent that get a span; calls with one "
        "follow its sampled flag.",
    )
    interval_seconds: float = Field(10.0, gt=0, description="How often metrics are sent.")
    timeout_seconds: float = Field(5.0, gt=0, description="How long one export may take.")
    queue_limit: int = Field(
        20_000, ge=100, description="Calls that may wait to be sent; further ones are dropped."
    )
    service_name: str = Field("tokenweir", description="service.name of what is sent.")
    resource: dict[str, str] = Field(
        default_factory=dict, description="Further resource attributes."
    )
    include_user: bool = Field(
        False, description="Send user.id; it may be personal data, so it is left out by default."
    )


class OtelMissingError(ImportError):
    """The extra ``otel`` is not installed."""


def parent_of(traceparent: str | None) -> tuple[int, int, int] | None:
    """Trace id, span id and flags of a W3C ``traceparent``; ``None`` where it is not one.

    >>> parent_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")[2]
    1
    >>> parent_of("00-" + "0" * 32 + "-00f067aa0ba902b7-01") is None
    True
    """
    matched = _TRACEPARENT.fullmatch(traceparent or "")
    if matched is None or (traceparent or "").startswith("ff"):
        return None
    return int(matched[1], 16), int(matched[2], 16), int(matched[3], 16)


def operation_of(call: Observation) -> str:
    """``gen_ai.operation.name`` of a call."""
    return _OPERATIONS.get(call.endpoint or "", call.endpoint or "chat")


def attributes_of(call: Observation, *, include_user: bool = False) -> dict[str, AttributeValue]:
    """A call's span attributes; what is not known is left out."""
    found: dict[str, Any] = {
        semconv.OPERATION: operation_of(call),
        semconv.PROVIDER: call.provider,
        semconv.REQUEST_MODEL: call.model,
        semconv.RESPONSE_MODEL: call.model_served,
        semconv.FINISH_REASONS: call.finish_reasons or None,
        semconv.INPUT_TOKENS: call.input_tokens,
        semconv.CACHED_INPUT_TOKENS: call.cached_input_tokens,
        semconv.CACHE_WRITE_TOKENS: call.cache_write_tokens,
        semconv.OUTPUT_TOKENS: call.output_tokens,
        semconv.REASONING_TOKENS: call.reasoning_tokens,
        semconv.AGENT: call.agent,
        semconv.CONVERSATION: call.session,
        semconv.ERROR_TYPE: call.error_type,
        semconv.STATUS_CODE: call.status,
        semconv.KEY: call.key,
        semconv.PROJECT: call.project,
        semconv.ENDPOINT: call.endpoint,
        semconv.UPSTREAM: call.upstream,
        semconv.ACTION: call.action,
        semconv.COST_USD: None if call.cost_nano_usd is None else call.cost_nano_usd / _NANO,
        "tokenweir.request.id": call.id,
        semconv.USER: call.user if include_user else None,
    }
    return {name: value for name, value in found.items() if value is not None}


class Telemetry:
    """Takes finished calls and sends them from a thread of its own.

    Raises OtelMissingError where the extra is missing. ``dropped`` counts calls
    that found the queue full.
    """

    def __init__(self, settings: OtelSettings, *, instance: str = "") -> None:
        self._settings = settings
        self._queue: deque[Observation] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        self._tracers, self._meters = _providers(settings, instance)
        self._consumers: list[Callable[[Observation], None]] = []
        if self._tracers is not None:
            self._consumers.append(_Spans(self._tracers, settings))
        if self._meters is not None:
            self._consumers.append(_Metrics(self._meters))

    def observe(self, call: Observation) -> None:
        """Take a call. Appends and returns, whatever the collector does."""
        if len(self._queue) >= self._settings.queue_limit:
            self.dropped += 1
        else:
            self._queue.append(call)

    def start(self) -> None:
        """Begin sending."""
        self._thread = threading.Thread(target=self._run, name="otel", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what waits, each export within its timeout, and stop."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for provider in (self._tracers, self._meters):
            if provider is not None:
                provider.shutdown()

    def _run(self) -> None:
        while not self._stopping.wait(_DRAIN_SECONDS):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while self._queue:
            call = self._queue.popleft()
            for consume in self._consumers:
                consume(call)


def telemetry_of(settings: OtelSettings, instance: str) -> Telemetry | None:
    """What sends to the collector of the settings; ``None`` where none is named."""
    return Telemetry(settings, instance=instance) if settings.endpoint else None


class _Spans:
    """One client span a call, joined to the trace that the call came with."""

    def __init__(self, provider: TracerProvider, settings: OtelSettings) -> None:
        self._tracer = provider.get_tracer("tokenweir", VERSION)
        self._include_user = settings.include_user

    def __call__(self, call: Observation) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context

        parent = parent_of(call.trace)
        context = Context()
        if parent is not None:
            remote = trace.SpanContext(parent[0], parent[1], True, trace.TraceFlags(parent[2] & 1))
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote), context)
        end = round(call.ts * _NANO)
        span = self._tracer.start_span(
            f"{operation_of(call)} {call.model}" if call.model else operation_of(call),
            context=context,
            kind=trace.SpanKind.CLIENT,
            attributes=attributes_of(call, include_user=self._include_user),
            start_time=end - round((call.latency_seconds or 0) * _NANO),
        )
        if call.error_type is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, call.error_type))
        span.end(end_time=end)


class _Metrics:
    """The conventions' histograms, and the cost, by provider and model only."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("tokenweir", VERSION)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            explicit_bucket_boundaries_advisory=_TOKEN_BOUNDS,
        )
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS_SECONDS,
        )
        self._ttft = meter.create_histogram(
            "gen_ai.server.time_to_first_token",
            unit="s",
            explicit_bucket_boundaries_advisory=semconv.TTFT_BUCKETS_SECONDS,
        )
        self._cost = meter.create_counter("tokenweir.cost", unit="{USD}")

    def __call__(self, call: Observation) -> None:
        names: dict[str, AttributeValue] = {
            name: value
            for name, value in (
                (semconv.OPERATION, operation_of(call)),
                (semconv.PROVIDER, call.provider),
                (semconv.REQUEST_MODEL, call.model),
                (semconv.RESPONSE_MODEL, call.model_served),
            )
            if value is not None
        }
        failed = {**names, semconv.ERROR_TYPE: call.error_type} if call.error_type else names
        _record(self._tokens, call.input_tokens, {**names, semconv.TOKEN_TYPE: "input"})
        _record(self._tokens, call.output_tokens, {**names, semconv.TOKEN_TYPE: "output"})
        _record(self._duration, call.latency_seconds, failed)
        _record(self._ttft, call.ttft_seconds, names)
        if call.cost_nano_usd:
            self._cost.add(call.cost_nano_usd / _NANO, names)


def _record(histogram: Histogram, value: float | None, names: Mapping[str, AttributeValue]) -> None:
    if value is not None:
        histogram.record(value, dict(names))


def _providers(
    settings: OtelSettings, instance: str
) -> tuple[TracerProvider | None, MeterProvider | None]:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise OtelMissingError("otel needs the extra: install tokenweir[otel]") from error

    base = (settings.endpoint or "").rstrip("/")
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
    resource = Resource.create(
        {
            "service.name": settings.service_name,
            "service.version": VERSION,
            **({"service.instance.id": instance} if instance else {}),
            **settings.resource,
        }
    )
    tracers = meters = None
    if settings.traces:
        tracers = TracerProvider(
            resource=resource,
            sampler=ParentBasedTraceIdRatio(settings.sample_share),
            shutdown_on_exit=False,
        )
        tracers.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(
                    endpoint=f"{base}/v1/traces", headers=headers, timeout=settings.timeout_seconds
                ),
                max_queue_size=settings.queue_limit,
                max_export_batch_size=min(512, settings.queue_limit),
            )
        )
    if settings.metrics:
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(
                endpoint=f"{base}/v1/metrics", headers=headers, timeout=settings.timeout_seconds
            ),
            export_interval_millis=settings.interval_seconds * 1000,
            export_timeout_millis=settings.timeout_seconds * 1000,
        )
        meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    return tracers, meters
