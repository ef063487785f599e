"""Control documents: everywhere within a second, and never forgotten."""

from __future__ import annotations

import asyncio
import time

from proxy.clock import Clock
from proxy.store.control_book import Record
from proxy.store.store import Store
from tests.unit.store.conftest import OpenStore
from tests.unit.store.support import Server, until


def known(store: Store, id: str) -> bool:
    return store.controls.get("action", id) is not None


async def test_a_block_reaches_the_others_by_announcement(open_store: OpenStore) -> None:
    stores = [await open_store(name, reconcile_seconds=10) for name in "abc"]
    await asyncio.sleep(0.1)
    heard: list[Record] = []
    stores[2].controls.on_change("action", heard.append)
    started = time.monotonic()
    stores[0].controls.put("action", "b1", {"kind": "block"}, by="ann")
    await until(lambda: all(known(s, "b1") for s in stores))
    assert time.monotonic() - started < 1.0
    assert [(r.id, r.body, r.by) for r in heard] == [("b1", {"kind": "block"}, "ann")]
    stores[1].controls.delete("action", "b1")
    await until(lambda: not any(known(s, "b1") for s in stores))
    assert heard[-1].body is None


async def test_a_lost_announcement_is_healed(open_store: OpenStore, server: Server) -> None:
    one, other = await open_store("a"), await open_store("b")
    server.command("CLIENT", "KILL", "TYPE", "pubsub")
    one.controls.put("action", "b2", {"kind": "block"})
    await until(lambda: known(other, "b2"))


async def test_blocks_hold_from_the_disk_with_the_store_down(
    open_store: OpenStore, server: Server, tmp_path: object
) -> None:
    store = await open_store("a")
    store.controls.put("action", "manual", {"kind": "block"}, by="ann")
    store.controls.put("action", "brief", {"kind": "block"}, expires_at=store.clock() + 0.05)
    await store.stop()
    await asyncio.sleep(0.1)
    away = server.settings(url="unix:///nonexistent.sock")
    again = await Store.open(away, tmp_path / "a", worker="a")  # type: ignore[operator]
    try:
        assert known(again, "manual") and not known(again, "brief")
        assert not again.health()["ok"]
    finally:
        await again.stop()


async def test_an_emptied_store_gets_the_blocks_back(open_store: OpenStore, server: Server) -> None:
    one, other = await open_store("a"), await open_store("b")
    one.controls.put("action", "b3", {"kind": "block"})
    one.controls.put("action", "gone", {"kind": "block"})
    one.controls.delete("action", "gone")
    await until(lambda: known(other, "b3"))
    server.command("FLUSHALL")
    await until(lambda: b"b3" in server.command("HGETALL", "tw:{ctl}:live"))
    late = await open_store("c")
    await until(lambda: known(late, "b3"))
    assert not known(late, "gone")


async def test_what_was_deleted_elsewhere_does_not_come_back(open_store: OpenStore) -> None:
    one, other = await open_store("a"), await open_store("b")
    one.controls.put("action", "b4", {"kind": "block"})
    await until(lambda: known(other, "b4"))
    await other.stop()
    one.controls.delete("action", "b4")
    assert await one.controls.flush()
    again = await open_store("b")
    await until(lambda: not known(again, "b4"))
    await asyncio.sleep(0.5)
    assert not known(one, "b4")


async def test_what_was_written_while_the_store_was_away_wins_later(
    open_store: OpenStore, server: Server
) -> None:
    one, other = await open_store("a"), await open_store("b")
    one.controls.put("throttle", "t", {"rate": 1})
    await until(lambda: other.controls.get("throttle", "t") is not None)
    server.command("CLIENT", "PAUSE", "300", "ALL")
    other.controls.put("throttle", "t", {"rate": 2})
    record = other.controls.get("throttle", "t")
    assert record is not None and record.body == {"rate": 2}

    def everywhere() -> bool:
        found = one.controls.get("throttle", "t")
        return found is not None and found.body == {"rate": 2}

    await until(everywhere)


async def test_expired_documents_end_everywhere(open_store: OpenStore, server: Server) -> None:
    one, other = await open_store("a"), await open_store("b")
    heard: list[Record] = []
    other.controls.on_change("action", heard.append)
    one.controls.put("action", "b5", {"kind": "block"}, expires_at=one.clock() + 1)
    await until(lambda: known(other, "b5"))
    await until(lambda: not known(one, "b5") and not known(other, "b5"))
    assert heard[-1].body is None
    await until(lambda: b"b5" not in server.command("HGETALL", "tw:{ctl}:live"))


async def test_store_time_is_used_and_replicas_are_counted(open_store: OpenStore) -> None:
    skewed = Clock(wall=lambda: time.time() - 300.0)
    one = await open_store("a")
    other = await open_store("b")
    await until(lambda: one.replicas() == 2 == other.replicas())
    await other.stop()
    await until(lambda: one.replicas() == 1)
    settings = one.settings
    late = await Store.open(settings, one.controls._path.parent.parent / "late", clock=skewed)
    try:
        assert abs(skewed() - time.time()) < 0.1
        assert 299 < skewed.offset_seconds < 301
    finally:
        await late.stop()


async def test_500_callers_at_once_find_room(open_store: OpenStore) -> None:
    store = await open_store("a", timeout_seconds=5.0, max_connections=4)
    answers = await asyncio.gather(*(store.link.command("PING") for _ in range(500)))
    assert len(answers) == 500
