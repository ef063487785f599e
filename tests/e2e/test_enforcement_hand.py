"""The commands of the manual hand and of keys, run as a person runs them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import Recorder
from tests.rig import ROOT, TOKEN, Proxy, Raw, Upstream, end_store, running_proxy, start_proxy

PROVIDERS_KEY = "sk-the-providers-own-key-0001"
PASSED_KEY = "sk-passed-through-by-a-client-0002"


def tokenweir(*words: str, proxy: Proxy | None = None, fails: bool = False) -> str:
    """Run the command; what it printed."""
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TOKENWEIR_ADMIN_TOKEN": TOKEN}
    if proxy is not None:
        env["TOKENWEIR_ADMIN_URL"] = proxy.admin
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *words],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def statuses(proxy: Proxy, agent: str, calls: int = 12) -> set[int]:
    """The statuses of calls over a connection each, so that all workers are asked."""
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})
    head = (
        f"POST /@{agent}/v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {PASSED_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    found = set()
    for _ in range(calls):
        with Raw(proxy.port, 30) as client:
            found.add(int(client.send((head + body).encode()).all().split(b" ", 2)[1]))
    return found


def within_a_second(proxy: Proxy, agent: str, status: int) -> None:
    """Every worker answers so, a second after the command ended at the latest."""
    time.sleep(1.0)
    assert statuses(proxy, agent) == {status}


def test_block_throttle_release_status_and_the_audit_trail(tmp_path: Path) -> None:
    with Upstream(Recorder()) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}, "mode": "observe"}
        proxy = start_proxy(tmp_path, settings, arguments=("--workers", "2"))
        try:
            assert statuses(proxy, "refunds") == {200}
            said = tokenweir("block", "agent=refunds", "--for", "1h", "--why", "loops", proxy=proxy)
            assert "refunds" in said
            within_a_second(proxy, "refunds", 429)
            assert statuses(proxy, "others") == {200}
            status = tokenweir("status", proxy=proxy)
            assert re.search(r"block.*agent.*refunds", status)
            told = tokenweir("explain", "--agent", "refunds", "--model", "gpt-5", proxy=proxy)
            assert told.startswith("block by manual (mode observe)")
            assert "loops" in told
            # In force again after a restart, before the first call.
            assert proxy.stop() == 0
            proxy = start_proxy(tmp_path, settings, arguments=("--workers", "2"))
            assert statuses(proxy, "refunds") == {429}
            said = tokenweir("release", "agent=refunds", "--why", "mended", proxy=proxy)
            assert said.strip() == "released block of agent refunds"
            within_a_second(proxy, "refunds", 200)
            tokenweir("throttle", "agent=slow", "--rate", "0.01", proxy=proxy)
            time.sleep(1.0)
            assert statuses(proxy, "slow") == {200, 429}
            tokenweir("release", "agent=nobody", proxy=proxy, fails=True)
            entries = proxy.api("/api/v1/audit")["entries"]
        finally:
            with contextlib.suppress(Exception):
                proxy.stop()
            end_store(proxy.data_dir)
    mine = [e for e in reversed(entries) if e["target"].endswith(("refunds", "slow"))]
    assert [e["verb"] for e in mine] == ["block", "release", "throttle"]
    assert [e["reason"] for e in mine] == ["loops", "mended", ""]
    assert all(e["actor"] and abs(e["at"] - time.time()) < 600 for e in mine)
    assert mine[0]["before"] is None
    assert mine[0]["after"]["kind"] == "block"
    assert mine[1]["before"]["kind"] == "block"
    assert mine[1]["after"] is None


def test_status_can_be_watched(tmp_path: Path) -> None:
    with (
        Upstream(Recorder()) as upstream,
        running_proxy(tmp_path, {"upstreams": {"openai": {"base_url": upstream.url}}}) as proxy,
    ):
        env = {**os.environ, "TOKENWEIR_ADMIN_TOKEN": TOKEN, "TOKENWEIR_ADMIN_URL": proxy.admin}
        ours, theirs = pty.openpty()
        watch = subprocess.Popen(
            [sys.executable, "-m", "proxy", "status", "--watch"],
            cwd=ROOT, env={**env, "TERM": "xterm"}, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        try:
            seen = _read_until(ours, "nothing")
            assert "late" not in seen
            asked = {"kind": "block", "dimension": "agent", "value": "late", "seconds": 60}
            proxy.api("/api/v1/actions", "POST", asked)
            _read_until(ours, "late")
        finally:
            watch.terminate()
            watch.wait(20)
            os.close(ours)


def _read_until(terminal: int, word: str, seconds: float = 60.0) -> str:
    """What a terminal showed until a word came."""
    deadline, seen = time.monotonic() + seconds, ""
    while word not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{word!r} did not come: {seen[-2000:]}"
        seen += os.read(terminal, 65_536).decode("utf-8", "replace")
    return seen


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def keyed(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Upstream(recorder) as upstream:
        settings = {
            "upstreams": {"openai": {"base_url": upstream.url, "api_key": PROVIDERS_KEY}},
        }
        with running_proxy(tmp_path_factory.mktemp("keys"), settings) as proxy:
            yield proxy


def secret_of(said: str) -> str:
    return re.findall(r"tw-[A-Za-z0-9_-]{30,}", said)[0]


def ask(proxy: Proxy, secret: str, model: str = "gpt-4o-mini") -> None:
    client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=secret, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    client.chat.completions.create(model=model, messages=messages, max_tokens=5)


def test_a_virtual_key_from_its_making_to_its_end(keyed: Proxy, recorder: Recorder) -> None:
    create = ["keys", "create", "--name", "ci", "--owner", "build team", "--project", "build"]
    create += ["--model", "gpt-4o*", "--provider", "openai", "--requests-per-minute", "1000"]
    first = secret_of(tokenweir(*create, proxy=keyed))
    ask(keyed, first)
    assert recorder.requests[-1].header("authorization") == f"Bearer {PROVIDERS_KEY}"
    (row,) = [r for r in keyed.journal() if r["project"] == "build"]
    assert row["key"].startswith("key_")
    before = len(recorder.requests)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(keyed, first, "o3-pro")
    assert "o3-pro" in str(caught.value)
    assert len(recorder.requests) == before
    listed = tokenweir("keys", "list", proxy=keyed)
    assert "build team" in listed
    assert first not in listed
    assert row["key"] in listed
    # A new secret, and the old one for a while; then only the new one.
    second = secret_of(tokenweir("keys", "rotate", "ci", "--overlap-seconds", "60", proxy=keyed))
    ask(keyed, first)
    ask(keyed, second)
    third = secret_of(tokenweir("keys", "rotate", "ci", "--overlap-seconds", "0", proxy=keyed))
    with pytest.raises(openai.AuthenticationError):
        ask(keyed, second)
    ask(keyed, third)
    assert {r["key"] for r in keyed.journal() if r["project"] == "build"} == {row["key"]}
    tokenweir("keys", "disable", "ci", "--why", "leaked", proxy=keyed)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(keyed, third)
    assert "leaked" in str(refused.value)
    tokenweir("keys", "enable", "ci", proxy=keyed)
    ask(keyed, third)
    tokenweir("keys", "expire", "ci", proxy=keyed)
    with pytest.raises((openai.AuthenticationError, openai.PermissionDeniedError)) as ended:
        ask(keyed, third)
    assert "expired" in str(ended.value)
    nothing_shows(keyed, first, second, third)


def nothing_shows(proxy: Proxy, *secrets: str) -> None:
    """No secret is in a log, a metric, the journal, the store, the audit trail or a page."""
    statuses(proxy, "passing")
    texts = {path: proxy.text(path) for path in ("/metrics", "/api/v1/keys", "/api/v1/audit")}
    told = {path: text.encode() for path, text in texts.items()}
    for folder in (proxy.data_dir, proxy.log.parent):
        for file in folder.rglob("*"):
            if file.is_file() and file != proxy.config:
                told[str(file)] = file.read_bytes()
    assert any("appendonly" in name for name in told), "the store's file was looked at"
    for name, data in told.items():
        for secret in (*secrets, PROVIDERS_KEY, PASSED_KEY):
            assert secret.encode() not in data, f"a secret is in {name}"


def test_check_tells_every_fault_at_once(tmp_path: Path) -> None:
    file = tmp_path / "tokenweir.yaml"
    file.write_text(
        "server:\n  prot: 1\nlimits:\n  - name: y\n    per: houre\n    requests: 3\n"
        "budgets:\n  - {name: b, amount_usd: -1}\npolicies:\n  rules:\n    - name: p\n"
        "      ladder: [{action: webhook, webhook: nobody}]\n"
    )
    lines = tokenweir("check", str(file), fails=True).splitlines()
    assert lines[-1] == "3 faults"
    assert lines[0] == f"{file}:2:3: server.prot: unknown key; did you mean `port`?"
    assert lines[1].startswith(f"{file}:5:5: limits[0].per: ")
    assert lines[1].endswith("did you mean `hour`?")
    assert lines[2].startswith(f"{file}:8:15: budgets[0].amount_usd: ")
    file.write_text(file.read_text().replace("prot", "port").replace("houre", "hour"))
    file.write_text(file.read_text().replace("-1", "1"))
    (line, _) = tokenweir("check", str(file), fails=True).splitlines()
    assert line.startswith(f"{file}:12:")
    assert "must name a receiver of type webhook" in line
    assert "no fault" in tokenweir("check", "config.example.yaml")
    schema = json.loads(tokenweir("check", "--schema"))
    assert schema["properties"]["budgets"]["type"] == "array"
