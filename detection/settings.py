"""What a person may set about detection and about acting on it.

Owns: the YAML sections ``detection`` and ``policies`` as frozen dataclasses
with a default for everything. Must never: read a file or hold behaviour
beyond naming and looking up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from detection.settings_rules import (
    STRICT,
    DriftSettings,
    ErrorSettings,
    FloorSettings,
    LearningSettings,
    RepetitionSettings,
    RuleSettings,
    ShapeSettings,
    TierName,
    VolumeSettings,
    described,
)
from detection.types import ActionKind, Dimension, Mode, Signal


class Metric(StrEnum):
    """What a hard limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    COST = "cost"


class Period(StrEnum):
    """The window of a hard limit."""

    MINUTE = "minute"
    FIVE_MINUTES = "five_minutes"
    FIFTEEN_MINUTES = "fifteen_minutes"
    HOUR = "hour"
    DAY = "day"


PERIOD_SECONDS: Mapping[str, int] = {
    "minute": 60,
    "five_minutes": 300,
    "fifteen_minutes": 900,
    "hour": 3600,
    "day": 86400,
}


@dataclass(frozen=True, slots=True)
class ScopeMatch:
    """Which series something applies to; empty fields match everything."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    dimensions: tuple[Dimension, ...] = field(
        default=(), metadata=described("Dimensions that match, e.g. [agent, key].")
    )
    values: tuple[str, ...] = field(
        default=(), metadata=described("Values that match; a trailing * matches any rest.")
    )

    def matches(self, dimension: str, value: str) -> bool:
        """Whether a series falls under this scope.

        >>> ScopeMatch(values=("team-*",)).matches("agent", "team-a")
        True
        """
        if self.dimensions and dimension not in self.dimensions:
            return False
        return not self.values or any(matches_value(v, value) for v in self.values)


def matches_value(pattern: str, value: str) -> bool:
    """Compare a value with a pattern that may end in ``*``."""
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


@dataclass(frozen=True, slots=True)
class ExpectedWindow:
    """A time in which more than usual is expected: a launch, a holiday, a migration."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {**STRICT, "populate_by_name": True}

    since: datetime = field(
        metadata=described(
            "Start, ISO 8601 (UTC where no offset is given) or epoch seconds.",
            validation_alias="from",
        )
    )
    until: datetime = field(
        metadata=described(
            "End, ISO 8601 (UTC where no offset is given) or epoch seconds.", validation_alias="to"
        )
    )
    factor: float = field(
        default=2.0, metadata=described("Times the usual that is expected meanwhile.", gt=0)
    )
    scope: ScopeMatch = field(
        default_factory=ScopeMatch, metadata=described("Which series it applies to.")
    )

    def span(self) -> tuple[float, float]:
        """Start and end in epoch seconds; a time without an offset is UTC."""
        start, end = (
            t.replace(tzinfo=UTC) if t.tzinfo is None else t for t in (self.since, self.until)
        )
        return start.timestamp(), end.timestamp()


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """A hard limit: crossing it is an emergency from the first minute."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    metric: Metric = field(metadata=described("What is counted: requests, tokens or cost."))
    limit: float = field(
        metadata=described("Most in one period; dollars where cost is counted.", gt=0)
    )
    per: Period = field(default=Period.MINUTE, metadata=described("The sliding period."))
    dimension: Dimension = field(
        default=Dimension.AGENT, metadata=described("Each value of this dimension has the limit.")
    )
    values: tuple[str, ...] = field(
        default=(), metadata=described("Only these values; a trailing * matches any rest.")
    )
    name: str = field(default="", metadata=described("A name for messages and pages."))


@dataclass(frozen=True, slots=True)
class CapSettings:
    """Bounds of the engine's memory."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    series: int = field(
        default=220_000,
        metadata=described(
            "Most series; the least recently used go. Takes about 3 kB each, and four places "
            "where calls come all the time.",
            ge=100,
        ),
    )
    combinations: int = field(
        default=120_000, metadata=described("Most identity combinations remembered.", ge=100)
    )
    members_per_series: int = field(
        default=256, metadata=described("Most known members (models, clients) per series.", ge=8)
    )


@dataclass(frozen=True, slots=True)
class DetectionSettings:
    """The YAML section ``detection``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = field(default=True, metadata=described("Whether anything is judged."))
    rules: Mapping[Signal, RuleSettings] = field(
        default_factory=dict, metadata=described("Settings by signal.")
    )
    floors: FloorSettings = field(
        default_factory=FloorSettings, metadata=described("What is too little to matter.")
    )
    volume: VolumeSettings = field(
        default_factory=VolumeSettings, metadata=described("Volume and spend.")
    )
    repetition: RepetitionSettings = field(
        default_factory=RepetitionSettings, metadata=described("Agent loops.")
    )
    errors: ErrorSettings = field(
        default_factory=ErrorSettings, metadata=described("Error rates and retry storms.")
    )
    shape: ShapeSettings = field(
        default_factory=ShapeSettings, metadata=described("Cost, output and finish reasons.")
    )
    learning: LearningSettings = field(
        default_factory=LearningSettings, metadata=described("How a normal is learned.")
    )
    drift: DriftSettings = field(
        default_factory=DriftSettings, metadata=described("Slow growth and peers.")
    )
    expected: tuple[ExpectedWindow, ...] = field(
        default=(), metadata=described("Times in which more than usual is expected.")
    )
    limits: tuple[LimitSettings, ...] = field(
        default=(), metadata=described("Hard limits of rate, judged by the engine.")
    )
    caps: CapSettings = field(default_factory=CapSettings, metadata=described("Bounds of memory."))
    timezone_offset_hours: float = field(
        default=0.0,
        metadata=described("Offset of the local day for day-of-week seasons.", ge=-14, le=14),
    )

    def rule(self, signal: Signal) -> RuleSettings:
        """The rule of a signal, or the default one."""
        return self.rules.get(signal, _DEFAULT_RULE)


_DEFAULT_RULE = RuleSettings()


@dataclass(frozen=True, slots=True)
class PolicyMatch:
    """Which verdicts a policy answers; empty fields match everything."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    signals: tuple[Signal, ...] = field(default=(), metadata=described("Signals that match."))
    tier: TierName = field(
        default=TierName.CRITICAL,
        metadata=described("The mildest tier that matches: info, warning, critical or emergency."),
    )
    dimensions: tuple[Dimension, ...] = field(
        default=(), metadata=described("Dimensions that match.")
    )
    values: tuple[str, ...] = field(
        default=(), metadata=described("Values that match; a trailing * matches any rest.")
    )
    tags: Mapping[str, str] = field(
        default_factory=dict, metadata=described("Tags that the calls must all have carried.")
    )
    blockable: bool | None = field(
        default=None,
        metadata=described(
            "true: only evidence that may block; false: only evidence that may not."
        ),
    )


@dataclass(frozen=True, slots=True)
class LadderStep:
    """One rung: what is done, for how long, and when the next rung follows."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    action: ActionKind = field(metadata=described("What is done on this rung."))
    for_seconds: float = field(
        default=300.0,
        metadata=described(
            "The action expires by itself after this, and is taken again if evidence comes after "
            "its end; disable_key stays until a person lifts it.",
            gt=0,
        ),
    )
    escalate_after_seconds: float = field(
        default=3.0,
        metadata=described(
            "The next rung follows after this, if the verdict is still open and as bad.", ge=0
        ),
    )
    rate_per_second: float | None = field(
        default=None,
        metadata=described("Calls a second that a throttle lets through; 1 where unset.", gt=0),
    )
    share_of_normal: float | None = field(
        default=None,
        metadata=described(
            "For throttle: this share of the series' own usual rate at this time of day; where "
            "that isn't known yet, rate_per_second.",
            gt=0,
        ),
    )
    models: Mapping[str, str] = field(
        default_factory=dict,
        metadata=described("For downgrade: the model asked for -> the model given."),
    )
    cut: bool = field(default=False, metadata=described("Whether running streams end too."))
    webhook: str = field(
        default="", metadata=described("The webhook receiver that a webhook step calls.")
    )


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One policy: what it answers and with which ladder."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str = field(metadata=described("Name in messages, metrics and the audit trail."))
    match: PolicyMatch = field(
        default_factory=PolicyMatch, metadata=described("The verdicts it answers.")
    )
    mode: Mode | None = field(
        default=None, metadata=described("observe, shadow or enforce; unset takes the file's mode.")
    )
    ladder: tuple[LadderStep, ...] = field(
        default=(), metadata=described("The rungs, mildest first; none means: tell only.")
    )
    half_open_probes: int = field(
        default=3,
        metadata=described(
            "Calls let through after a block that must stay healthy before release.", ge=0
        ),
    )
    repeat_factor: float = field(
        default=2.0,
        metadata=described("Times longer that a block lasts each time it comes back.", ge=1),
    )
    longest_seconds: float = field(
        default=3600.0, metadata=described("No action of this policy lasts longer.", gt=0)
    )
    on_error: ActionKind = field(
        default=ActionKind.NOTIFY,
        metadata=described("What is done when the policy itself can't be evaluated."),
    )


def default_policies() -> tuple[PolicyRule, ...]:
    """What is done with no configuration at all."""
    throttle = LadderStep(ActionKind.THROTTLE, for_seconds=60.0, rate_per_second=1.0)
    block = LadderStep(ActionKind.BLOCK, for_seconds=300.0, cut=True)
    return (
        PolicyRule(
            "weak-repetition",
            PolicyMatch((Signal.AGENT_LOOP,), TierName.CRITICAL, blockable=False),
            ladder=(throttle,),
        ),
        PolicyRule("emergency", PolicyMatch(tier=TierName.EMERGENCY), ladder=(throttle, block)),
        PolicyRule("critical", PolicyMatch(tier=TierName.CRITICAL), ladder=(throttle,)),
    )


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The YAML section ``policies``; the first policy that matches answers."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    mode: Mode = field(
        default=Mode.ENFORCE,
        metadata=described("observe, shadow or enforce, where a policy sets none."),
    )
    rules: tuple[PolicyRule, ...] = field(
        default_factory=default_policies,
        metadata=described("Policies in order; unset takes the built-in ones."),
    )
