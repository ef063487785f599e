"""A real store for the tests that keep or send something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.store.settings import StoreSettings
from proxy.store.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store of its own for each test."""
    opened = await Store.open(StoreSettings(timeout_seconds=2.0), tmp_path)
    try:
        yield opened
    finally:
        await opened.stop()
