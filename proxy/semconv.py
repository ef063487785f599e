"""The names that telemetry uses, in one place.

Owns: attribute, label and metric name constants. Must never: import anything
of ours, or hold a value that a user could set.

Attributes are those of OpenTelemetry's semantic conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/); a Prometheus label is the
attribute with its dots as underscores
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/).
What the conventions do not know carries the prefix ``tokenweir.``.
"""

from __future__ import annotations

from typing import Final

PROVIDER: Final = "gen_ai.provider.name"
OPERATION: Final = "gen_ai.operation.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
AGENT: Final = "gen_ai.agent.name"
CONVERSATION: Final = "gen_ai.conversation.id"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
CACHED_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
STATUS_CODE: Final = "http.response.status_code"
USER: Final = "user.id"

KEY: Final = "tokenweir.key"
PROJECT: Final = "tokenweir.project"
ENDPOINT: Final = "tokenweir.endpoint"
UPSTREAM: Final = "tokenweir.upstream"
COST_USD: Final = "tokenweir.cost_usd"
ACTION: Final = "tokenweir.action"

#: The label value that gathers what a metric's cardinality bound keeps out.
OTHER: Final = "other"

#: Buckets of durations, in seconds, as the conventions recommend for
#: ``gen_ai.client.operation.duration``.
DURATION_BUCKETS_SECONDS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip

#: Buckets recommended for ``gen_ai.server.time_to_first_token``, in seconds.
TTFT_BUCKETS_SECONDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip

#: Buckets of the proxy's own time per call, in seconds: 10 µs to 100 ms.
OVERHEAD_BUCKETS_SECONDS: Final = (
    0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
)  # fmt: skip


def label(attribute: str) -> str:
    """The Prometheus label of an attribute.

    >>> label(PROVIDER)
    'gen_ai_provider_name'
    """
    return attribute.removeprefix("tokenweir.").replace(".", "_")
