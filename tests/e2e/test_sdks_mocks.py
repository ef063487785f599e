"""Official SDKs against several servers: the same with the proxy as without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.sdks import ASKING, WEATHER
from tests.rig import Proxy, running_proxy, wait_for

#: Where each SDK's calls begin at each server, without the proxy.
_BASES = {
    "aimock": {"openai": "/v1", "anthropic": "", "gemini": "", "mistral": ""},
    "llmock": {"openai": "/v1", "anthropic": "/anthropic", "gemini": "/gemini"}
    | {"mistral": "/mistral"},
    "llamacpp": {"openai": "/v1", "anthropic": "", "mistral": ""},
}
_MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-sonnet-4-6",
    "gemini": "gemini-2.5-flash",
    "mistral": "mistral-small-latest",
}
_CASES = [
    (server, sdk)
    for server, bases in _BASES.items()
    for sdk, (_, wire) in ASKING.items()
    if wire in bases
]


@pytest.fixture(scope="module")
def servers(aimock: str, llmock_url: str, llm: str) -> dict[str, str]:
    """The servers' addresses."""
    return {"aimock": aimock, "llmock": llmock_url, "llamacpp": llm}


@pytest.fixture(scope="module")
def between(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with an upstream for every server and SDK."""
    upstreams = {
        f"{server}-{wire}": {"base_url": servers[server] + path, "wire": wire, "provider": wire}
        for server, bases in _BASES.items()
        for wire, path in bases.items()
    }
    folder = tmp_path_factory.mktemp("between")
    own = {"provider": "llmock-openai", "model": "gpt-4o", "prices": {"input": 1000, "output": 0}}
    settings = {"upstreams": upstreams, "mode": "observe", "pricing": {"overrides": [own]}}
    with running_proxy(folder, settings) as proxy:
        yield proxy


def _row(proxy: Proxy, agent: str) -> dict[str, Any]:
    rows = wait_for(
        lambda: [r for r in proxy.journal() if r["agent"] == agent], 30, f"a call of {agent}"
    )
    assert len(rows) == 1
    return dict(rows[0])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("server", "sdk"), _CASES)
def test_an_sdk_sees_no_difference(
    between: Proxy, servers: dict[str, str], server: str, sdk: str, stream: bool
) -> None:
    ask, wire = ASKING[sdk]
    model = "tiny" if server == "llamacpp" else _MODELS[wire]
    agent = f"{server}-{sdk}-{stream}"
    base = servers[server] + _BASES[server][wire]
    ask(base, model, stream=stream)  # llama.cpp keeps the prompt, and says so from then on
    direct = ask(base, model, stream=stream)
    passed = ask(f"{between.url}/@{agent}/{server}-{wire}", model, stream=stream)
    assert passed.shown == direct.shown
    row = _row(between, agent)
    assert (row["provider"], row["model"], row["status"]) == (wire, model, 200)
    assert row["stream"] is stream
    assert row["error_type"] is None
    assert row["finish_reasons"]
    assert row["cost_nano_usd"] > 0
    if sdk == "mistral_chat" and stream:
        # These servers stream as OpenAI does, and tell their usage only where asked.
        assert (passed.input_tokens, row["usage_source"]) == (None, "estimated")
        return
    assert row["usage_source"] == "reported"
    assert row["input_tokens"] == passed.input_tokens
    assert row["output_tokens"] == passed.output_tokens


@pytest.mark.parametrize(
    ("sdk", "stream"),
    # Mistral's SDK itself refuses the pieces of a tool call that aimock streams.
    [(s, stream) for s in ASKING for stream in (False, True) if (s, stream) != ("mistral_chat", 1)],
)
def test_a_tool_call_comes_through(
    between: Proxy, servers: dict[str, str], sdk: str, stream: bool
) -> None:
    ask, wire = ASKING[sdk]
    agent = f"tool-{sdk}-{stream}"
    base = servers["aimock"] + _BASES["aimock"][wire]
    direct = ask(base, _MODELS[wire], stream=stream, ask=WEATHER)
    passed = ask(f"{between.url}/@{agent}/aimock-{wire}", _MODELS[wire], stream=stream, ask=WEATHER)
    assert passed.shown == direct.shown
    assert passed.tools == ("get_weather",)
    row = _row(between, agent)
    assert (row["input_tokens"], row["output_tokens"]) == (31, 17)
    assert row["finish_reasons"]


def test_an_own_price_holds_for_its_upstream_alone(between: Proxy) -> None:
    ask, _ = ASKING["openai_chat"]
    costs = []
    for upstream in ("llmock-openai", "aimock-openai"):
        seen = ask(f"{between.url}/@own-{upstream}/{upstream}", "gpt-4o", stream=False)
        costs.append((_row(between, f"own-{upstream}")["cost_nano_usd"], seen.input_tokens))
    assert costs[0][0] == costs[0][1] * 1_000_000
    assert costs[1][0] < costs[1][1] * 100_000
