"""What providers say of their own limits, seen by SDKs and told in /metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from tests.rig import (
    Proxy,
    Upstream,
    chat_answer,
    json_answer,
    read_request,
    running_proxy,
    wait_for,
)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def _answer(path: str) -> bytes:
    if path.endswith("/chat/completions"):
        return json_answer(
            chat_answer(),
            x_ratelimit_limit_requests="500",
            x_ratelimit_remaining_requests="499",
            x_ratelimit_reset_requests="2m0s",
            x_ratelimit_remaining_tokens="29000",
            x_ratelimit_reset_tokens="120ms",
        )
    if "messages" in path:
        error = {"type": "rate_limit_error", "message": "too many"}
        return json_answer(
            {"type": "error", "error": error},
            429,
            retry_after="41",
            anthropic_ratelimit_input_tokens_limit="80000",
            anthropic_ratelimit_input_tokens_remaining="0",
            anthropic_ratelimit_input_tokens_reset=_when(90),
        )
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "33s"}
    details = {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [delay]}
    return json_answer({"error": details}, 429)


async def _provider(reader: Any, writer: Any) -> None:
    while (request := await read_request(reader)) is not None:
        writer.write(_answer(request.line.split(" ")[1].partition("?")[0]))
        await writer.drain()


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Upstream(_provider) as upstream:
        upstreams = {
            name: {"base_url": upstream.url, "wire": name, "provider": name}
            for name in ("openai", "anthropic", "gemini")
        }
        folder = tmp_path_factory.mktemp("limits")
        with running_proxy(folder, {"upstreams": upstreams, "mode": "observe"}) as proxy:
            yield proxy


def _metric(proxy: Proxy, name: str, **labels: str) -> float:
    """The one value of a metric with these labels."""

    def look() -> list[str]:
        lines = proxy.text("/metrics").splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return [x for x in lines if x.startswith(name + "{") and all(w in x for w in wanted)]

    found = wait_for(look, 30, f"{name} {labels}")
    assert len(found) == 1
    assert re.search(r'key="key_[0-9a-f]{12}"', found[0])
    return float(found[0].rpartition(" ")[2])


_REMAINING = "tokenweir_upstream_ratelimit_remaining"
_RESET = "tokenweir_upstream_ratelimit_reset_timestamp_seconds"
_RETRY = "tokenweir_upstream_retry_after_timestamp_seconds"


def test_remaining_and_reset_of_openai(between: Proxy) -> None:
    began = time.time()
    client = openai.OpenAI(base_url=f"{between.url}/openai/v1", api_key="sk-l", max_retries=0)
    messages: Any = [{"role": "user", "content": "x"}]
    raw = client.chat.completions.with_raw_response.create(model="m", messages=messages)
    assert raw.headers["x-ratelimit-remaining-requests"] == "499"
    assert _metric(between, _REMAINING, gen_ai_provider_name="openai", limit="requests") == 499
    assert _metric(between, _REMAINING, gen_ai_provider_name="openai", limit="tokens") == 29_000
    reset = _metric(between, _RESET, gen_ai_provider_name="openai", limit="requests")
    assert began + 119 < reset < time.time() + 121


def test_a_429_of_anthropic(between: Proxy) -> None:
    began = time.time()
    client = anthropic.Anthropic(
        base_url=f"{between.url}/anthropic", api_key="sk-ant-l", max_retries=0
    )
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(model="m", max_tokens=3, messages=[{"role": "user", "content": "x"}])
    assert caught.value.response.headers["retry-after"] == "41"
    assert _metric(between, _REMAINING, gen_ai_provider_name="anthropic", limit="input_tokens") == 0
    reset = _metric(between, _RESET, gen_ai_provider_name="anthropic", limit="input_tokens")
    assert began + 88 < reset < time.time() + 91
    until = _metric(between, _RETRY, gen_ai_provider_name="anthropic")
    assert began + 40 < until < time.time() + 42


def test_geminis_delay_that_stands_in_the_body_alone(between: Proxy) -> None:
    began = time.time()
    options = genai_types.HttpOptions(base_url=f"{between.url}/gemini", api_version="v1beta")
    client = genai.Client(api_key="AIzaSyLimits", http_options=options)
    with pytest.raises(genai_errors.ClientError):
        client.models.generate_content(model="gemini-2.5-flash", contents="x")
    until = _metric(between, _RETRY, gen_ai_provider_name="gemini")
    assert began + 32 < until < time.time() + 34
    for path in [between.log, *between.data_dir.rglob("*")]:
        if path.is_file():
            assert b"AIzaSyLimits" not in path.read_bytes(), path
