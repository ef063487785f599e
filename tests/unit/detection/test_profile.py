"""What a series learns of itself: half-hours, records, seasons."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from detection.profile import DAY, DAYS_KEPT, HALF_HOUR, RECORD_DAYS, Profile
from detection.window import Window

FIRST = 2 * DAY * 100


def played(calls: dict[int, int], until: int, *, roll_each: int = 1) -> Profile:
    """A profile that has lived through counts by bucket."""
    window, profile = Window(FIRST), Profile(FIRST)
    for bucket in range(FIRST, until, roll_each):
        for one in range(bucket, bucket + roll_each):
            if calls.get(one):
                window.add(one, calls[one], calls[one] * 100)
        if profile.due(bucket):
            profile.roll(window, bucket, suspect=False)
    return profile


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(0, 3 * HALF_HOUR - 1), st.integers(1, 50), max_size=40),
       st.sampled_from([1, 7, 60]))  # fmt: skip
def test_each_call_is_learned_once_whichever_bucket_it_came_in(
    offsets: dict[int, int], step: int
) -> None:
    calls = {FIRST + k: n for k, n in offsets.items()}
    profile = played(calls, FIRST + 4 * HALF_HOUR + 60, roll_each=step)
    halves = [
        sum(n for b, n in calls.items() if half <= (b - FIRST) / HALF_HOUR < half + 1)
        for half in range(3)
    ]
    assert [row[0] for row in profile.recent[:3]] == halves


def test_a_cron_on_the_half_hour_is_learned() -> None:
    calls = {FIRST + n * HALF_HOUR: 40 for n in range(1, 48)}
    profile = played(calls, FIRST + DAY)
    assert profile.record("calls_60") == 40
    assert {row[0] for row in profile.recent[1:]} == {40}


def test_records_are_the_greatest_windows_and_fade_after_four_weeks() -> None:
    calls = {FIRST + 50 + i: 10 for i in range(6)}
    calls |= {FIRST + 300 + 30 * i: 9 for i in range(10)}
    profile = played(calls, FIRST + 1000)
    assert profile.record("calls_60") == 60
    assert profile.record("calls_300") == 60
    assert profile.record("cost_300") == 6000
    window = Window(FIRST + 1000)
    for day in range(1, RECORD_DAYS + 2):
        bucket = FIRST + 1000 + day * DAY
        window.add(bucket, 1, 1)
        profile.roll(window, bucket + HALF_HOUR, suspect=False)
    assert profile.record("calls_60") == 1


def test_suspected_counts_are_held_and_learned_only_when_cleared() -> None:
    window, profile = Window(FIRST), Profile(FIRST)
    window.add(FIRST + 10, 500, 0)
    profile.roll(window, FIRST + HALF_HOUR, suspect=True)
    assert profile.record("calls_60") == 0
    profile.settle(learn=False)
    assert profile.record("calls_60") == 0
    window.add(FIRST + HALF_HOUR + 10, 300, 0)
    profile.roll(window, FIRST + 2 * HALF_HOUR, suspect=True)
    profile.settle(learn=True)
    assert profile.record("calls_60") == 300


def test_the_season_is_the_hour_of_day_and_after_three_weeks_the_hour_of_week() -> None:
    window, profile = Window(FIRST), Profile(FIRST)
    weekend = 0
    for half in range(28 * 48):
        start = FIRST + half * HALF_HOUR
        day = half // 48
        busy = 18 <= half % 48 < 20 and day % 7 >= 2
        weekend += not busy
        window.add(start + 3, 100 if busy else 10, 0)
        profile.roll(window, start + HALF_HOUR, suspect=False)
        if day == 14 and half % 48 == 0:
            usual = profile.usual(start + 18 * HALF_HOUR)
            assert usual is not None
            assert 60 < usual[0] < 90, "a mean over weekdays and weekends"
    start = FIRST + 28 * DAY
    quiet, loud = profile.usual(start + 18 * HALF_HOUR), profile.usual(start + 2 * DAY + 18 * 180)
    assert quiet is not None
    assert loud is not None
    assert quiet[0] < 15
    assert loud[0] > 95


def test_too_little_is_unknown_never_zero() -> None:
    profile = Profile(FIRST)
    assert profile.usual(FIRST) is None
    assert profile.usual_cost() is None
    assert not profile.known(FIRST)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(0, 5 * HALF_HOUR), st.integers(1, 99), max_size=30))
def test_a_profile_survives_json(offsets: dict[int, int]) -> None:
    profile = played({FIRST + k: n for k, n in offsets.items()}, FIRST + 6 * HALF_HOUR)
    again = Profile.load(json.loads(json.dumps(profile.dump())))
    assert again.dump() == profile.dump()
    assert again.usual(FIRST + HALF_HOUR) == profile.usual(FIRST + HALF_HOUR)


def test_days_are_bounded() -> None:
    window, profile = Window(FIRST), Profile(FIRST)
    for day in range(60):
        bucket = FIRST + day * DAY + 5
        window.add(bucket, 20, 0)
        profile.roll(window, bucket + HALF_HOUR, suspect=False)
    assert len(profile.days) <= DAYS_KEPT
