"""The exposition: bounded, clean for promtool, mergeable, quiet on the loop."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import Distribution, Exposition, Reading, RuntimeMetrics, process_readings
from proxy.metrics_catalogue import CATALOGUE
from proxy.metrics_merge import merge_expositions


def sample_everything() -> Iterator[Reading]:
    for metric in CATALOGUE.values():
        value: float | Distribution = 2.0
        if metric.kind == "histogram":
            value = Distribution([1] * (len(metric.buckets) + 1), 3.5)
        yield Reading(metric.name, tuple(f"{name}_v" for name in metric.labels), value)


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def render(*providers) -> str:
    exposition = Exposition(providers)
    return exposition.render(exposition.snapshot())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_no_complaint() -> None:
    text = render(sample_everything)
    for name in CATALOGUE:
        assert f"# HELP {name} " in text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_histogram_buckets_are_cumulative() -> None:
    runtime = RuntimeMetrics()
    for seconds in (0.00005, 0.0003, 0.0003, 7.0):
        runtime.overhead_seconds.observe(seconds)
    seen = values(render(runtime.readings))
    name = "tokenweir_overhead_seconds_bucket"
    assert seen[(name, (("le", "5e-05"),))] == 1
    assert seen[(name, (("le", "0.0005"),))] == 3
    assert seen[(name, (("le", "+Inf"),))] == 4
    assert seen[("tokenweir_overhead_seconds_count", ())] == 4


def test_100_000_agents_are_gathered_under_other_and_nothing_is_lost() -> None:
    def calls() -> Iterator[Reading]:
        for number in range(100_000):
            yield Reading(
                "tokenweir_requests_total", ("openai", "gpt-4o", "key_1", f"a{number}", "p"), 1.0
            )

    seen = values(render(calls))
    requests = {labels: v for (name, labels), v in seen.items() if "requests" in name}
    bound = CATALOGUE["tokenweir_requests_total"].max_series
    assert len(requests) == bound + 1
    assert sum(requests.values()) == 100_000
    gathered = [v for labels, v in requests.items() if ("gen_ai_agent_name", "other") in labels]
    assert gathered == [100_000 - bound]


def test_a_label_set_once_inside_never_jumps() -> None:
    names = [f"a{number}" for number in range(1000)]

    def calls() -> Iterator[Reading]:
        for name in names:
            yield Reading("tokenweir_requests_total", ("openai", "m", "k", name, "p"), 1.0)

    exposition = Exposition([calls])
    first = values(exposition.render(exposition.snapshot()))
    names.reverse()
    assert values(exposition.render(exposition.snapshot())) == first


def test_hostile_names_stay_apart_and_cannot_break_a_line() -> None:
    def calls() -> Iterator[Reading]:
        for agent, project in (("a_b", "c"), ("a", "b_c"), ('x"}\n# TYPE evil counter', "\x1b[2J")):
            yield Reading("tokenweir_requests_total", ("openai", "m", "k", agent, project), 1.0)

    text = render(calls)
    assert len([line for line in text.splitlines() if line.startswith("tokenweir_")]) == 3
    assert "\x1b" not in text
    assert "\n# TYPE evil" not in text
    assert len(values(text)) == 3


def test_a_credential_as_a_label_is_masked() -> None:
    def calls() -> Iterator[Reading]:
        yield Reading(
            "tokenweir_requests_total", ("openai", "m", "k", "sk-proj-abcdefgh12345678", ""), 1.0
        )

    assert "abcdefgh12345678" not in render(calls)


def test_merge_sums_counters_and_keeps_maxima_and_minima() -> None:
    text = render(sample_everything)
    merged = values(merge_expositions([text, text, text]))
    alone = values(text)
    assert merged.keys() == alone.keys()
    for (name, labels), value in alone.items():
        family = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        metric = CATALOGUE.get(name) or CATALOGUE[family]
        times = 3 if metric.merge == "sum" else 1
        assert merged[(name, labels)] == times * value, name


def test_merge_min_says_down_when_one_worker_is_down() -> None:
    texts = [
        render(lambda up=up: [Reading("tokenweir_store_up", (), up)]) for up in (1.0, 0.0, 1.0)
    ]
    assert values(merge_expositions(texts))[("tokenweir_store_up", ())] == 0.0


def test_a_provider_that_raises_leaves_the_others() -> None:
    def broken() -> Iterator[Reading]:
        raise RuntimeError("sk-proj-not-for-anyone-0123456789")
        yield

    text = render(broken, process_readings("1.2.3"))
    assert 'version="1.2.3"' in text


async def test_a_large_scrape_does_not_hold_the_loop() -> None:
    def calls() -> Iterator[Reading]:
        for number in range(400):
            labels = ("openai", f"m{number % 20}", "k", f"agent {number}", "p")
            for name in ("tokenweir_requests_total", "tokenweir_cost_usd_total"):
                yield Reading(name, labels, 1.0)
            if number < 100:
                counts = Distribution([1] * 15, 2.0)
                name = "tokenweir_request_duration_seconds"
                yield Reading(name, ("openai", f"m{number}"), counts)

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    text = await Exposition([calls]).scrape()
    ticking.cancel()
    assert len(text.splitlines()) > 2000
    # Rendered on the loop, the scrape would have let it turn only once or twice.
    assert ticks > 20
