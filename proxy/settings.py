"""What a person may set about limits, budgets, keys and the bounds of automation.

Owns: the YAML sections ``limits``, ``budgets``, ``keys``, ``protect``
and ``blast_radius``. Must never: read a file, a clock or the
environment.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from detection.types import Mode
from proxy.pattern import Pattern

DIMENSIONS = (
    "total",
    "provider",
    "model",
    "key",
    "agent",
    "project",
    "endpoint",
    "user",
    "session",
    "client",
)

Tier = Literal["info", "warning", "critical", "emergency"]
StoreDown = Literal["open", "closed", "share"]
PerWord = Literal["minute", "hour", "day", "week", "month", "session"]


def _dimension(word: str) -> str:
    if word not in DIMENSIONS and not re.fullmatch(r"tag:\S{1,64}", word):
        raise ValueError(f"must be one of {', '.join(DIMENSIONS)} or tag:<name>")
    return word


def _pattern(text: str) -> str:
    Pattern(text)
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be an IANA time zone such as UTC or Europe/Berlin") from None
    return name


DimensionName = Annotated[str, AfterValidator(_dimension)]
PatternText = Annotated[str, AfterValidator(_pattern)]
TimeZone = Annotated[str, AfterValidator(_zone)]
Match = dict[DimensionName, tuple[PatternText, ...]]

_MATCH = (
    "Which calls it applies to: dimension (or tag:<name>) -> values. A value may hold `*`, or be "
    "a regular expression written `~expression`. Empty: all calls."
)
_BY = (
    "Each combination of values of these dimensions has its own count; [total] is one for all. "
    "Dimensions: " + ", ".join(DIMENSIONS) + ", tag:<name>."
)
_MODE = "observe, shadow or enforce; unset takes the file's mode."
_WINDOW = (
    "calendar: the count starts again with each minute, hour, day, week (Monday) or month of the "
    "time zone; rolling: the last 60 s, 1 h, 24 h, 7 d or 30 d, in tenths."
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSettings(_Section):
    """Most of something per time, at once, or for one call or session."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$",
        description="Its name in refusals, metrics and the audit trail.",
    )
    by: tuple[DimensionName, ...] = Field(("total",), min_length=1, description=_BY)
    match: Match = Field(default_factory=dict, description=_MATCH)
    requests: int | None = Field(None, ge=1, description="Most calls per period.")
    tokens: int | None = Field(
        None, ge=1, description="Most tokens per period, input and output together."
    )
    cost_usd: float | None = Field(None, gt=0, description="Most dollars per period.")
    per: PerWord = Field(
        "minute",
        description="The period; `session` counts for as long as the session lives (needs session "
        "in `by`).",
    )
    window: Literal["calendar", "rolling"] = Field("calendar", description=_WINDOW)
    time_zone: TimeZone = Field("UTC", description="IANA time zone of the calendar.")
    in_flight: int | None = Field(None, ge=1, description="Most calls running at once.")
    cost_per_call_usd: float | None = Field(
        None, gt=0, description="Most dollars for one call; a stream that passes it is cut."
    )
    mode: Mode | None = Field(None, description=_MODE)
    on_store_down: StoreDown = Field(
        "share",
        description="While the store is away: share (this replica's part of the limit), closed "
        "(refuse when what is held is spent) or open (let pass).",
    )
    tier: Tier = Field("warning", description="Tier of the incident that a refusal opens.")

    @model_validator(mode="after")
    def _sensible(self) -> LimitSettings:
        counted = (self.requests, self.tokens, self.cost_usd)
        if all(v is None for v in (*counted, self.in_flight, self.cost_per_call_usd)):
            raise ValueError(
                "needs at least one of requests, tokens, cost_usd, in_flight, cost_per_call_usd"
            )
        if self.per == "session" and "session" not in self.by:
            raise ValueError("per: session needs session in `by`")
        return self


class BudgetSettings(_Section):
    """Dollars for a period, which all replicas together never overspend."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$",
        description="Its name in refusals, alerts, metrics and pages.",
    )
    amount_usd: float = Field(gt=0, description="Dollars per period.")
    per: Literal["hour", "day", "week", "month"] = Field("month", description="The period.")
    by: tuple[DimensionName, ...] = Field(("total",), min_length=1, description=_BY)
    match: Match = Field(default_factory=dict, description=_MATCH)
    window: Literal["calendar", "rolling"] = Field("calendar", description=_WINDOW)
    time_zone: TimeZone = Field("UTC", description="IANA time zone of the calendar.")
    hard: bool = Field(True, description="Refuse calls beyond it; false: alert only.")
    alert_at: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (0.5, 0.8, 1.0), description="Shares of the amount at which an alert is sent."
    )
    burn_alerts: bool = Field(
        True,
        description="Alert on burn rate: 14.4 times too fast over 1 h and 5 min, or 6 times over "
        "6 h and 30 min.",
    )
    cut_streams: bool = Field(
        True, description="Cut a running stream once its answer outgrows what is left."
    )
    mode: Mode | None = Field(None, description=_MODE)
    on_store_down: StoreDown = Field(
        "closed",
        description="While the store is away: closed (spend only what this replica holds), share "
        "(its part of the amount) or open (let pass).",
    )


class KeysSettings(_Section):
    """Keys: those that the proxy issues, and names for those that pass through."""

    required: bool = Field(
        False, description="Refuse calls that do not come with a key issued by the proxy."
    )
    aliases: dict[Annotated[str, Field(pattern=r"^key_[0-9a-f]{12}$")], str] = Field(
        default_factory=dict, description="Readable names: fingerprint (key_ + 12 hex) -> name."
    )
    install_secret: SecretStr | None = Field(
        None,
        description="Secret behind the fingerprints of keys. Unset: made at the first start and "
        "kept in the data directory. Replicas on several machines need the same one.",
    )
    rotation_overlap_seconds: float = Field(
        3600.0, ge=0, description="How long a rotated key's old secret still works."
    )


class ProtectSettings(_Section):
    """Who is never touched by an automatic action."""

    match: Match = Field(min_length=1, description=_MATCH)
    reason: str = Field("", description="Why, for whoever reads the audit trail.")


class BlastRadiusSettings(_Section):
    """How much of all traffic automation may stop at once."""

    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Largest share of the callers (key and agent pairs) seen lately that automatic "
        "blocks may stop together; beyond it a block becomes a throttle, and someone is paged.",
    )
    at_least: int = Field(
        1, ge=0, description="This many callers may be stopped whatever the share."
    )
    window_seconds: float = Field(
        600.0, gt=0, description="A caller counts while it was seen in this time."
    )
    throttle_rate_per_second: float = Field(
        1.0, gt=0, description="Calls a second left to what may not be blocked."
    )
