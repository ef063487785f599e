"""A real admin server on a loopback port, and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from proxy.admin.app import AdminServer
from proxy.admin.deps import AdminDeps
from proxy.admin.reader import Reader
from proxy.admin.settings import AdminSettings
from proxy.metrics import Exposition, RuntimeMetrics, process_readings
from proxy.store.settings import StoreSettings
from proxy.store.store import Store

TOKEN = "an-admin-token-of-the-tests-0001"


def no_store(folder: Path) -> Store:
    """A store that nobody started: every question is answered by "away"."""
    return Store(StoreSettings(url=f"unix://{folder}/nothing.sock"), folder, "0")


class Clock:
    """Epoch seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def start(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable]:
    """Start admin servers; they end with the test."""
    servers: list[AdminServer] = []

    async def run(settings: AdminSettings | None = None, **parts) -> AdminServer:
        runtime = RuntimeMetrics()
        parts.setdefault("reader", Reader(no_store(tmp_path).counters, clock))
        deps = AdminDeps(
            settings=settings or AdminSettings(),
            data_dir=tmp_path,
            clock=parts.pop("clock", clock),
            version="0.0.0",
            scrape=Exposition([runtime.readings, process_readings("0.0.0")]).scrape,
            mode=lambda: "enforce",
            data_url=lambda: "http://127.0.0.1:8787",
            runtime=runtime,
            environ={"TOKENWEIR_ADMIN_TOKEN": TOKEN},
            **parts,
        )
        server = AdminServer(deps, "127.0.0.1", 0)
        await server.start()
        servers.append(server)
        return server

    yield run
    for server in servers:
        await server.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """Sends nothing by itself: no cookies kept, no redirects followed by the tests."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def at(server: AdminServer, path: str) -> URL:
    """A URL whose path is sent as written."""
    return URL(f"{server.url}{path}", encoded=True)
