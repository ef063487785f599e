"""Two replicas, a real Prometheus with our rules, a real Alertmanager: alerts that arrive."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import Recorder
from tests.docs.snippets import free_ports
from tests.e2e.test_prometheus import call, package
from tests.rig import ROOT, Proxy, Upstream, running_proxy, wait_for
from tests.unit.store.support import Server

DEPLOY = ROOT / "deploy"


@contextlib.contextmanager
def started(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def ask(port: int, path: str, **query: str) -> Any:
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def as_deployed(folder: Path, targets: list[str], alertmanager: int) -> None:
    """The compose files with this test's addresses, quicker, and rules that don't wait long."""
    scrape = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    scrape["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    scrape["rule_files"] = [str(folder / "rules.yml")]
    managers = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
    scrape["alerting"]["alertmanagers"] = managers
    scrape["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(scrape))
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    for group in rules["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "2s"
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    manager = (DEPLOY / "compose" / "alertmanager.yml").read_text()
    (folder / "alertmanager.yml").write_text(manager.replace("group_wait: 10s", "group_wait: 1s"))


def test_alerts_of_a_fleet_reach_alertmanager(recorder: Recorder, tmp_path: Path) -> None:
    programs = [package("prometheus"), package("prometheus-alertmanager")]
    prometheus, alertmanager = free_ports(2)
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Upstream(recorder))
        store = Server()
        stack.callback(store.close)
        settings = {
            "upstreams": {"openai": {"base_url": upstream.url}},
            "store": {"url": store.url},
            "budgets": [{"name": "day", "amount_usd": 0.00003, "per": "day", "mode": "observe"}],
        }
        replicas: list[Proxy] = [
            stack.enter_context(running_proxy(tmp_path / name, settings)) for name in ("a", "b")
        ]
        targets = [replica.admin.removeprefix("http://") for replica in replicas]
        as_deployed(tmp_path, targets, alertmanager)
        for n, replica in enumerate(replicas):
            for _ in range(4):
                call(replica, f"agent-{n}", model="model-without-a-price")
        stack.enter_context(
            started(
                tmp_path / "am.log", programs[1], f"--config.file={tmp_path}/alertmanager.yml",
                f"--storage.path={tmp_path}/am", f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            )
        )  # fmt: skip
        stack.enter_context(
            started(
                tmp_path / "prom.log", programs[0], f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/tsdb",
                f"--web.listen-address=127.0.0.1:{prometheus}",
            )
        )  # fmt: skip

        def up() -> set[str]:
            found = ask(prometheus, "/api/v1/query", query='up{job="tokenweir"} == 1')
            return (
                {row["metric"]["instance"] for row in found["data"]["result"]} if found else set()
            )

        wait_for(lambda: up() == set(targets), 90, "both replicas are scraped")

        def arrived() -> dict[str, dict[str, Any]]:
            found = ask(alertmanager, "/api/v2/alerts") or []
            return {one["labels"]["alertname"]: one for one in found}

        wait_for(lambda: "TokenweirBudgetNearlySpent" in arrived(), 90, "the budget's alert")
        budget = arrived()["TokenweirBudgetNearlySpent"]
        assert budget["labels"]["severity"] == "warning"
        assert budget["annotations"]["summary"].startswith("Budget day of all calls is ")
        store.kill()
        wait_for(lambda: "TokenweirStoreDown" in arrived(), 90, "the store's alert")
        os.kill(replicas[1].process.pid, signal.SIGKILL)
        wait_for(lambda: "TokenweirDown" in arrived(), 90, "the replica's alert")
        assert arrived()["TokenweirDown"]["labels"]["instance"] == targets[1]
        assert up() == {targets[0]}
