"""Fixtures: replicas that share one real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.store.store import Store
from tests.unit.gate.bench import Replica, Time
from tests.unit.store.support import Server

OpenReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture(scope="session")
def one_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.command("FLUSHALL")
    return one_server


@pytest.fixture
async def open_replica(tmp_path: Path, server: Server) -> AsyncIterator[OpenReplica]:
    async with AsyncExitStack() as stack:

        async def open_one(name: str, **settings: Any) -> Replica:
            store = await Store.open(server.settings(), tmp_path / name, worker=name)
            stack.push_async_callback(store.stop)
            replica = Replica(store, tmp_path / name, **settings)
            await replica.enforcement.start()
            stack.push_async_callback(replica.enforcement.stop)
            return replica

        yield open_one
