"""The collector looks at little at a time, and at everything when nobody waits."""

from __future__ import annotations

import gc
import multiprocessing
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from proxy import garbage

HOUR, DAY = 3_600.0, 86_400.0


class Knot:
    def __init__(self) -> None:
        self.me = self


def what_stays() -> None:
    """What stays is looked at once."""
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


def young_knot() -> None:
    """A knot that dies young goes by itself."""
    knot = weakref.ref(Knot())
    _ = [[n] for n in range(2 * garbage._NEW)]
    assert knot() is None


def old_knot() -> None:
    """An old knot goes when no call waits."""
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


def a_day() -> None:
    """At the latest it goes after a day."""
    calls, now = SimpleNamespace(inflight=1), [0.0]
    whole = garbage.WholeLook(calls, lambda: now[0])
    knot = weakref.ref(Knot())
    gc.freeze()
    now[0] = DAY
    whole.look()
    assert knot() is None


def settled(case: Callable[[], None]) -> None:
    garbage.settle_memory()
    case()


@pytest.mark.parametrize("case", [what_stays, young_knot, old_knot, a_day])
def test_in_a_process_of_its_own(case: Callable[[], None]) -> None:
    # The collector is one for a process: what these change would change the tests that follow.
    process = multiprocessing.get_context("spawn").Process(target=settled, args=(case,))
    process.start()
    process.join(60)
    assert process.exitcode == 0, "its traceback is above"
