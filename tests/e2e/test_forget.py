"""`tokenweir forget` beside a running proxy: afterwards the name is nowhere."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.rig import (
    ROOT,
    Proxy,
    Upstream,
    chat_answer,
    end_store,
    json_answer,
    read_request,
    running_proxy,
    wait_for,
)

ALICE, BOB = "alice@example.com", "bob@example.com"


async def answering(reader: Any, writer: Any) -> None:
    while await read_request(reader) is not None:
        writer.write(json_answer(chat_answer()))
        await writer.drain()


def call(proxy: Proxy, user: str, number: int) -> None:
    """One more turn of the same question: with forty of them, a loop."""
    request = urllib.request.Request(
        f"{proxy.url}/v1/chat/completions",
        data=json.dumps(
            {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "again"}]}
        ).encode(),
        headers={"Authorization": f"Bearer sk-{user[0]}-0123456789abcdef", "x-tokenweir-user": user,
                 "x-tokenweir-agent": f"bot-{user[0]}", "Content-Type": "application/json"},
    )  # fmt: skip
    try:
        urllib.request.urlopen(request, timeout=30).read()
    except urllib.error.HTTPError as refused:
        assert refused.code == 429, number


def tokenweir(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", *words], cwd=ROOT, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def files_naming(folder: Path, name: str) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_socket():
            data = path.read_bytes()
            if path.suffix == ".gz":
                data = gzip.decompress(data)
            if name.encode() in data:
                found.append(str(path.relative_to(folder)))
    return sorted(found)


def keys_naming(folder: Path, name: str) -> list[str]:
    """Keys of the embedded store that hold a name, in the key or in what is under it."""
    [socket] = [p for p in (folder / "store").rglob("*") if p.is_socket()]
    client = redis.Redis(unix_socket_path=str(socket))
    found = []
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        held = {
            b"string": lambda k=key: [client.get(k)],
            b"hash": lambda k=key: [x for pair in client.hgetall(k).items() for x in pair],
            b"zset": lambda k=key: client.zrange(k, 0, -1),
            b"set": lambda k=key: list(client.smembers(k)),
            b"list": lambda k=key: client.lrange(k, 0, -1),
        }[kind]()
        if any(name.encode() in part for part in [key, *held] if part):
            found.append(key.decode())
    client.close()
    return found


def imported(tmp_path: Path, home: Path) -> None:
    table = tmp_path / "past.csv"
    begin = int(time.time()) - 3 * 86400
    rows = [f"{begin + 600 * n},{who},gpt-4o-mini,openai,100,10"
            for n in range(200) for who in (ALICE, BOB)]  # fmt: skip
    table.write_text("\n".join(["ts,user,model,provider,input_tokens,output_tokens", *rows]))
    done = tokenweir("import", str(table), "--data-dir", str(home))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_user_is_forgotten_everywhere_and_nobody_else(tmp_path: Path, running: bool) -> None:
    home = tmp_path / "data"
    with Upstream(answering) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}}
        with running_proxy(tmp_path, settings, data_dir=home) as proxy:
            for number in range(60):
                call(proxy, ALICE, number)
                if number < 5:
                    call(proxy, BOB, number)
            imported(tmp_path, home)
            wait_for(lambda: "imported_baselines_taken" in proxy.log.read_text(), 60)
            before = wait_for(
                lambda: {r["value"]: r["requests"] for r in proxy.usage(by="user", window="30d")}
                if len(proxy.usage(by="user", window="30d")) > 1 else None, 30,
            )  # fmt: skip
            assert {ALICE, BOB} <= set(before)
            total = proxy.usage(window="30d")
            if not running:
                proxy.stop()
            done = tokenweir("forget", "--user", ALICE, "--yes", "--data-dir", str(home))
            assert done.returncode == 0, done.stderr
            told = dict(
                reversed(line.strip().split(" ", 1))
                for line in done.stdout.splitlines()
                if line.startswith("   ")
            )
            assert int(told["journal records"]) == 60
            assert int(told["imported rows"]) == 200
            assert int(told["counted series"]) == 1
            assert int(told["series of the engine"]) >= 1
            assert ALICE not in done.stdout
            if running:
                assert proxy.usage(window="30d") == total, "what it cost stays"
                users = {r["value"] for r in proxy.usage(by="user", window="30d")}
                assert ALICE not in users and BOB in users
                assert keys_naming(home, ALICE) == []
                call(proxy, BOB, 0)
                proxy.stop()
    end_store(home)
    held = [name for name in files_naming(home, ALICE) if not name.startswith("store/")]
    assert [name for name in held if "audit" not in name] == []
    assert any("journal" in name for name in files_naming(home, BOB))
    assert any("history" in name for name in files_naming(home, BOB))


def test_nothing_is_forgotten_by_mistake(tmp_path: Path) -> None:
    neither = tokenweir("forget", "--data-dir", str(tmp_path))
    assert neither.returncode == 2
    both = tokenweir("forget", "--user", "a", "--key", "b", "--data-dir", str(tmp_path))
    assert both.returncode == 2
    unsure = subprocess.run(
        [sys.executable, "-m", "proxy", "forget", "--user", "a", "--data-dir", str(tmp_path)],
        cwd=ROOT, input="n\n", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert unsure.returncode == 1
    assert not (tmp_path / "store").exists()
