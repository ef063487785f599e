"""Spans and metrics reach a collector over OTLP/HTTP, in the conventions' words."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from detection.types import Observation
from proxy.otel import OtelSettings, Telemetry, attributes_of, parent_of

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALL = Observation(
    ts=1_772_323_205.0,
    id="req-1",
    key="key_0123456789ab",
    agent="triage",
    project="support",
    user="alice@example.com",
    session="s-1",
    provider="openai",
    upstream="openai",
    endpoint="chat_completions",
    model="gpt-4.1-mini",
    model_served="gpt-4.1-mini-2025-04-14",
    status=200,
    input_tokens=1200,
    cached_input_tokens=1000,
    output_tokens=80,
    cost_nano_usd=308_000,
    usage_source="reported",
    finish_reasons=("stop",),
    stream=True,
    ttft_seconds=0.4,
    latency_seconds=2.5,
    action="allow",
)


class Collector:
    """An OTLP/HTTP endpoint that decodes what it gets with the protocol's own messages."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.take(self.path, body)
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for held in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(plain(held.resource.attributes))
                for scope in held.scope_spans:
                    self.spans.extend(scope.spans)
        else:
            assert path == "/v1/metrics"
            for held in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in held.scope_metrics:
                    self.metrics.extend(scope.metrics)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def plain(attributes: Any) -> dict[str, Any]:
    def value(held: Any) -> Any:
        kind = held.WhichOneof("value")
        found = getattr(held, kind)
        return [value(one) for one in found.values] if kind == "array_value" else found

    return {held.key: value(held.value) for held in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def send(collector: Collector, *calls: Observation, **settings: Any) -> Telemetry:
    telemetry = Telemetry(
        OtelSettings.model_validate({"endpoint": collector.url, **settings}), instance="a"
    )
    telemetry.start()
    for call in calls:
        telemetry.observe(call)
    telemetry.close()
    return telemetry


def test_a_call_is_a_span_in_the_words_of_the_conventions(collector: Collector) -> None:
    send(collector, CALL)
    [span] = collector.spans
    assert span.name == "chat gpt-4.1-mini"
    assert span.kind == 3
    assert span.end_time_unix_nano == 1_772_323_205_000_000_000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 2_500_000_000
    assert span.parent_span_id == b""
    assert plain(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1-mini",
        "gen_ai.response.model": "gpt-4.1-mini-2025-04-14",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 1200,
        "gen_ai.usage.cache_read.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 80,
        "gen_ai.agent.name": "triage",
        "gen_ai.conversation.id": "s-1",
        "http.response.status_code": 200,
        "tokenweir.key": "key_0123456789ab",
        "tokenweir.project": "support",
        "tokenweir.endpoint": "chat_completions",
        "tokenweir.upstream": "openai",
        "tokenweir.action": "allow",
        "tokenweir.cost_usd": 0.000308,
        "tokenweir.request.id": "req-1",
    }
    assert collector.resources[0]["service.name"] == "tokenweir"
    assert collector.resources[0]["service.instance.id"] == "a"


def test_a_call_joins_the_trace_that_it_came_with(collector: Collector) -> None:
    joined = CALL._replace(trace=f"00-{TRACE}-{SPAN}-01")
    unsampled = CALL._replace(trace=f"00-{TRACE}-{SPAN}-00", id="req-2")
    send(collector, joined, unsampled, CALL._replace(trace="garbage", id="req-3"))
    by_id = {plain(s.attributes)["tokenweir.request.id"]: s for s in collector.spans}
    assert set(by_id) == {"req-1", "req-3"}, "an unsampled trace stays unsampled"
    assert by_id["req-1"].trace_id.hex() == TRACE
    assert by_id["req-1"].parent_span_id.hex() == SPAN
    assert by_id["req-3"].trace_id.hex() != TRACE


def test_a_failed_call_is_an_error(collector: Collector) -> None:
    send(collector, CALL._replace(status=429, error_type="rate_limit_exceeded"))
    [span] = collector.spans
    assert span.status.code == 2
    assert plain(span.attributes)["error.type"] == "rate_limit_exceeded"


def test_metrics_have_the_conventions_names_units_and_buckets(collector: Collector) -> None:
    send(collector, CALL, CALL._replace(input_tokens=None, output_tokens=20), traces=False)
    assert not collector.spans
    metrics = {metric.name: metric for metric in collector.metrics}
    assert {(m.name, m.unit) for m in metrics.values()} == {
        ("gen_ai.client.token.usage", "{token}"),
        ("gen_ai.client.operation.duration", "s"),
        ("gen_ai.server.time_to_first_token", "s"),
        ("tokenweir.cost", "{USD}"),
    }
    tokens = {
        plain(point.attributes)["gen_ai.token.type"]: point
        for point in metrics["gen_ai.client.token.usage"].histogram.data_points
    }
    assert (tokens["input"].count, tokens["input"].sum) == (1, 1200)
    assert (tokens["output"].count, tokens["output"].sum) == (2, 100)
    assert list(tokens["input"].explicit_bounds)[:3] == [1, 4, 16]
    assert list(tokens["input"].explicit_bounds)[-1] == 4**13
    [cost] = metrics["tokenweir.cost"].sum.data_points
    assert cost.as_double == pytest.approx(0.000616)


def test_names_with_no_bound_stay_out_of_metrics(collector: Collector) -> None:
    send(
        collector, *(CALL._replace(agent=f"a{n}", session=f"s{n}", key=f"k{n}") for n in range(50))
    )
    for metric in collector.metrics:
        points = (metric.histogram if metric.HasField("histogram") else metric.sum).data_points
        assert len(points) <= 2


def test_headers_are_sent_and_users_are_not(collector: Collector) -> None:
    send(collector, CALL, headers={"x-api-key": "collector-secret"})
    assert all(held["x-api-key"] == "collector-secret" for held in collector.headers)
    assert "user.id" not in plain(collector.spans[0].attributes)
    assert attributes_of(CALL, include_user=True)["user.id"] == "alice@example.com"
    settings = OtelSettings.model_validate({"headers": {"x-api-key": "collector-secret"}})
    assert "collector-secret" not in repr(settings)


def test_a_full_queue_drops_and_counts() -> None:
    telemetry = Telemetry(OtelSettings(endpoint="http://127.0.0.1:9", queue_limit=100))
    for _ in range(250):
        telemetry.observe(CALL)
    assert telemetry.dropped == 150


def test_a_collector_that_is_away_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(
        OtelSettings(endpoint="http://127.0.0.1:9", timeout_seconds=0.2, metrics=False)
    )
    telemetry.start()
    for _ in range(10):
        telemetry.observe(CALL)
    telemetry.close()
    assert not telemetry._queue


@pytest.mark.parametrize(
    "text",
    [None, "", "00", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01",
     f"00-{TRACE}-{SPAN}-01-extra", f"00-{TRACE}-{'0' * 16}-01", "00-" + "g" * 32 + f"-{SPAN}-01"],
)  # fmt: skip
def test_what_is_no_traceparent_is_not_taken_for_one(text: str | None) -> None:
    assert parent_of(text) is None
