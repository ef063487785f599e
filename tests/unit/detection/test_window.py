"""Windows count exactly what a list of all calls would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection import window as module
from detection.window import SIZE, Window

#: Gaps between bookings in 10 s buckets: mostly near, sometimes past all that is kept.
GAPS = st.one_of(st.integers(0, 3), st.integers(0, 90), st.integers(SIZE - 2, 3 * SIZE))
ROWS = st.lists(st.tuples(GAPS, st.integers(0, 9), st.integers(0, 10**12)), max_size=120)


@pytest.fixture(scope="module", params=[0, 5, 64], autouse=True)
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """All of it with every bucket kept from the first on, from a few on, and seldom."""
    usual, module.FEW = module.FEW, request.param
    yield
    module.FEW = usual


def naive(rows: list[tuple[int, int, int]], last: int, buckets: int, column: int) -> int:
    return sum(row[column] for row in rows if last - buckets < row[0] <= last)


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(1, SIZE - 1))
def test_any_window_equals_a_sum_over_all_calls(
    gaps: list[tuple[int, int, int]], buckets: int
) -> None:
    window, rows, now = Window(1000), [], 1000
    for gap, calls, cost in gaps:
        now += gap
        window.add(now, calls, cost)
        rows.append((now, calls, cost))
        assert window.calls_in(buckets) == naive(rows, now, buckets, 1)
        assert window.cost_in(buckets) == naive(rows, now, buckets, 2)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9)), min_size=1, max_size=10))
def test_late_counts_land_in_their_own_bucket(
    gaps: list[tuple[int, int, int]], late: list[tuple[int, int]]
) -> None:
    window, rows, now = Window(1000), [], 1000
    for gap, calls, cost in gaps:
        now += gap
        window.add(now, calls, cost)
        rows.append((now, calls, cost))
    behind = sorted((now - back, calls, 0) for back, calls in late)
    window.add_late(behind)
    for width in (1, 6, 30, 90, 301):
        assert window.calls_in(width) == naive(rows + behind, now, width, 1)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_a_dumped_window_goes_on_as_if_nothing_had_happened(
    gaps: list[tuple[int, int, int]],
) -> None:
    window, now = Window(1000), 1000
    for gap, calls, cost in gaps:
        now += gap
        window.add(now, calls, cost)
    again = Window.load(window.dump())
    for step in (0, 1, 7, SIZE):
        for one in (window, again):
            one.add(now + step, 2, 5)
        for width in (1, 6, 90, 360):
            assert again.calls_in(width) == window.calls_in(width)
            assert again.cost_in(width) == window.cost_in(width)
    assert (again.calls, again.cost) == (window.calls, window.cost)


def test_the_ends_are_the_totals_of_closed_buckets() -> None:
    window = Window(10)
    for bucket, calls in ((10, 1), (11, 2), (13, 4), (14, 8)):
        window.add(bucket, calls, calls)
    calls, cost = window.ends(3)
    assert calls.tolist() == cost.tolist() == [1, 3, 3, 7]


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(1, 40))
def test_the_least_bucket_is_that_of_a_plain_list(
    gaps: list[tuple[int, int, int]], width: int
) -> None:
    window, now, counts = Window(1000), 1000, {1000: 0}
    for gap, calls, cost in gaps:
        now += gap
        window.add(now, calls, cost)
        counts[now] = counts.get(now, 0) + calls
    assert window.least(width) == min(counts.get(b, 0) for b in range(now - width + 1, now + 1))
