"""Where each vendor's credential stands: passed as it came, swapped for ours, written nowhere."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from google import genai
from google.genai import types as genai_types

from tests.rig import (
    Proxy,
    Received,
    Upstream,
    chat_answer,
    json_answer,
    read_request,
    running_proxy,
    wait_for,
)

_THEIRS = "theirs-0123456789abcdef"
_OWN = "own-provider-key-abcdef"
_GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "Rhine"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7},
    "modelVersion": "gemini-2.5-flash",
}


class Provider:
    """Answers as Azure and Gemini do, and keeps what it was sent."""

    def __init__(self) -> None:
        self.seen: list[Received] = []

    async def __call__(self, reader: Any, writer: Any) -> None:
        while (request := await read_request(reader)) is not None:
            self.seen.append(request)
            gemini = ":generateContent" in request.line
            writer.write(json_answer(_GEMINI if gemini else chat_answer(model="gpt-4o-2024-08-06")))
            await writer.drain()


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


@pytest.fixture(scope="module")
def between(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Upstream(provider) as upstream:
        upstreams = {
            "azure": {"base_url": upstream.url, "wire": "azure", "provider": "azure_openai"},
            "gemini": {"base_url": upstream.url, "wire": "gemini", "provider": "gemini"},
        }
        for settings in upstreams.values():
            settings["api_key"] = _OWN
        folder = tmp_path_factory.mktemp("credentials")
        with running_proxy(folder, {"upstreams": upstreams, "mode": "observe"}) as proxy:
            yield proxy


@pytest.fixture(scope="module")
def virtual(between: Proxy) -> str:
    """A key that the proxy issued."""
    return str(between.api("/api/v1/keys", "POST", {"name": "research"})["secret"])


def _row(proxy: Proxy, agent: str) -> dict[str, Any]:
    return dict(wait_for(lambda: [r for r in proxy.journal() if r["agent"] == agent], 30, agent)[0])


@pytest.mark.parametrize("issued", [False, True], ids=["passed", "swapped"])
def test_azures_api_key(between: Proxy, provider: Provider, virtual: str, issued: bool) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=f"{between.url}/@azure-{issued}/azure",
        api_key=virtual if issued else _THEIRS,
        api_version="2024-10-21",
        max_retries=0,
    )
    answer = client.chat.completions.create(
        model="my-deployment", messages=[{"role": "user", "content": "x"}]
    )
    assert answer.choices[0].message.content == "Hello."
    request = provider.seen[-1]
    assert "/openai/deployments/my-deployment/chat/completions?" in request.line
    assert request.header("api-key") == (_OWN if issued else _THEIRS)
    row = _row(between, f"azure-{issued}")
    assert (row["model"], row["model_served"]) == ("my-deployment", "gpt-4o-2024-08-06")
    assert (row["input_tokens"], row["output_tokens"]) == (11, 7)
    assert row["cost_nano_usd"] == 11 * 2500 + 7 * 10_000


def _by_query(url: str, key: str) -> Any:
    request = urllib.request.Request(
        f"{url}/v1beta/models/gemini-2.5-flash:generateContent?alt=json&key={key}",
        json.dumps({"contents": [{"parts": [{"text": "x"}]}]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as found:
        return json.loads(found.read())


@pytest.mark.parametrize("issued", [False, True], ids=["passed", "swapped"])
@pytest.mark.parametrize("place", ["header", "query"])
def test_geminis_key(
    between: Proxy, provider: Provider, virtual: str, place: str, issued: bool
) -> None:
    key, agent = virtual if issued else _THEIRS, f"gemini-{place}-{issued}"
    url = f"{between.url}/@{agent}/gemini"
    if place == "header":
        options = genai_types.HttpOptions(base_url=url, api_version="v1beta")
        client = genai.Client(api_key=key, http_options=options)
        answer = client.models.generate_content(model="gemini-2.5-flash", contents="x")
        assert answer.text == "Rhine"
    else:
        assert _by_query(url, key) == _GEMINI
    seen = provider.seen[-1]
    sent = _OWN if issued else _THEIRS
    if place == "header":
        assert seen.header("x-goog-api-key") == sent
    else:
        assert seen.line.split(" ")[1].endswith(f"?alt=json&key={sent}")
    row = _row(between, agent)
    assert (row["input_tokens"], row["output_tokens"]) == (5, 2)
    assert row["key"].startswith("key_")


def test_no_key_is_written_anywhere(between: Proxy, virtual: str) -> None:
    for key in (_THEIRS, virtual):
        _by_query(f"{between.url}/@told/gemini", key)
    _row(between, "told")
    files = [between.log, *(path for path in between.data_dir.rglob("*") if path.is_file())]
    texts = [between.text("/metrics").encode(), *(path.read_bytes() for path in files)]
    for secret in (_THEIRS, _OWN, virtual):
        assert not any(secret.encode() in text for text in texts), secret
