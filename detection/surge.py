"""How a count or a cost is judged against a series' own normal.

Owns: the judge that ``volume_surge`` and ``spend_spike`` share, and the question
whether volume may stand as a second family of evidence. Must never: decide a
verdict.

The sequential judge compares with the series' own records of 28 days, since two
thirds of real keys beat a mere quantile every week. A burst is critical at three
times the record of its window. A steady surge is critical sooner, at 1.4 times the
record of "the least ten seconds of three minutes", if it is also a jump: three times
the hour before, ten times the usual busy level. A launch that doubles a key is neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from detection.profile import STEADY, Profile
from detection.settings import DetectionSettings
from detection.state import SeriesState, View
from detection.stats import moment_dispersion, negative_binomial_tail, shiryaev_roberts
from detection.types import Family, Score, Signal, Tier

NANO = 1_000_000_000
HALF_HOUR_BUCKETS = 180


@dataclass(frozen=True, slots=True)
class Yardstick:
    """One window: its record's name, its length in buckets, whether it counts cost, its floor."""

    record: str
    buckets: int
    paid: bool
    floor: float


def yardsticks(settings: DetectionSettings, *, paid: bool) -> tuple[Yardstick, ...]:
    """The windows of calls (60 s, 5 min, 15 min) or of spend (15 min, 1 h)."""
    if paid:
        dollars = settings.floors.dollars_in_5_minutes * NANO
        return (
            Yardstick("cost_900", 90, True, dollars),
            Yardstick("cost_3600", 360, True, 2 * dollars),
        )
    calls = settings.floors.calls_in_60_seconds
    return (
        Yardstick("calls_60", 6, False, calls),
        Yardstick("calls_300", 30, False, 2 * calls),
        Yardstick("calls_900", 90, False, 4 * calls),
    )


def tightening(settings: DetectionSettings, state: SeriesState) -> float:
    """By how much thresholds are still wider: 1.5 at the end of learning, 1 when tight."""
    profile = state.profile
    if profile is None or profile.learned:
        return 1.0
    learning = settings.learning
    if learning.tighten_days <= learning.days:
        return 1.0
    age = profile.age_days(state.window.bucket)
    left = (learning.tighten_days - age) / (learning.tighten_days - learning.days)
    return 1.0 + 0.5 * min(1.0, max(0.0, left))


def tail_probability(profile: Profile, bucket: int, calls: float, buckets: int) -> float | None:
    """The chance of so many calls at this time of day, by the seasonal negative binomial.

    The half-hour's mean is scaled to the window; its size (1 / overdispersion) is
    kept, as bursts shorter than the window allow no more than that.
    """
    usual = profile.usual(bucket)
    if usual is None or usual[0] <= 0:
        return None
    mean, variance = usual
    size = moment_dispersion(mean, variance)
    return negative_binomial_tail(calls, mean * buckets / HALF_HOUR_BUCKETS, size)


class SequentialJudge:
    """Record ratio, tail and e-process of one kind of window."""

    def __init__(self, signal: Signal, settings: DetectionSettings, *, paid: bool) -> None:
        self.signal = signal
        self.settings = settings
        self.sticks = yardsticks(settings, paid=paid)

    def judge(self, view: View) -> Score | None:
        """The worst score of all windows, and the room left to the next alarm."""
        state = view.state
        profile = state.profile
        if profile is None or not profile.known(view.bucket):
            return None
        slack = view.expected * tightening(self.settings, state)
        best: Score | None = None
        window = state.window
        for stick in self.sticks:
            observed = (
                window.cost_in(stick.buckets) if stick.paid else window.calls_in(stick.buckets)
            )
            record = profile.record(stick.record) * slack
            start = max(stick.floor, 1.25 * record)
            if observed < start:
                _leave(view, stick.paid, start - observed)
                continue
            _leave(view, stick.paid, max(1.0, observed * 0.04))
            score = self._score(view, profile, stick, float(observed), record)
            if score is not None and (best is None or score.tier > best.tier):
                best = score
        if not self.sticks[0].paid:
            steady = self._steady(view, profile, slack)
            if steady is not None and (best is None or steady.tier > best.tier):
                best = steady
        return best

    def _steady(self, view: View, profile: Profile, slack: float) -> Score | None:
        """A surge that flows for three minutes and is a jump, not growth."""
        window, volume = view.state.window, self.settings.volume
        record = profile.record("steady_60") * slack
        hour = (window.calls_in(360) - window.calls_in(STEADY)) / (360 - STEADY)
        least = max(
            float(self.settings.floors.calls_in_60_seconds),
            volume.steady_ratio * record,
            6.0 * volume.hour_ratio * hour,
            6.0 * volume.usual_ratio * slack * profile.busy_level(),
        )
        running = 6.0 * window.calls_in(1)
        if running < least:
            _leave(view, False, (least - running) / 6.0)
            return None
        # Sooner than with the next bucket only late counts can make it steady.
        _leave(view, False, max(1.0, least / 12.0, 0.04 * window.calls_in(6)))
        observed = 6.0 * window.least(STEADY)
        if observed < least:
            return None
        stick = Yardstick("steady_60", STEADY, False, least)
        dear = observed * _weight(view, profile, STEADY) >= least
        tier = Tier.CRITICAL if dear else Tier.WARNING
        return self._made(view, stick, tier, observed, record, None, None)

    def _score(
        self, view: View, profile: Profile, stick: Yardstick, observed: float, record: float
    ) -> Score | None:
        volume = self.settings.volume
        ratio = observed / record if record > 0 else float("inf")
        p_value = e_value = None
        if not stick.paid:
            p_value = tail_probability(profile, view.bucket, observed, stick.buckets)
            e_value = self._e_value(view, stick, record)
        significant = (
            stick.paid
            or p_value is None
            or p_value <= volume.p_value
            or (e_value or 0.0) >= volume.e_value
        )
        weight = 1.0 if stick.paid else _weight(view, profile, stick.buckets)
        if ratio * weight >= volume.record_ratio:
            tier = Tier.CRITICAL
        elif ratio >= 1.5 and significant:
            tier = Tier.WARNING
        elif significant:
            tier = Tier.INFO
        else:
            return None
        return self._made(view, stick, tier, observed, record, p_value, e_value)

    def _made(
        self,
        view: View,
        stick: Yardstick,
        tier: Tier,
        observed: float,
        record: float,
        p_value: float | None,
        e_value: float | None,
    ) -> Score:
        scale = NANO if stick.paid else 1
        return Score(
            self.signal,
            Family.VOLUME,
            tier,
            observed / scale,
            baseline=record / scale,
            ratio=observed / record if record > 0 else None,
            p_value=p_value,
            e_value=e_value,
            window_seconds=stick.buckets * 10.0,
            since=view.now - stick.buckets * 10.0,
            ceiling=Tier.CRITICAL,
            detail={
                "unit": "usd" if stick.paid else "calls",
                "record": stick.record,
                "soft_cap_per_second": self._soft_cap(view, stick, observed, record),
            },
        )

    def _soft_cap(self, view: View, stick: Yardstick, observed: float, record: float) -> float:
        """The calls a second that keep the window at three times its record."""
        calls = view.state.window.calls_in(stick.buckets)
        most = self.settings.volume.record_ratio * max(record, stick.floor / 3.0)
        return round(calls * min(1.0, most / observed) / (stick.buckets * 10.0), 4)

    def _e_value(self, view: View, stick: Yardstick, record: float) -> float:
        buckets = min(stick.buckets, 30)
        ends, _ = view.state.window.ends(buckets)
        counts = np.diff(ends).tolist()
        counts.append(view.state.window.calls_in(1))
        null = max(record, stick.floor) / stick.buckets * 1.25
        return shiryaev_roberts(counts, null, 1.5)


def _weight(view: View, profile: Profile, buckets: int) -> float:
    """What a call of the window counts for: less than one where calls are far cheaper than usual.

    A thousand embeddings are no surge on a key of long chats. Calls at half the usual
    cost still count in full, since a key's mix of short and long calls shifts by itself.
    """
    window = view.state.window
    calls, usual = window.calls_in(buckets), profile.usual_cost()
    if usual is None or not calls:
        return 1.0
    return min(1.0, 2.0 * window.cost_in(buckets) / calls / usual)


def _leave(view: View, paid: bool, room: float) -> None:
    if paid:
        view.room_cost = min(view.room_cost, int(room) + 1)
    else:
        view.room_calls = min(view.room_calls, int(room) + 1)


def volume_is_evidence(
    settings: DetectionSettings, view: View, ratio: float | None = None
) -> Mapping[str, float] | None:
    """Whether a series' volume may stand beside another family; what it saw if so.

    A series without history has no record: there an absolute floor stands in for
    it. With history, volume must be past its usual level at this time of day and
    past the floor, or past its own record whatever the floor. ``ratio`` takes the
    place of the setting.
    """
    state, floors = view.state, settings.floors
    window, profile = state.window, state.profile
    window.advance(view.bucket)
    calls = max(window.calls_in(6), window.calls_in(7) * 6 / 7)
    spent = window.cost_in(30)
    floor = calls >= floors.calls_in_60_seconds
    dear = spent >= floors.dollars_in_5_minutes * NANO
    seen = {"calls_60": float(calls), "usd_300": spent / NANO}
    if profile is None or not profile.known(view.bucket):
        return seen if floor or dear else None
    times = (ratio or settings.volume.evidence_ratio) * view.expected
    usual = profile.usual(view.bucket)
    level = (usual[0] / 30.0 if usual else 0.0) * times
    if floor and calls >= level:
        return seen
    least = floors.calls_in_60_seconds * 0.4
    if calls >= max(least, profile.record("calls_60") * view.expected):
        return seen
    if window.calls_in(30) >= max(2.5 * least, profile.record("calls_300") * view.expected):
        return seen
    if dear and spent >= profile.record("cost_300") * view.expected:
        return seen
    return None
