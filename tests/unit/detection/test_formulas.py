"""The examples in detection's own documentation hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import detection

NAMES = [
    info.name
    for info in pkgutil.walk_packages(detection.__path__, "detection.")
    if info.name != "detection.forest"
]


#: What benchmarks compute by formulas of their own.
SCORES = ["_nab_score", "_nab_scorer", "_detection_report"]
NAMES += [f"tests.benchmarks.{name}" for name in SCORES]


@pytest.mark.parametrize("name", NAMES)
def test_examples_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


def test_every_formula_has_an_example() -> None:
    from detection import stats

    public = [f for f in vars(stats).values() if getattr(f, "__module__", "") == stats.__name__]
    assert len(public) >= 9
    for function in public:
        assert ">>>" in (function.__doc__ or ""), function.__name__
