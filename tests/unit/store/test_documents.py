"""Versioned documents, their time index, and who leads."""

from __future__ import annotations

import asyncio

from tests.unit.store.conftest import OpenStore
from tests.unit.store.support import Server, until


async def test_compare_and_set(open_store: OpenStore) -> None:
    documents = (await open_store()).documents
    first = await documents.doc_put("incident", "i/1", {"n": 1}, at=5.25, expected=0)
    assert first
    assert await documents.doc_put("incident", "i/1", {"n": 2}, at=6, expected=0) is None
    second = await documents.doc_put("incident", "i/1", {"n": 2}, at=6.5, expected=first)
    assert second == first + 1
    assert await documents.doc_put("incident", "i/1", {"n": 3}, at=7, expected=first) is None
    found = await documents.doc_get("incident", "i/1")
    assert found is not None
    assert (found.id, found.version, found.at, found.body) == ("i/1", second, 6.5, {"n": 2})
    await documents.doc_delete("incident", "i/1")
    assert await documents.doc_get("incident", "i/1") is None
    again = await documents.doc_put("incident", "i/1", {"n": 4}, at=7, expected=0)
    assert again and again > second


async def test_one_of_many_racers_creates(open_store: OpenStore) -> None:
    stores = [await open_store(name) for name in "abc"]
    tries = [s.documents.doc_put("x", "one", {}, at=1, expected=0) for s in stores for _ in "12345"]
    assert sum(v is not None for v in await asyncio.gather(*tries)) == 1


async def test_range_by_time(open_store: OpenStore) -> None:
    documents = (await open_store()).documents
    for n in range(250):
        await documents.doc_put("log", f"d{n}", {"n": n}, at=1000.0 + n)
    rows = await documents.doc_range("log", 1010, 1020, limit=100)
    assert [r.body["n"] for r in rows] == list(range(10, 21))
    rows = await documents.doc_range("log", 0, 1e12, limit=120, newest_first=True)
    assert [r.body["n"] for r in rows] == list(range(249, 129, -1))


async def test_documents_end_with_their_time_to_live(open_store: OpenStore, server: Server) -> None:
    documents = (await open_store()).documents
    await documents.doc_put("log", "brief", {}, at=1, ttl_seconds=1)
    await documents.doc_put("log", "long", {}, at=2)

    async def gone() -> bool:
        return [r.id for r in await documents.doc_range("log", 0, 9, limit=9)] == ["long"]

    await until(gone)
    await asyncio.sleep(1.2)
    await documents.doc_put("log", "third", {}, at=3)
    assert b"brief" not in server.command("ZRANGE", "tw:{doc}:log:i", "0", "-1")


async def test_one_leads_until_it_falls_silent(open_store: OpenStore) -> None:
    one, other = (await open_store("a")).documents, (await open_store("b")).documents
    assert await one.lease("alerts", 0.4)
    assert not await other.lease("alerts", 0.4)
    assert await one.lease("alerts", 0.4)

    async def taken_over() -> bool:
        return await other.lease("alerts", 5)

    await until(taken_over)
    assert not await one.lease("alerts", 0.4)
