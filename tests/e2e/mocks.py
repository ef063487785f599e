"""Servers that speak like providers: aimock (npm) and llmock (PyPI), on ports of their own.

Owns: installing aimock into a cache outside the tree, its fixtures, its life. Must
never: leave a process behind, or reach for the network when it is already there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig import wait_for

_VERSION = "1.43.0"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenweir-tests"

#: What aimock answers. Only what stands here is known of usage, so it is what must be read.
USAGE = {"prompt_tokens": 31, "completion_tokens": 17, "total_tokens": 48}
FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "Name three rivers."},
        "response": {"content": "Rhine, Elbe and Oder, all of them long.", "usage": USAGE},
    },
    {
        "match": {"userMessage": "How warm is it?"},
        "response": {
            "toolCalls": [{"name": "get_weather", "arguments": '{"city":"Ulm"}'}],
            "usage": USAGE,
        },
    },
]


def _installed() -> Path:
    """aimock's command; installs it once, or skips the test with a reason."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed: they bring aimock")
    folder = _CACHE / f"aimock-{_VERSION}"
    command = folder / "node_modules/@copilotkit/aimock/dist/cli.js"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not command.exists():
            install = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
            done = subprocess.run(
                [*install, "--ignore-scripts", f"@copilotkit/aimock@{_VERSION}"],
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
            if done.returncode != 0 or not command.exists():
                pytest.skip(f"npm could not install aimock: {done.stderr.strip()[-200:]}")
    return command


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def running_aimock(folder: Path) -> Iterator[str]:
    """aimock with our fixtures; its address."""
    command = _installed()
    folder.mkdir(parents=True, exist_ok=True)
    fixtures = folder / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["node", str(command), "-p", str(port), "-f", str(fixtures), "-c", "8"],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        wait_for(lambda: process.poll() is not None or _answers(f"{url}/health"), 60, "aimock")
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield url
    finally:
        process.kill()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def running_llmock() -> Iterator[str]:
    """llmock on a thread of its own; its address."""
    testing = pytest.importorskip("llmock.testing", reason="the package llmock is not installed")
    with testing.LLMockServer() as server:
        yield str(server.url)
