"""WebSocket sessions of OpenAI's SDK through the proxy: the same events, and their usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.sdks import PROMPT, WEATHER, stable
from tests.rig import Proxy, running_proxy, wait_for


@pytest.fixture(scope="module")
def between(aimock: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy in front of aimock."""
    folder = tmp_path_factory.mktemp("websocket")
    upstreams = {"openai": {"base_url": f"{aimock}/v1", "provider": "openai"}}
    with running_proxy(folder, {"upstreams": upstreams, "mode": "observe"}) as proxy:
        yield proxy


def _client(url: str) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="sk-test",
        base_url=f"{url}/v1",
        websocket_base_url=f"{url}/v1".replace("http", "ws", 1),
        max_retries=0,
    )


def _responses(url: str) -> list[Any]:
    """Two responses on one connection."""
    seen: list[Any] = []
    with _client(url) as client, client.responses.connect() as connection:
        for ask in (PROMPT, WEATHER):
            connection.response.create(model="gpt-4o-mini", input=ask)
            for event in connection:
                seen.append(stable(event))
                if event.type in ("response.completed", "response.failed", "error"):
                    break
    return seen


def _realtime(url: str) -> list[Any]:
    """One turn of a realtime session, in text."""
    seen: list[Any] = []
    with _client(url) as client, client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": PROMPT}],
            }
        )
        connection.response.create()
        for event in connection:
            seen.append(_without_ids(stable(event)))
            if event.type in ("response.done", "error"):
                break
    return seen


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: _without_ids(v)
            for k, v in value.items()
            if not k.endswith("_id") and k != "expires_at"
        }
    return [_without_ids(v) for v in value] if isinstance(value, list) else value


def _row(proxy: Proxy, agent: str) -> dict[str, Any]:
    rows = wait_for(
        lambda: [r for r in proxy.journal() if r["agent"] == agent], 30, f"a session of {agent}"
    )
    assert len(rows) == 1
    return dict(rows[0])


def test_responses_over_a_websocket(between: Proxy, aimock: str) -> None:
    direct, passed = _responses(aimock), _responses(f"{between.url}/@ws-responses")
    assert passed == direct
    usages = [e["response"]["usage"] for e in passed if e["type"] == "response.completed"]
    assert len(usages) == 2
    row = _row(between, "ws-responses")
    assert row["endpoint"] == "responses"
    assert (row["status"], row["error_type"]) == (101, None)
    assert row["usage_source"] == "reported"
    assert row["input_tokens"] == sum(u["input_tokens"] for u in usages) == 62
    assert row["output_tokens"] == sum(u["output_tokens"] for u in usages) == 34
    assert row["cost_nano_usd"] > 0


def test_a_realtime_session(between: Proxy, aimock: str) -> None:
    direct, passed = _realtime(aimock), _realtime(f"{between.url}/@ws-realtime")
    assert passed == direct
    assert passed[-1]["type"] == "response.done"
    usage = passed[-1]["response"]["usage"]
    row = _row(between, "ws-realtime")
    assert (row["endpoint"], row["status"], row["error_type"]) == ("realtime_ws", 101, None)
    assert row["model"] == "gpt-realtime"
    assert row["usage_source"] == "reported"
    assert row["input_tokens"] == usage["input_tokens"]
    assert row["output_tokens"] == usage["output_tokens"]
    assert row["finish_reasons"] == ["completed"]
