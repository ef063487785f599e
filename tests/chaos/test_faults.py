"""Every fault once, for real, audited: nothing lost, nothing doubled, no block forgotten."""

from __future__ import annotations

import pytest

from tests.chaos.lab import FAULTS, Fault, MissingError
from tests.chaos.measure import Labs, measure
from tests.chaos.scenarios import GROUPS

ROWS = 98


def cases() -> list[object]:
    """Every fault, with its marks."""
    return [
        pytest.param(
            fault,
            id=f"row{fault.row}-{fault.name.replace(' ', '-')}",
            marks=[pytest.mark.slow] if fault.slow else [],
        )
        for fault in FAULTS
    ]


def test_every_row_has_its_fault() -> None:
    assert {fault.row for fault in FAULTS} == set(range(1, ROWS + 1))


@pytest.mark.parametrize("fault", cases())
def test_survives(labs: Labs, fault: Fault) -> None:
    try:
        outcome = measure(labs, fault, GROUPS[fault.group], raising=True)
    except MissingError as missing:
        pytest.skip(str(missing))
    assert outcome.held, outcome
