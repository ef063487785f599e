"""Open dashboards for a benchmark: ``python -m tests.benchmarks._watch URL COUNT``.

Owns: clients of the live stream in a process of their own, and the parts of an admin
server that has nothing but it. Must never: read more than it must to keep up.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import aiohttp

from proxy.admin.deps import AdminDeps
from proxy.admin.events import EventHub
from proxy.admin.reader import Reader
from proxy.admin.settings import AdminSettings
from proxy.store.settings import StoreSettings
from proxy.store.store import Store

TOKEN = "a-token-of-the-benchmark-0001"


def deps_of(folder: Path, hub: EventHub) -> AdminDeps:
    """An admin server's parts, without a store."""
    store = Store(StoreSettings(url=f"unix://{folder}/nothing.sock"), folder, "0")

    async def nothing() -> str:
        return ""

    return AdminDeps(
        settings=AdminSettings(),
        data_dir=folder,
        clock=time.time,
        version="bench",
        scrape=nothing,
        mode=lambda: "enforce",
        data_url=lambda: "",
        reader=Reader(store.counters, time.time),
        hub=hub,
        environ={"TOKENWEIR_ADMIN_TOKEN": TOKEN},
    )


async def watch(url: str) -> None:
    """One dashboard's stream, until the end."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
        session.get(f"{url}/api/v1/events") as stream,
    ):
        async for _ in stream.content.iter_any():
            pass


async def main(url: str, count: int) -> None:
    """All of them."""
    await asyncio.gather(*(watch(url) for _ in range(count)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
