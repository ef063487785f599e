"""Limits and budgets on a running proxy: what a caller is told, where an endless answer ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.families import Families, upstreams
from tests.rig import Proxy, Upstream, running_proxy, wait_for

LIMITS = [
    {"name": "few", "by": ["agent"], "match": {"agent": ["few"]}, "requests": 2, "per": "day"},
    {"name": "one-call", "match": {"agent": ["caller"]}, "cost_per_call_usd": 0.0005},
    {
        "name": "one-run",
        "by": ["session"],
        "match": {"agent": ["runner"]},
        "cost_usd": 0.004,
        "per": "session",
    },
]
BUDGETS = [{"name": "small", "amount_usd": 0.004, "per": "day", "match": {"agent": ["spender"]}}]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Upstream(Families()) as upstream:
        settings = {
            "upstreams": upstreams(upstream.url),
            "limits": LIMITS,
            "budgets": BUDGETS,
            "server": {"response_headers": True},
        }
        with running_proxy(tmp_path_factory.mktemp("limits"), settings) as proxy:
            yield proxy


def client(proxy: Proxy, agent: str, **headers: str) -> openai.OpenAI:
    base = f"{proxy.url}/@{agent}/v1"
    return openai.OpenAI(base_url=base, api_key="sk-x", max_retries=0, default_headers=headers)


MESSAGES: list[Any] = [{"role": "user", "content": "Name three rivers."}]


def test_a_refusal_names_limit_spend_and_reset(limited: Proxy) -> None:
    ask = client(limited, "few").chat.completions.with_raw_response.create
    for _ in range(2):
        answer = ask(model="gpt-5", messages=MESSAGES, max_tokens=5)
        assert answer.headers["x-tokenweir-request-id"]
        assert float(answer.headers["x-tokenweir-cost-usd"]) > 0
    with pytest.raises(openai.RateLimitError) as caught:
        ask(model="gpt-5", messages=MESSAGES, max_tokens=5)
    headers, body = caught.value.response.headers, json.loads(caught.value.response.text)
    assert headers["x-tokenweir-decision"] == "block"
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert int(headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 86_400
    told = body["error"]["tokenweir"]
    assert (told["scope"], told["rule"], told["limit"], told["spent"]) == (
        "agent few",
        "few",
        "2 requests per day",
        "2 requests",
    )

    def incident() -> list[dict[str, Any]]:
        rows = limited.api("/api/v1/incidents?state=all")["incidents"]
        return [r for r in rows if r["detail"].get("rule") == "few"]

    wait_for(incident, 30, "the incident of the limit")


@pytest.mark.parametrize(
    ("agent", "rule"), [("caller", "one-call"), ("runner", "one-run"), ("spender", "small")]
)
def test_an_endless_answer_is_cut_at_its_limit(limited: Proxy, agent: str, rule: str) -> None:
    headers = {"x-tokenweir-session": "run-1"} if agent == "runner" else {}
    stream = client(limited, agent, **headers).chat.completions.create(
        model="gpt-4o-mini", messages=MESSAGES, stream=True
    )
    with pytest.raises(openai.APIError) as caught:
        for _ in stream:
            pass
    assert rule in str(caught.value)
    (row,) = wait_for(
        lambda: [r for r in limited.journal() if r["agent"] == agent], 30, "the cut call"
    )
    assert row["error_type"] == "cut"
    limit = {"caller": 500_000, "runner": 4_000_000, "spender": 4_000_000}[agent]
    # Streams are read in blocks of 16 KiB, which hold many words here.
    assert 0 < row["cost_nano_usd"] < limit + 1_100_000
