"""Bodies and streams that lie, break off or never end: every fault for real, and nothing lost."""

from __future__ import annotations

import pytest

from tests.chaos.driven import cases, holds
from tests.chaos.lab import Fault, Labs
from tests.chaos.scenarios import bodies


@pytest.mark.parametrize("fault", cases(bodies))
def test_survives(labs: Labs, fault: Fault) -> None:
    holds(bodies, labs, fault)
