"""Root cause and forecast: exact sums, true causes, honest intervals."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.contrib import OTHER, Cell, Recorder
from detection.decompose import Sums, split_cost, unit_rates
from detection.explain import Explanation, explain
from detection.forecast import forecast
from detection.story import tell
from detection.types import TOTAL, Observation, Series
from tests.recording import record

NOW = 1_800_000_000
PRICES = {"mini": (150, 600), "big": (2_500, 10_000)}

tokens = st.floats(0, 1e7)
sums = st.builds(
    Sums, st.integers(0, 10_000), st.just(0.0), tokens, tokens, tokens, st.integers(0, 10**13)
)

who = st.tuples(*[st.sampled_from(["x", "y", None])] * 6)
leaves = st.dictionaries(who, sums, max_size=8)


@given(leaves, leaves)
def test_the_parts_always_add_up_to_the_change(before: dict, after: dict) -> None:
    rates = {"x": (1.0, 0.1, 4.0), None: (2.0, 0.2, 9.0)}
    split = split_cost(before, after, rates)
    assert split.volume + split.mix + split.tokens + split.price == split.change
    whole = sum(s.cost for s in after.values()) - sum(s.cost for s in before.values())
    assert abs(split.change - whole) <= 1


Change = Callable[[Observation], list[Observation]]


def call(ts: float, key: str, agent: str, model: str = "mini", **more: object) -> Observation:
    """One call at its list price."""
    made = Observation(
        ts=ts, id="", key=key, agent=agent, model=model, endpoint="chat", project="p", client="n",
        status=200, input_tokens=1_000, output_tokens=200,
    )._replace(**more)  # fmt: skip
    rate_in, rate_out = PRICES[made.model or ""]
    return made._replace(
        cost_nano_usd=rate_in * (made.input_tokens or 0) + rate_out * (made.output_tokens or 0)
    )


def told(change: Change, series: Series = TOTAL, since: float | None = None) -> Explanation:
    """An hour of even traffic of three agents, changed for the last four minutes."""
    rng = random.Random(4)
    recorder = Recorder()
    for second in range(NOW - 3_600, NOW):
        for key, agent in (("k1", "a1"), ("k2", "a1"), ("k3", "a2"), ("k4", "a3")):
            if rng.random() < 0.5:
                model = "big" if rng.random() < 0.3 else "mini"
                one = call(
                    second, key, agent, model, input_tokens=rng.randint(500, 1_500),
                    output_tokens=rng.randint(50, 400),
                )  # fmt: skip
                for made in change(one) if second >= NOW - 240 else [one]:
                    record(recorder, made)
    found = explain(list(recorder.snapshot().cells(series)), now=NOW, series=series, since=since)
    assert found is not None
    return found


CAUSES: list[tuple[str, str, str, Change]] = [
    ("key", "k3", "volume", lambda o: [o] * 9 if o.key == "k3" else [o]),
    ("agent", "a1", "volume", lambda o: [o] * 9 if o.agent == "a1" else [o]),
    ("total", "", "volume", lambda o: [o] * 4),
    ("agent", "a1", "tokens",
     lambda o: [_priced(o, input_tokens=o.input_tokens * 6)] if o.agent == "a1" else [o]),
    ("agent", "a2", "tokens",
     lambda o: [_priced(o, output_tokens=o.output_tokens * 9)] if o.agent == "a2" else [o]),
    ("model", "big", "mix", lambda o: [_priced(o, model="big")]),
    ("model", "big", "price",
     lambda o: [o._replace(cost_nano_usd=o.cost_nano_usd * 3)] if o.model == "big" else [o]),
]  # fmt: skip


def _priced(one: Observation, **more: object) -> Observation:
    made = one._replace(**more)
    rate_in, rate_out = PRICES[made.model or ""]
    return made._replace(
        cost_nano_usd=rate_in * (made.input_tokens or 0) + rate_out * (made.output_tokens or 0)
    )


@pytest.mark.parametrize(("dimension", "value", "kind", "change"), CAUSES)
def test_the_cause_its_kind_and_its_beginning_are_found(
    dimension: str, value: str, kind: str, change: Change
) -> None:
    found = told(change)
    names = {f"{found.top.dimension}:{found.top.value}", *found.top.same}
    assert f"{dimension}:{value}" in names
    assert found.kind == kind
    assert abs(found.since - (NOW - 240)) <= 20
    assert sum(found.split.parts().values()) == found.split.change
    assert found.cost_per_hour_nano_usd == pytest.approx(found.cost_so_far_nano_usd * 15, rel=0.1)


def test_the_story_says_what_is_known() -> None:
    grown = told(CAUSES[3][3], Series("agent", "a1"))
    story = tell("cost_per_request", Series("agent", "a1"), grown)
    assert re.fullmatch(
        r"agent a1 pays more for each call; input per call [56]\.\d×; model unchanged; "
        r"since \d\d:\d\d UTC\.",
        story,
    )


def test_too_little_is_none_not_a_guess() -> None:
    assert explain([], now=NOW) is None
    old = Cell(NOW - 3_000, 10, OTHER, 1, 0, 1, 0, 1, 1)
    assert explain([old], now=NOW) is None
    with pytest.raises(ValueError, match="metric"):
        explain([old], now=NOW, metric="joy")


def test_the_recorder_stays_within_its_bounds() -> None:
    recorder = Recorder(max_cells=500, max_combinations=50)
    for step in range(20_000):
        record(recorder, call(NOW + step / 20, f"k{step % 997}", "a"))
    assert len(recorder) <= 500 + 51
    newest = [c for c in recorder.snapshot().cells() if c.start >= NOW + 990]
    assert sum(c.requests for c in newest) == 200
    assert any(c.combination == OTHER for c in newest)


def test_old_cells_are_summed_up_and_nothing_is_lost() -> None:
    recorder = Recorder()
    for second in range(0, 3_600, 2):
        record(recorder, call(NOW + second, "k", "a"))
    cells = list(recorder.snapshot().cells())
    assert sum(c.requests for c in cells) == 1_800
    assert {c.width_seconds for c in cells} == {10.0, 60.0}
    assert len(cells) < 180
    assert sum(c.requests for c in recorder.snapshot().cells(Series("key", "other"))) == 0


def test_rates_come_from_the_calls_themselves() -> None:
    rng = random.Random(1)
    who = (None, None, "m", None, None, None)
    cells = []
    for _ in range(40):
        i, c, o = rng.randint(100, 9_000), rng.randint(0, 99), rng.randint(1, 900)
        cells.append(Cell(0, 60, who, 1, 0, i, c, o, 3 * (i - c) + 0.3 * c + 15 * o))
    fresh, cached, output = unit_rates(cells)["m"]
    assert (fresh, output) == (pytest.approx(3, rel=0.02), pytest.approx(15, rel=0.02))
    assert cached >= 0


def test_the_interval_holds_what_it_says() -> None:
    """Of many months with noisy days and quiet weekends, about 80 % end within it."""
    held = 0
    for seed in range(200):
        rng = random.Random(seed)
        hours = []
        for hour in range(60 * 24):
            day = hour // 24
            if hour % 24 == 0:
                level = rng.lognormvariate(0, 0.3) * (0.4 if day % 7 >= 5 else 1.0)
            hours.append((hour * 3_600.0, round(1e9 * level)))
        cut = 45 * 24 * 3_600.0
        made = forecast(
            [h for h in hours if h[0] < cut], now=cut, period_start=30 * 86_400.0,
            period_end=60 * 86_400.0,
        )  # fmt: skip
        assert made is not None
        real = sum(cost for ts, cost in hours if ts >= 30 * 86_400.0)
        held += made.low <= real <= made.high
    assert 0.7 <= held / 200 <= 0.99


def test_a_budget_is_told_to_run_out_in_time() -> None:
    hours = [(h * 3_600.0, 100) for h in range(240)]
    made = forecast(
        hours, now=864_000.0, period_start=0.0, period_end=1_728_000.0, budget=24_000 + 5_000
    )
    assert made is not None
    assert made.exhausted_at == pytest.approx(864_000 + 50 * 3_600)
    spent = replace(made, budget=1)
    assert spent.expected == 48_000
