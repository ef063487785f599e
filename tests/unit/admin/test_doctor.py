"""The doctor finds what is really wrong and says how to mend it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy import config
from proxy.cli import app
from proxy.commands.doctor import Finding, examine


def settings(folder: Path, upstream: str, **server) -> config.Settings:
    path = folder / "t.yaml"
    path.write_text(
        f"data_dir: {folder / 'data'}\n"
        f"server: {server or {'port': 0, 'admin_port': 0}}\n"
        f"upstreams:\n  openai:\n    base_url: {upstream}\n"
    )
    return config.load(path)


def by_name(found: list[Finding], start: str) -> Finding:
    return next(finding for finding in found if finding.name.startswith(start))


@pytest.fixture
async def late_upstream():
    """Answers, with a clock an hour behind."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"HEAD / HTTP/1.1") and b"uthorization" not in asked
        writer.write(b"HTTP/1.1 404 x\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_a_sound_place_is_ok_and_a_wrong_clock_is_told(tmp_path, late_upstream) -> None:
    found = await examine(settings(tmp_path, late_upstream), seconds=30)
    for name in ("data port", "admin port", "data directory", "store", "upstream openai"):
        assert by_name(found, name).grade == "ok", by_name(found, name)
    clock = by_name(found, "clock")
    assert clock.grade == "warn" and "NTP" in clock.mend


async def test_a_port_in_use_and_a_dead_upstream(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # bound and not listening: refused
        upstream = f"http://127.0.0.1:{dead.getsockname()[1]}"
        port = held.getsockname()[1]
        found = await examine(settings(tmp_path, upstream, port=port, admin_port=0), seconds=3)
    assert by_name(found, "data port").grade == "warn"
    assert "server.port" in by_name(found, "data port").mend
    assert by_name(found, "upstream openai").grade == "fail"


async def test_a_store_that_is_away(tmp_path) -> None:
    made = settings(tmp_path, "http://127.0.0.1:9")
    store = made.store.model_copy(update={"url": f"unix://{tmp_path}/nothing.sock"})
    found = await examine(made.model_copy(update={"store": store}), offline=True)
    assert by_name(found, "store").grade == "fail"
    assert "store.url" in by_name(found, "store").mend


def test_the_command_exits_1_on_a_failure_and_names_a_bad_file(tmp_path) -> None:
    (tmp_path / "bad.yaml").write_text("nonsense: 1\n")
    done = CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "bad.yaml")])
    assert done.exit_code == 2
    settings(tmp_path, "http://127.0.0.1:9")
    done = CliRunner().invoke(
        app, ["doctor", "--config", str(tmp_path / "t.yaml"), "--timeout", "0.5"]
    )
    assert done.exit_code == 1
    assert "FAIL" in done.output and "upstream openai" in done.output
