"""What a person may set about single signals: methods, floors, thresholds.

Owns: one frozen dataclass per group of signals, with a default for everything.
Must never: read a file or hold behaviour beyond naming and looking up.

Each field carries its ``description`` and bounds in its metadata, which
pydantic reads for validation, the reference page and the JSON schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from detection.types import Dimension, Tier

STRICT = {"extra": "forbid"}


def described(text: str, **bounds: Any) -> dict[str, Any]:
    """The metadata of a settings field: its description and its bounds."""
    return {"description": text, **bounds}


class Method(StrEnum):
    """How a rate-like signal is judged (``volume_surge`` and ``spend_spike``)."""

    SEQUENTIAL = "sequential"
    SEASONAL = "seasonal"
    MAD = "mad"
    ZSCORE = "zscore"
    MOVING_AVERAGE = "moving_average"
    STATIC = "static"
    ISOLATION_FOREST = "isolation_forest"


class Sensitivity(StrEnum):
    """Words for a threshold in standard deviations: 2, 3 and 4."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class TierName(StrEnum):
    """A tier as it is written in YAML."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"

    @property
    def tier(self) -> Tier:
        """The tier of that name."""
        return Tier[self.name]


SIGMAS: Mapping[str, float] = {"high": 2.0, "medium": 3.0, "low": 4.0}


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """How one signal is judged. Unset fields take that signal's own default."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = field(default=True, metadata=described("Whether the signal is judged at all."))
    method: Method = field(
        default=Method.SEQUENTIAL,
        metadata=described(
            "Judge of volume_surge and spend_spike: sequential (own record, tail and e-process), "
            "seasonal, mad, zscore, moving_average, static or isolation_forest."
        ),
    )
    sensitivity: Sensitivity | float = field(
        default=Sensitivity.MEDIUM,
        metadata=described(
            "high, medium or low (2, 3, 4 standard deviations) or a number from 1.5 to 5; "
            "used by zscore, mad, seasonal and moving_average."
        ),
    )
    threshold: float | None = field(
        default=None,
        metadata=described(
            "For static: the count (or dollars, for spend_spike) in the window that is critical."
        ),
    )
    window_seconds: int | None = field(
        default=None,
        metadata=described("Window of zscore, mad, moving_average and static.", ge=60, le=3600),
    )
    ceiling: TierName | None = field(
        default=None, metadata=described("The worst tier this signal may reach.")
    )
    dimensions: tuple[Dimension, ...] = field(
        default=(), metadata=described("Judge only these dimensions; empty means the default.")
    )

    def sigmas(self) -> float:
        """The sensitivity as a number of standard deviations.

        Raises ValueError outside 1.5 to 5.

        >>> RuleSettings(sensitivity=Sensitivity.LOW).sigmas()
        4.0
        """
        value = SIGMAS.get(str(self.sensitivity))
        number = float(self.sensitivity) if value is None else value
        if not 1.5 <= number <= 5.0:
            raise ValueError(f"sensitivity must be from 1.5 to 5, not {number}")
        return number

    def __post_init__(self) -> None:
        self.sigmas()
        if self.method is Method.STATIC and self.threshold is None:
            raise ValueError("method static needs a threshold")


@dataclass(frozen=True, slots=True)
class FloorSettings:
    """What is too little to bother about, and the second family without history."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    calls_in_60_seconds: int = field(
        default=30,
        metadata=described("Calls in 60 s below which volume is never evidence.", ge=1),
    )
    dollars_in_5_minutes: float = field(
        default=1.0,
        metadata=described("Dollars in 5 min below which spend is never evidence.", gt=0),
    )
    calls_to_judge: int = field(
        default=30,
        metadata=described("Calls a series must have made before its shape is judged.", ge=5),
    )


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """Volume and spend against the series' own normal and record."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    record_ratio: float = field(
        default=3.0,
        metadata=described("Times its own record at which volume alone is critical.", gt=1),
    )
    steady_ratio: float = field(
        default=1.4,
        metadata=described(
            "Times its own record of steady load (each ten seconds of three minutes) that is "
            "critical, given the two ratios below.",
            gt=1,
        ),
    )
    hour_ratio: float = field(
        default=3.0,
        metadata=described("Times the hour before that a steady surge must reach.", ge=1),
    )
    usual_ratio: float = field(
        default=10.0,
        metadata=described("Times its usual busy level that a steady surge must reach.", ge=1),
    )
    evidence_ratio: float = field(
        default=1.5,
        metadata=described(
            "Times its own usual (seasonal) level at which volume counts as a second family.",
            gt=1,
        ),
    )
    p_value: float = field(
        default=1e-6,
        metadata=described("Tail probability below which a count is significant.", gt=0, lt=0.1),
    )
    e_value: float = field(
        default=1e4,
        metadata=described("Evidence of the e-process at which a slower surge shows.", gt=1),
    )


@dataclass(frozen=True, slots=True)
class RepetitionSettings:
    """Agent loops: the same call with the same result again and again."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    repeats: int = field(
        default=12,
        metadata=described("Identical calls in the window that make a loop.", ge=3, le=1000),
    )
    window_seconds: int = field(
        default=120, metadata=described("Window of the repeats.", ge=10, le=3600)
    )
    text_repeats: int = field(
        default=240,
        metadata=described(
            "Identical plain prompts in the window that are critical; fewer only warn, since "
            "sampling and evaluation repeat prompts.",
            ge=3,
        ),
    )
    growing_steps: int = field(
        default=24,
        metadata=described(
            "Calls in a row, each larger than the last by the same step, that make a "
            "growing-context loop.",
            ge=8,
        ),
    )
    allow: tuple[str, ...] = field(
        default=(),
        metadata=described("Fingerprints (16 hex) that may repeat: pollers, cron, health checks."),
    )
    allow_agents: tuple[str, ...] = field(
        default=(), metadata=described("Agents that may repeat calls; a trailing * matches rest.")
    )
    fingerprints_per_series: int = field(
        default=512, metadata=described("Most fingerprints remembered per agent.", ge=32)
    )


@dataclass(frozen=True, slots=True)
class ErrorSettings:
    """Error rates by a Bernoulli CUSUM, and retries of one failing request."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    null_rate: float = field(
        default=0.10, metadata=described("Share of errors that is still normal.", gt=0, lt=1)
    )
    bad_rate: float = field(
        default=0.50, metadata=described("Share of errors to find quickly.", gt=0, lt=1)
    )
    threshold: float = field(
        default=9.0,
        metadata=described("Log evidence at which the error rate is critical.", gt=0),
    )
    retries: int = field(
        default=6,
        metadata=described("Failing repeats of one request that make a retry storm.", ge=3),
    )

    def __post_init__(self) -> None:
        if self.bad_rate <= self.null_rate:
            raise ValueError("bad_rate must be above null_rate")


@dataclass(frozen=True, slots=True)
class ShapeSettings:
    """Cost and output per request by a CUSUM on the log; the finish-reason mix."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    threshold: float = field(
        default=10.0, metadata=described("Evidence at which a shape change is critical.", gt=0)
    )
    ratio: float = field(
        default=2.0,
        metadata=described("Least change of the mean per request worth telling.", gt=1),
    )
    finish_p_value: float = field(
        default=1e-8, metadata=described("χ² tail below which a finish mix has changed.", gt=0)
    )


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """How long a series is only watched, and when it is known."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    days: float = field(
        default=14.0,
        metadata=described(
            "Days in which statistical rules record alarms without acting; loops and hard "
            "limits act from the first minute.",
            ge=0,
        ),
    )
    tighten_days: float = field(
        default=30.0,
        metadata=described("Day by which thresholds have tightened to their setting.", ge=0),
    )
    warm_up_days: float = field(
        default=1.0, metadata=described("Days before new members are told of.", ge=0)
    )
    warm_up_requests: int = field(
        default=200, metadata=described("Requests after which new members are told of.", ge=0)
    )
    self_trust_days: float = field(
        default=7.0,
        metadata=described("Days a rule that cried wolf on a series is held at info.", ge=0),
    )


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """Slow growth, peers, and the sweep lane."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    ratio: float = field(
        default=1.25,
        metadata=described("Cost per call of seven days against the thirty days before.", gt=1),
    )
    weekly_growth: float = field(
        default=0.035,
        metadata=described("Growth a week of cost per call over six weeks that is drift.", gt=0),
    )
    peer_ratio: float = field(
        default=5.0, metadata=described("Times the peers' median that is an outlier.", gt=1)
    )
    own_ratio: float = field(
        default=3.0, metadata=described("Times its own usual day that is an outlier.", gt=1)
    )
    least_peers: int = field(default=4, metadata=described("Peers needed to compare.", ge=3))
