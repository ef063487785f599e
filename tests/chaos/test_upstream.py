"""Upstreams that refuse, stall or talk nonsense: every fault for real, and nothing lost."""

from __future__ import annotations

import pytest

from tests.chaos.driven import cases, holds
from tests.chaos.lab import Fault, Labs
from tests.chaos.scenarios import upstream


@pytest.mark.parametrize("fault", cases(upstream))
def test_survives(labs: Labs, fault: Fault) -> None:
    holds(upstream, labs, fault)
