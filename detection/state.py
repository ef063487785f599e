"""What the engine remembers of a series, of an owner, and of an identity.

Owns: the mutable records behind judging, their bounds and their dumps. Must
never: judge, or call a detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detection.profile import Profile
from detection.repeats import Repeat, Repeats
from detection.shape import Shape
from detection.types import Dimension, Family, FleetBucket, Score, Series, Signal, Tier
from detection.window import Window

NEVER = 1 << 62

# One for all series that have had neither.
_NO_DAY = (-1, 0, 0, 0)
_NO_FAILS = (0, 0, 0)

#: Dimensions that have a profile and are judged by volume unless a rule says otherwise.
PROFILED = frozenset(
    (
        Dimension.TOTAL,
        Dimension.KEY,
        Dimension.AGENT,
        Dimension.PROJECT,
        Dimension.TAG,
        Dimension.USER,
        Dimension.SESSION,
    )
)
#: Dimensions too wide to be stopped by anything but a limit the user set.
WIDE = frozenset((Dimension.TOTAL, Dimension.PROVIDER, Dimension.MODEL, Dimension.ENDPOINT))


@dataclass(slots=True)
class Evidence:
    """One signal under way on one series; ``last`` is when it was last renewed."""

    score: Score
    tier: Tier
    since: float
    last: float
    told: Tier = Tier.NONE
    worst: Tier = Tier.NONE

    def dump(self) -> dict[str, Any]:
        """The evidence as plain values."""
        score = self.score
        return {
            "tier": int(self.tier),
            "since": self.since,
            "last": self.last,
            "told": int(self.told),
            "worst": int(self.worst),
            "score": {
                "signal": str(score.signal),
                "family": str(score.family),
                "tier": int(score.tier),
                "observed": score.observed,
                "baseline": score.baseline,
                "ratio": score.ratio,
                "p_value": score.p_value,
                "e_value": score.e_value,
                "window_seconds": score.window_seconds,
                "since": score.since,
                "ceiling": int(score.ceiling),
                "detail": dict(score.detail),
            },
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Evidence:
        """Undo :meth:`dump`."""
        raw = dict(saved["score"])
        raw["signal"], raw["family"] = Signal(raw["signal"]), Family(raw["family"])
        raw["tier"], raw["ceiling"] = Tier(raw["tier"]), Tier(raw["ceiling"])
        return cls(
            Score(**raw),
            Tier(saved["tier"]),
            float(saved["since"]),
            float(saved["last"]),
            Tier(saved["told"]),
            Tier(saved["worst"]),
        )


class SeriesState:
    """One counted series: its window, its normal, and what is under way on it.

    ``alarm_calls`` and ``alarm_cost`` are running totals below which no judge of
    counts can fire, ``alarm_bucket`` the bucket by which they must be renewed.
    ``cells`` is how many combinations of names lead here.
    """

    __slots__ = (
        "alarm_bucket",
        "alarm_calls",
        "alarm_cost",
        "cells",
        "day",
        "error_calls",
        "error_score",
        "error_since",
        "errors",
        "errors_own",
        "evidence",
        "fails",
        "fleet",
        "last",
        "members",
        "novel",
        "off",
        "profile",
        "series",
        "tokens",
        "window",
        "wolf",
    )

    def __init__(self, series: Series, bucket: int, offset: int, *, profiled: bool) -> None:
        self.series = series
        self.window = Window(bucket)
        self.profile = Profile(bucket, offset) if profiled else None
        self.alarm_calls = 0
        self.alarm_cost = 0
        self.alarm_bucket = 0
        self.day: Sequence[int] = _NO_DAY
        self.tokens: Window | None = None
        self.errors = 0
        self.errors_own = 0.0
        self.fails: Sequence[int] = _NO_FAILS
        self.error_score = 0.0
        self.error_calls = 0
        self.error_since = 0.0
        self.evidence: dict[Signal, Evidence] = {}
        self.wolf: dict[Signal, float] = {}
        self.fleet: dict[int, FleetBucket] | None = None
        self.members: dict[str, dict[str, float]] | None = None
        self.novel: dict[str, list[float]] | None = None
        self.off: set[str] | None = None
        self.last = bucket
        self.cells = 0

    def learning(self, days: float) -> bool:
        """Whether statistical rules only watch this series."""
        profile = self.profile
        return profile is None or (
            not profile.learned and profile.age_days(self.window.bucket) < days
        )

    def today(self, day: int, paid: bool, tokens: bool) -> int:
        """Calls, nano-USD or tokens since midnight UTC."""
        start, window, counted = self.day, self.window, self.tokens
        if start[0] != day:
            start = self.day = (
                day,
                window.calls - window.calls_in(1),
                window.cost - window.cost_in(1),
                0 if counted is None else counted.calls - counted.calls_in(1),
            )
        if tokens:
            return counted.calls - start[3] if counted is not None else 0
        return window.cost - start[2] if paid else window.calls - start[1]

    def failed(self, minute: int, *, own: bool) -> None:
        """Count a failed call in this minute; kept are this minute and the last.

        ``own`` says that the caller is to blame; ``errors_own`` follows its share.
        """
        self.errors_own += 0.1 * (own - self.errors_own)
        last, now, before = self.fails
        if last == minute:
            self.fails = (minute, now + 1, before)
        else:
            self.fails = (minute, 1, now if minute - last == 1 else 0)
        self.errors += 1

    def failures(self, minute: int) -> int:
        """Failed calls of this minute and the last."""
        apart = minute - self.fails[0]
        return self.fails[1] + self.fails[2] if apart == 0 else self.fails[1] if apart == 1 else 0

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "day": list(self.day),
            "tokens": None if self.tokens is None else self.tokens.dump(),
            "fails": list(self.fails),
            "series": list(self.series),
            "window": self.window.dump(),
            "profile": None if self.profile is None else self.profile.dump(),
            "alarms": [self.alarm_calls, self.alarm_cost, self.alarm_bucket],
            "errors": [
                self.errors,
                self.error_score,
                self.error_calls,
                self.error_since,
                self.errors_own,
            ],
            "evidence": {str(k): v.dump() for k, v in self.evidence.items()},
            "wolf": {str(k): v for k, v in self.wolf.items()},
            "fleet": None if self.fleet is None else [list(b) for b in self.fleet.values()],
            "members": self.members,
            "novel": self.novel,
            "off": None if self.off is None else sorted(self.off),
            "last": self.last,
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> SeriesState:
        """Undo :meth:`dump`."""
        dimension, value = saved["series"]
        state = cls(Series(dimension, value), int(saved["last"]), 0, profiled=False)
        state.window = Window.load(saved["window"])
        state.profile = None if saved["profile"] is None else Profile.load(saved["profile"])
        state.alarm_calls, state.alarm_cost, state.alarm_bucket = map(int, saved["alarms"])
        state.day, state.fails = tuple(saved["day"]), tuple(saved["fails"])
        state.tokens = None if saved["tokens"] is None else Window.load(saved["tokens"])
        errors, score, calls, since, own = saved["errors"]
        state.errors, state.error_calls = int(errors), int(calls)
        state.error_score, state.error_since, state.errors_own = score, since, own
        state.evidence = {Signal(k): Evidence.load(v) for k, v in saved["evidence"].items()}
        state.wolf = {Signal(k): float(v) for k, v in saved["wolf"].items()}
        if saved["fleet"] is not None:
            state.fleet = {int(row[0]): FleetBucket(*row) for row in saved["fleet"]}
        state.members = saved["members"] and {k: dict(v) for k, v in saved["members"].items()}
        state.novel = saved["novel"] and {k: list(v) for k, v in saved["novel"].items()}
        state.off = None if saved["off"] is None else set(saved["off"])
        return state


@dataclass(slots=True)
class View:
    """What a detector may look at, and where judges of counts leave their next alarm.

    ``owner`` is the agent (else the session or key) whose calls repeat and have a
    shape; ``provider`` the provider's series, to tell an outage from a fault of one
    caller; ``repeat``, ``fingerprint``, ``growth``, ``since`` belong to repeats,
    ``member`` (signal, value) to newcomers, ``expected`` is the factor of expected
    windows. ``room_calls`` and ``room_cost`` take the least further calls and
    nano-USD that could fire a judge of counts.
    """

    now: float
    bucket: int
    state: SeriesState
    owner: Owner | None = None
    provider: SeriesState | None = None
    peers: Sequence[SeriesState] = ()
    repeat: Repeat | None = None
    fingerprint: str = ""
    growth: int = 0
    since: float = 0.0
    member: tuple[Signal, str] | None = None
    expected: float = 1.0
    room_calls: int = NEVER
    room_cost: int = NEVER


class Owner:
    """Whose calls repeat and have a shape: an agent, else a session, else a key."""

    __slots__ = ("finish", "repeats", "shape", "state")

    def __init__(self, state: SeriesState, repeats: Repeats, shape: Shape) -> None:
        self.state = state
        self.repeats = repeats
        self.shape = shape
        self.finish = FinishMix()

    def dump(self) -> dict[str, Any]:
        """The owner as plain values, its series by name."""
        return {
            "series": list(self.state.series),
            "repeats": self.repeats.dump(),
            "shape": self.shape.dump(),
            "finish": self.finish.dump(),
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any], state: SeriesState) -> Owner:
        """Undo :meth:`dump`."""
        owner = cls(state, Repeats.load(saved["repeats"]), Shape.load(saved["shape"]))
        owner.finish = FinishMix.load(saved["finish"])
        return owner


class FinishMix:
    """Finish reasons of an owner: what is usual, and what came since the last look."""

    __slots__ = ("recent", "usual")

    def __init__(self) -> None:
        self.usual: dict[str, float] = {}
        self.recent: dict[str, int] = {}

    def add(self, counts: Mapping[tuple[str, ...], int]) -> None:
        """Count calls by their finish reasons; a ninth kind counts as ``other``."""
        for reasons, calls in counts.items():
            name = reasons[0] if reasons else "none"
            if name not in self.recent and len(self.recent) >= 8:
                name = "other"
            self.recent[name] = self.recent.get(name, 0) + calls

    def freshen(self) -> None:
        """Settle what has waited for long, where nobody looks at it."""
        if sum(self.recent.values()) >= 1000:
            self.settle()

    def settle(self) -> None:
        """Take the recent counts into the usual mix; old ones fade by half at 10,000."""
        for name, calls in self.recent.items():
            self.usual[name] = self.usual.get(name, 0.0) + calls
        if sum(self.usual.values()) > 10_000:
            self.usual = {name: calls / 2 for name, calls in self.usual.items()}
        self.recent = {}

    def dump(self) -> dict[str, Any]:
        """The mix as plain values."""
        return {"usual": dict(self.usual), "recent": dict(self.recent)}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> FinishMix:
        """Undo :meth:`dump`."""
        mix = cls()
        mix.usual, mix.recent = dict(saved["usual"]), dict(saved["recent"])
        return mix
