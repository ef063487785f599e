"""The proxy itself fails on a call: its caller is told at once, and it is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Recorder
from tests.rig import Raw, Upstream, running_proxy, wait_for

#: Put into the proxy's process: a method of its own that raises, once the proxy stands.
FAULT = """
import sys, threading, time

def break_it():
    while "proxy.app" not in sys.modules or not hasattr(sys.modules.get(MODULE), CLASS):
        time.sleep(0.02)
    def broken(*_args, **_named):
        raise AttributeError("broken on purpose")
    setattr(getattr(sys.modules[MODULE], CLASS), METHOD, broken)

threading.Thread(target=break_it, daemon=True).start()
"""
FIELDS = b"Host: p\r\nAuthorization: Bearer sk-a\r\nContent-Type: application/json\r\n"


def call(*, stream: bool) -> bytes:
    body = json.dumps({"model": "gpt-4o-mini", "stream": stream, "messages": []}).encode()
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"POST /v1/chat/completions HTTP/1.1\r\n" + FIELDS + length + body


@pytest.mark.parametrize(
    "where",
    [
        "proxy.gate Gate admit",
        "proxy.http.forward Exchange _send_on",
        "proxy.http.forward Exchange on_answer_head",
    ],
)
def test_nobody_waits_for_a_call_that_broke(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, kind, method = where.split()
    (tmp_path / "sitecustomize.py").write_text(
        f"MODULE, CLASS, METHOD = {module!r}, {kind!r}, {method!r}\n{FAULT}"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    with Upstream(Recorder()) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}}
        with running_proxy(tmp_path / "proxy", settings) as proxy:
            monkeypatch.undo()
            for stream in (False, True):
                with Raw(proxy.port) as raw:
                    raw.send(call(stream=stream))
                    said = raw.until(b"internal")
                    assert said.startswith(b"HTTP/1.1 500 "), said
            rows = wait_for(lambda: len(proxy.journal()) == 2 and proxy.journal(), what="records")
            assert {row["error_type"] for row in rows} == {"internal_error"}
            assert "broken on purpose" in proxy.log.read_text()
            assert "tokenweir_requests_in_flight 0" in proxy.text("/metrics")
