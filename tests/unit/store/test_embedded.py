"""The embedded store: one server a host, shared, watched, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.store.embedded import EmbeddedStore, EmbeddedStoreError, find_binary
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.unit.store.support import until


def server_pid(folder: Path) -> int:
    return int((folder / "server.pid").read_text())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder whose server, if one is left, ends with the test."""
    yield tmp_path / "store"
    path = tmp_path / "store" / "server.pid"
    if path.exists() and alive(int(path.read_text())):
        os.kill(int(path.read_text()), signal.SIGKILL)


async def test_the_socket_is_private_and_no_port_is_open(folder: Path) -> None:
    store = EmbeddedStore(folder)
    await store.start()
    pid = server_pid(folder)
    assert stat.S_IMODE(store.socket_path.stat().st_mode) == 0o700
    listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    ours = {os.readlink(p) for p in Path(f"/proc/{pid}/fd").iterdir() if p.exists()}
    assert not any(f"socket:[{inode}]" in ours for inode in listening)
    await store.stop()
    assert not alive(pid)


async def test_several_workers_share_one_server(folder: Path) -> None:
    workers = [EmbeddedStore(folder) for _ in range(4)]
    await asyncio.gather(*(w.start() for w in workers))
    pid = server_pid(folder)
    assert [w.is_keeper for w in workers].count(True) == 1
    keeper = next(w for w in workers if w.is_keeper)
    rest = [w for w in workers if w is not keeper]
    await keeper.stop()
    assert alive(pid) and server_pid(folder) == pid
    await until(lambda: any(w.is_keeper for w in rest))
    for worker in rest:
        assert alive(pid)
        await worker.stop()
    assert not alive(pid)


async def test_a_killed_server_is_started_again_with_its_data(tmp_path: Path) -> None:
    settings = StoreSettings(timeout_seconds=0.5, reconcile_seconds=0.2)
    one = await Store.open(settings, tmp_path, worker="one")
    other = await Store.open(settings, tmp_path, worker="other")
    try:
        await one.link.command("SET", "mark", "kept")
        first = server_pid(tmp_path / "store")
        os.kill(first, signal.SIGKILL)

        async def back() -> bool:
            try:
                return bool(await other.link.command("GET", "mark") == b"kept")
            except Exception:
                return False

        await until(back, 15.0)
        assert server_pid(tmp_path / "store") != first
        assert one.embedded is not None and other.embedded is not None
        assert one.embedded.restarts + other.embedded.restarts == 1
    finally:
        await other.stop()
        await one.stop()
    assert not alive(server_pid_or_zero(tmp_path / "store"))


def server_pid_or_zero(folder: Path) -> int:
    return server_pid(folder) if (folder / "server.pid").exists() else 0


async def test_a_server_that_outlived_its_parent_is_adopted(folder: Path) -> None:
    lost = EmbeddedStore(folder)
    await lost.start()
    pid = server_pid(folder)
    for task in asyncio.all_tasks():
        if task.get_name() == "embedded-store":
            task.cancel()
    for fd in (lost._users_fd, lost._keeper_fd):
        os.close(fd)
    heir = EmbeddedStore(folder)
    await heir.start()
    assert server_pid(folder) == pid and heir.is_keeper and heir.restarts == 0
    os.kill(pid, signal.SIGKILL)
    assert lost._process is not None
    lost._process.wait(5)
    await until(lambda: server_pid(folder) != pid)
    await heir.stop()


async def test_a_broken_file_is_set_aside(folder: Path) -> None:
    store = EmbeddedStore(folder)
    await store.start()
    await store.stop()
    parts = list((folder / "appendonlydir").glob("*.incr.aof"))
    assert parts
    parts[0].write_bytes(b"*3\r\n$3\r\nSET\r\nrubbish that no server reads\r\n" * 50)
    again = EmbeddedStore(folder)
    await again.start()
    assert len(again.set_aside) == 1 and (folder / again.set_aside[0]).is_dir()
    await again.stop()


async def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120) / "store"
    store = EmbeddedStore(folder)
    await store.start()
    assert len(str(store.socket_path)) < 100
    assert stat.S_IMODE(store.socket_path.parent.stat().st_mode) == 0o700
    await store.stop()


async def test_a_relative_folder_is_meant_from_where_one_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    store = EmbeddedStore(Path("store"))
    await store.start()
    assert (folder / "server.pid").exists()
    await store.stop()


async def test_a_missing_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedStoreError, match=r"store\.embedded_binary: /no/such"):
        find_binary("/no/such")
