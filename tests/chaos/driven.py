"""A group's faults as pytest cases.

Owns: the marks and skips of a case. Must never: know what a fault does.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.chaos.lab import FAULTS, Fault, Labs, MissingError, measure


def cases(scenarios: ModuleType) -> list[Any]:
    """The faults of a module, as parameters with their marks."""
    group = scenarios.__name__.rpartition(".")[2]
    return [
        pytest.param(
            fault,
            id=f"row{fault.row}-{fault.name.replace(' ', '-')}",
            marks=[pytest.mark.slow] if fault.slow else [],
        )
        for fault in FAULTS
        if fault.group == group
    ]


def holds(scenarios: ModuleType, labs: Labs, fault: Fault) -> None:
    """Do one fault once; fail with what was lost, doubled or forgotten."""
    try:
        outcome = measure(labs, fault, scenarios.make_shared, raising=True)
    except MissingError as missing:
        pytest.skip(str(missing))
    assert outcome.held, outcome
