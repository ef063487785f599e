"""A store that is away, slow, wrong or forgetful: every fault under a running proxy."""

from __future__ import annotations

import pytest

from tests.chaos.driven import cases, holds
from tests.chaos.lab import Fault, Labs
from tests.chaos.scenarios import store_live


@pytest.mark.parametrize("fault", cases(store_live))
def test_survives(labs: Labs, fault: Fault) -> None:
    holds(store_live, labs, fault)
