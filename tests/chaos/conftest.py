"""How pytest drives the faults: the same scenarios, once each, audited."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.measure import Labs


@pytest.fixture(scope="module")
def labs() -> Iterator[Labs]:
    """The labs of one group, gone with its module."""
    labs = Labs()
    yield labs
    labs.close()
