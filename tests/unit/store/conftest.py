"""Fixtures: one real server for the module's tests, emptied before each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.clock import Clock
from proxy.journal import Journal, JournalSettings
from proxy.ledger import Ledger
from proxy.store.store import Store
from tests.unit.store.support import Server


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """The shared server, empty."""
    shared_server.command("FLUSHALL")
    return shared_server


OpenStore = Callable[..., Awaitable[Store]]
OpenLedger = Callable[..., Awaitable[Ledger]]


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def open_store(tmp_path: Path, server: Server, opened: AsyncExitStack) -> OpenStore:
    """Open stores on the shared server; they are stopped with the test."""

    async def open_one(name: str = "a", **settings: object) -> Store:
        store = await Store.open(server.settings(**settings), tmp_path / name, worker=name)
        opened.push_async_callback(store.stop)
        return store

    return open_one


@pytest.fixture
def open_ledger(tmp_path: Path, opened: AsyncExitStack) -> OpenLedger:
    """Open ledgers that don't tick by themselves."""

    async def open_one(store: Store, name: str = "a", **settings: object) -> Ledger:
        clock: Clock = store.clock
        journal = Journal(
            tmp_path / "journal" / name,
            JournalSettings.model_validate({"sync_seconds": 0} | settings),
            clock=clock,
            monotonic=clock.monotonic,
        )
        opened.callback(journal.close)
        return Ledger(journal, store.counters, clock)

    return open_one
