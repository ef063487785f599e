"""A short soak: books that agree, and nothing that leaks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.lab import MissingError
from tests.chaos.soak import soak


@pytest.mark.slow
def test_half_a_minute_of_everything(tmp_path: Path) -> None:
    try:
        found = asyncio.run(soak(0.5, tmp_path))
    except MissingError as missing:
        pytest.skip(str(missing))
    assert found["sound"], found
    assert found["crowd_errors"] == 0, found
    assert found["crowd_had_answers"] > 1000
    assert found["reloads"] + found["store_restarts"] >= 1
    assert min(found[kind] for kind in ("json", "stream", "hang-up", "websocket")) > 0
    start, _, end = found["descriptors"]
    assert end <= start + 8, found
