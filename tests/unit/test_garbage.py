"""The collector looks at little at a time, and at everything when nobody waits."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from proxy import garbage

HOUR, DAY = 3_600.0, 86_400.0


class Knot:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    before = gc.get_threshold()
    garbage.settle_memory()
    yield
    gc.callbacks.remove(garbage._set_aside)
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_stays_is_looked_at_once() -> None:
    passes: list[int] = []

    def count(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            passes.append(info["generation"])

    gc.callbacks.append(count)
    try:
        kept = [[n] for n in range(200_000)]
    finally:
        gc.callbacks.remove(count)
    assert len(kept) == 200_000
    assert set(passes) == {0} and len(passes) >= 20
    assert sum(gc.get_count()) <= 2 * garbage._NEW
    assert gc.get_freeze_count() > 150_000


def test_a_knot_that_dies_young_goes_by_itself() -> None:
    knot = weakref.ref(Knot())
    _ = [[n] for n in range(2 * garbage._NEW)]
    assert knot() is None


def test_an_old_knot_goes_when_no_call_waits() -> None:
    calls, now = SimpleNamespace(inflight=1), [0.0]
    whole = garbage.WholeLook(calls, lambda: now[0])
    kept: Knot | None = Knot()
    assert kept is not None
    knot = weakref.ref(kept)
    gc.freeze()
    kept = None
    now[0] = 2 * HOUR
    whole.look()
    assert knot() is not None, "a call waits"
    calls.inflight = 0
    whole.look()
    assert knot() is None
    assert gc.get_freeze_count() > 10_000, "set aside again"


def test_at_the_latest_after_a_day() -> None:
    calls, now = SimpleNamespace(inflight=1), [0.0]
    whole = garbage.WholeLook(calls, lambda: now[0])
    knot = weakref.ref(Knot())
    gc.freeze()
    now[0] = DAY
    whole.look()
    assert knot() is None
