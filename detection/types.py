"""The words that every part of Tokenweir shares.

Owns: the immutable values that travel between proxying, counting, detecting
and enforcing. Must never: hold behaviour beyond naming, read a clock, or
import anything of ours.

Units are in the names. ``None`` always means "not known", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple


class Tier(IntEnum):
    """How bad a verdict is. Ordered, so that ``max`` of tiers means the worst."""

    NONE = 0
    INFO = 1
    WARNING = 2
    CRITICAL = 3
    EMERGENCY = 4

    @property
    def label(self) -> str:
        """The lower-case word used in YAML, JSON and metrics."""
        return self.name.lower()


class Family(StrEnum):
    """A family of evidence. An emergency needs two of them, or ``LIMIT`` alone."""

    VOLUME = "volume"
    REPETITION = "repetition"
    ERRORS = "errors"
    BUDGET = "budget"
    NOVELTY = "novelty"
    SHAPE = "shape"
    LIMIT = "limit"


class Signal(StrEnum):
    """What a verdict is about. The values are the words of the YAML policy."""

    VOLUME_SURGE = "volume_surge"
    SPEND_SPIKE = "spend_spike"
    ERROR_RATE = "error_rate"
    RETRY_STORM = "retry_storm"
    AGENT_LOOP = "agent_loop"
    NEW_MODEL = "new_model"
    NEW_AGENT = "new_agent"
    NEW_KEY_MODEL = "new_key_model"
    NEW_CLIENT = "new_client"
    COST_PER_REQUEST = "cost_per_request"
    OUTPUT_TOKENS = "output_tokens"
    FINISH_REASON_MIX = "finish_reason_mix"
    DRIFT = "drift"
    PEER_OUTLIER = "peer_outlier"
    BUDGET_BURN = "budget_burn"
    HARD_LIMIT = "hard_limit"


class Mode(StrEnum):
    """What enforcement may do with a decision."""

    OBSERVE = "observe"
    SHADOW = "shadow"
    ENFORCE = "enforce"


class Dimension(StrEnum):
    """What a series is counted by."""

    TOTAL = "total"
    PROVIDER = "provider"
    MODEL = "model"
    KEY = "key"
    AGENT = "agent"
    PROJECT = "project"
    ENDPOINT = "endpoint"
    TAG = "tag"
    USER = "user"
    SESSION = "session"
    CLIENT = "client"
    KEY_MODEL = "key_model"
    AGENT_MODEL = "agent_model"


class Series(NamedTuple):
    """One counted stream of calls: a dimension and its value.

    The value of a pair (``key_model``, ``agent_model``) is made by :func:`pair`;
    a tag's value is ``name=value``; the total's is the empty string.
    """

    dimension: str
    value: str


TOTAL = Series(Dimension.TOTAL, "")


def pair(first: str, second: str) -> str:
    """Join two values so that no two different pairs give the same text.

    >>> pair("a|b", "c")
    'a%7Cb|c'
    >>> pair("a", "b|c")
    'a|b%7Cc'
    """
    if "%" in first or "|" in first:
        first = first.replace("%", "%25").replace("|", "%7C")
    if "%" in second or "|" in second:
        second = second.replace("%", "%25").replace("|", "%7C")
    return f"{first}|{second}"


def unpair(value: str) -> tuple[str, str]:
    """Undo :func:`pair`.

    >>> unpair(pair("a|%", "b"))
    ('a|%', 'b')
    """
    first, _, second = value.partition("|")
    return (
        first.replace("%7C", "|").replace("%25", "%"),
        second.replace("%7C", "|").replace("%25", "%"),
    )


@dataclass(frozen=True, slots=True)
class CallError:
    """An error as the provider told it, from the body, a stream or a header."""

    type: str | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Usage:
    """What one call used, as the provider reported it.

    ``input_tokens`` includes cached reads, cache writes and tool-use prompt
    tokens; ``output_tokens`` includes reasoning (OpenTelemetry GenAI). The
    finer counts are parts of those two. ``source`` is ``reported``,
    ``estimated`` or ``unknown``. ``complete`` says whether a terminal event was
    seen, ``None`` where that can't be judged. Without slots: one is made for every
    call, and its fields are put into its dictionary at once.
    """

    source: str = "unknown"
    model_served: str | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    total_tokens: int | None = None
    finish_reasons: tuple[str, ...] = ()
    tool_call_names: tuple[str, ...] = ()
    server_tool_names: tuple[str, ...] = ()
    service_tier: str | None = None
    web_searches: int | None = None
    output_bytes: int = 0
    error: CallError | None = None
    complete: bool | None = None
    retry_after_seconds: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


#: Words of ``error_type`` that say who ended a call, not that it failed: a client
#: that hangs up, and a stream that enforcement cut.
NOT_FAILURES = frozenset(("client_disconnected", "cut"))


def failed(status: int | None, error_type: str | None) -> bool:
    """Whether a call counts as an error.

    >>> failed(200, None), failed(503, None), failed(200, "overloaded_error")
    (False, True, True)
    >>> failed(499, "client_disconnected")
    False
    """
    if error_type is None:
        return status is not None and status >= 400
    return error_type not in NOT_FAILURES


class Observation(NamedTuple):
    """One finished call, as counted, journalled and judged (see docs/observation.md).

    ``ts`` is epoch seconds of the end of the call, by the store's time.
    ``fingerprint`` is 16 hex digits over the canonical last message, or the
    last tool call with its result; ``client`` a keyed hash of the client's
    network; ``action`` what enforcement did (``allow``, ``throttle``, ...);
    ``trace`` the W3C ``traceparent`` that the call came with.
    """

    ts: float
    id: str
    key: str | None = None
    agent: str | None = None
    project: str | None = None
    user: str | None = None
    session: str | None = None
    tags: Mapping[str, str] = {}
    provider: str | None = None
    upstream: str | None = None
    endpoint: str | None = None
    model: str | None = None
    model_served: str | None = None
    status: int | None = None
    error_type: str | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nano_usd: int | None = None
    usage_source: str = "unknown"
    finish_reasons: tuple[str, ...] = ()
    fingerprint: str | None = None
    fingerprint_kind: str | None = None
    client: str | None = None
    stream: bool = False
    ttft_seconds: float | None = None
    latency_seconds: float | None = None
    action: str | None = None
    trace: str | None = None


class FleetBucket(NamedTuple):
    """What *other* replicas counted of a series in one 10 s bucket, in absolute numbers.

    ``bucket`` is epoch seconds divided by 10, rounded down. A later value for the
    same bucket replaces the earlier one, so that it may be sent again.
    """

    bucket: int
    requests: int
    errors: int = 0
    tokens: int = 0
    cost_nano_usd: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """One detector's opinion of one series, before scores are combined."""

    signal: Signal
    family: Family
    tier: Tier
    observed: float
    baseline: float | None = None
    ratio: float | None = None
    p_value: float | None = None
    e_value: float | None = None
    window_seconds: float | None = None
    since: float | None = None
    ceiling: Tier = Tier.EMERGENCY
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the engine says of a series: opened, raised, or (tier NONE) over.

    ``families`` are the distinct families of evidence behind the tier.
    ``blockable`` is false where the evidence may throttle but never block
    (a repeated plain prompt). ``learning`` marks a statistical verdict on a
    series that is still being learned: it is recorded, not sent, not acted on.
    """

    ts: float
    signal: Signal
    tier: Tier
    series: Series
    families: frozenset[Family]
    observed: float
    baseline: float | None = None
    ratio: float | None = None
    p_value: float | None = None
    e_value: float | None = None
    window_seconds: float | None = None
    since: float | None = None
    blockable: bool = True
    learning: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The identity of the incident this verdict belongs to."""
        return f"{self.signal}:{self.series.dimension}:{self.series.value}"


class ActionKind(StrEnum):
    """What policy may do about a verdict, mildest first."""

    NOTIFY = "notify"
    THROTTLE = "throttle"
    DOWNGRADE = "downgrade"
    BLOCK = "block"
    DISABLE_KEY = "disable_key"
    CUT_STREAMS = "cut_streams"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Action:
    """One decision of policy or of a person, in force until ``until``.

    ``until`` is epoch seconds, ``None`` for "until a person lifts it".
    ``rate_per_second`` belongs to throttles, ``models`` (asked -> given) to
    downgrades, ``cut`` says that running streams end too. ``origin`` is
    ``policy`` or ``manual``; ``actor`` the person. ``signal`` and ``reason`` are
    for the refusal's body, the audit trail and the incident.
    """

    id: str
    kind: ActionKind
    series: Series
    since: float
    until: float | None
    mode: Mode = Mode.ENFORCE
    rule: str = ""
    signal: str = ""
    tier: Tier = Tier.NONE
    reason: str = ""
    rate_per_second: float | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    origin: str = "policy"
    actor: str = ""
    incident: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
