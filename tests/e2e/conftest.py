"""What the end-to-end tests share: a real LLM server behind a real proxy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mocks import running_aimock, running_llmock
from tests.rig import ROOT, Proxy, running_proxy, wait_for


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp's own server with a tiny random model; its address."""
    pytest.importorskip("xllamacpp", reason="the package xllamacpp is not installed")
    folder = tmp_path_factory.mktemp("llm")
    port_file = folder / "port"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.llm_server", str(port_file)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: port_file.exists() or process.poll() is not None, 60, "the LLM server")
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield f"http://127.0.0.1:{port_file.read_text()}"
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="session")
def llm_proxy(llm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The proxy in front of the real LLM server."""
    upstreams = {
        "openai": {"base_url": llm},
        "anthropic": {"base_url": llm, "wire": "anthropic"},
        "local": {"base_url": f"{llm}/v1"},
    }
    folder: Path = tmp_path_factory.mktemp("llm-proxy")
    with running_proxy(folder, {"upstreams": upstreams, "mode": "observe"}) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """aimock's address."""
    with running_aimock(tmp_path_factory.mktemp("aimock")) as url:
        yield url


@pytest.fixture(scope="session")
def llmock_url() -> Iterator[str]:
    """llmock's address."""
    with running_llmock() as url:
        yield url
