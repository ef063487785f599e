"""A fire drill over live traffic finds its incident, and leaves no trace in the proxy."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from typer.testing import CliRunner

from proxy.cli import app
from tests.conftest import Recorder
from tests.rig import TOKEN, Proxy, Raw, Upstream, running_proxy, wait_for

SCENARIO = """
incidents:
  - {kind: loop, minutes: 2, calls_per_second: 40}
  - {kind: storm, minutes: 2, calls_per_second: 40, agent: triage}
"""


def keep_calling(proxy: Proxy, stop: threading.Event, done: list[int]) -> None:
    while not stop.wait(0.1):
        text = f"question {done[0]}"
        message = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
        body = json.dumps(message)
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-x\r\n"
            "x-tokenweir-agent: triage\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        with Raw(proxy.port) as raw:
            assert b" 200 " in raw.send(head.encode()).all()
        done[0] += 1


def test_incidents_are_found_in_live_traffic_that_goes_on_untouched(tmp_path: Path) -> None:
    scenario = tmp_path / "drill.yaml"
    scenario.write_text(SCENARIO)
    with Upstream(Recorder()) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}}
        with running_proxy(tmp_path, settings) as proxy:
            stop, done = threading.Event(), [0]
            caller = threading.Thread(target=keep_calling, args=(proxy, stop, done))
            caller.start()
            try:
                found = CliRunner().invoke(
                    app,
                    ["simulate", "--live", "--scenario", str(scenario), "--json",
                     "--admin-url", proxy.admin, "--data-dir", str(proxy.data_dir)],
                    env={"TOKENWEIR_ADMIN_TOKEN": TOKEN},
                )  # fmt: skip
            finally:
                stop.set()
                caller.join(30)
            assert found.exit_code == 0, found.output
            lines = [line for line in found.stdout.splitlines() if "{" in line]
            assert len(lines) == 2, (found.output, proxy.log.read_text()[-3000:])
            loop, storm = map(json.loads, lines)
            assert (loop["kind"], loop["agent"], loop["signal"]) == ("loop", "triage", "agent_loop")
            assert loop["action"] in ("throttle", "block")
            assert 0 <= loop["detected_seconds"] <= loop["stopped_seconds"] < 120
            assert 0 < loop["detected_cost_nano_usd"] <= loop["cost_nano_usd"]
            assert storm["signal"] in ("retry_storm", "error_rate", "volume_surge")

            def counted() -> int:
                rows = proxy.usage("agent")
                return sum(row["requests"] for row in rows if row["value"] == "triage")

            wait_for(lambda: counted() == done[0], 60, "the caller's calls and no others")
            assert len(proxy.journal()) == done[0]
            assert proxy.api("/api/v1/actions")["actions"] == []
            assert proxy.api("/api/v1/incidents?state=all")["incidents"] == []
            assert proxy.api("/api/v1/drill")["state"] == "done"


def test_a_drill_without_traffic_waits_and_can_be_ended(tmp_path: Path) -> None:
    with running_proxy(tmp_path, {}) as proxy:
        plan = {"kind": "loop"}
        assert proxy.api("/api/v1/drill", "POST", plan)["state"] == "waiting"
        assert proxy.api("/api/v1/drill", "DELETE") == {"state": "done", "found": None}
        assert proxy.api("/api/v1/drill", "POST", plan)["state"] == "waiting"
