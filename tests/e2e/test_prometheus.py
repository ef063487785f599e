"""The exposition, as Prometheus itself sees it."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from proxy.metrics_catalogue import CATALOGUE
from tests.conftest import Recorder
from tests.docs.snippets import free_ports
from tests.rig import Proxy, Upstream, running_proxy, wait_for

HOSTILE = 'a"b\\c{le="0"} 1'


def package(command: str) -> str:
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"{command} is not here: apt-get install prometheus")
    return found


def call(proxy: Proxy, agent: str, stream: bool = False, model: str = "gpt-4o-mini") -> int:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": agent}]}
    request = urllib.request.Request(
        f"{proxy.url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": "Bearer sk-prometheus",
            "Content-Type": "application/json",
            "x-tokenweir-agent": agent,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def passes(proxy: Proxy, agent: str) -> bool:
    return call(proxy, agent) == 200


@pytest.fixture(scope="module")
def scraped(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Two workers that have served plain, streamed, refused, failed and oddly named calls."""
    with Upstream(recorder) as upstream:
        settings = {
            "upstreams": {
                "openai": {"base_url": upstream.url},
                "gone": {"base_url": "http://127.0.0.1:9", "wire": "openai"},
            },
            "budgets": [{"name": "all", "amount_usd": 10, "per": "day"}],
            "limits": [{"name": "pace", "by": ["agent"], "requests": 3, "per": "minute"}],
            "server": {"workers": 2},
        }
        with running_proxy(tmp_path_factory.mktemp("scraped"), settings) as proxy:
            # Each worker fetches a share of the budget first: slow where the machine is busy.
            for number in range(8):
                wait_for(partial(passes, proxy, f"first-{number}"), 60, "a call passes")
            for agent in ("plain", HOSTILE, "ünïcode"):
                assert call(proxy, agent.encode().decode("latin-1")) == 200
                assert call(proxy, agent.encode().decode("latin-1"), stream=True) == 200
            assert [call(proxy, "greedy") for _ in range(8)].count(429) > 0
            yield proxy


def test_promtool_has_no_complaint(scraped: Proxy) -> None:
    text = scraped.text("/metrics")
    done = subprocess.run(
        [package("promtool"), "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "tokenweir_requests_total{" in text


def test_a_real_prometheus_scrapes_all_of_it(scraped: Proxy, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    target = scraped.admin.removeprefix("http://")
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: tokenweir\n"
        f"    static_configs: [{{targets: ['{target}']}}]\n"
    )
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [
            package("prometheus"),
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
    )

    def ask(path: str, **query: str) -> list:
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return []

    try:
        scrapes = 'scrape_samples_scraped{job="tokenweir"}'
        wait_for(lambda: ask("query", query=scrapes)["result"] if ask("labels") else None, 60)
        (target_state,) = ask("targets")["activeTargets"]
        assert (target_state["health"], target_state["lastError"]) == ("up", "")

        def value(query: str) -> float:
            return float(ask("query", query=query)["result"][0]["value"][1])

        wait_for(
            lambda: value("sum(tokenweir_requests_total)") == scraped.usage()[0]["requests"],
            60,
            "all are counted",
        )
        used = scraped.usage()[0]
        assert value("sum(tokenweir_cost_usd_total) * 1e9") == pytest.approx(
            used["cost_nano_usd"], rel=1e-9
        )
        agents = {
            row["metric"]["gen_ai_agent_name"]
            for row in ask("query", query="tokenweir_requests_total")["result"]
        }
        assert {"plain", "greedy", HOSTILE} <= agents
        known = set(ask("label/__name__/values"))
        ours = {name for name in known if name.startswith("tokenweir_")}
        ends = ("_bucket", "_sum", "_count")
        bare = {n.removesuffix(e) for n in ours for e in ends if n.endswith(e)} | ours
        assert ours <= {n for n in bare if n in CATALOGUE} | {
            f"{n}{e}" for n in CATALOGUE for e in ends
        }
    finally:
        process.terminate()
        process.wait(30)
        log.close()
