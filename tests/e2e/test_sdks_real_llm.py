"""The official SDKs against a real LLM server: the same with the proxy as without it."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.rig import Proxy, wait_for

ASK: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Name three rivers."}],
    "max_tokens": 12,
    "temperature": 0,
    "seed": 7,
}


def client(url: str, agent: str = "") -> openai.OpenAI:
    base = f"{url}/@{agent}/v1" if agent else f"{url}/v1"
    return openai.OpenAI(base_url=base, api_key="sk-e2e", max_retries=0)


def claude(url: str, agent: str = "") -> anthropic.Anthropic:
    base = f"{url}/@{agent}" if agent else url
    return anthropic.Anthropic(base_url=base, api_key="sk-e2e", max_retries=0)


def recorded(proxy: Proxy, agent: str) -> dict[str, Any]:
    """The one observation of an agent."""
    rows = wait_for(
        lambda: [r for r in proxy.journal() if r["agent"] == agent], what=f"a call of {agent}"
    )
    assert len(rows) == 1
    return dict(rows[0])


def test_openai_chat(llm: str, llm_proxy: Proxy) -> None:
    direct = client(llm).chat.completions.create(**ASK)
    passed = client(llm_proxy.url, "chat-json").chat.completions.create(**ASK)
    assert passed.choices[0].message.content == direct.choices[0].message.content
    assert passed.usage is not None
    row = recorded(llm_proxy, "chat-json")
    assert row["input_tokens"] == passed.usage.prompt_tokens
    assert row["output_tokens"] == passed.usage.completion_tokens
    assert row["usage_source"] == "reported"
    assert row["endpoint"] == "chat_completions"
    assert row["finish_reasons"] == [passed.choices[0].finish_reason]
    assert row["cost_nano_usd"] > 0


@pytest.mark.parametrize("asks_for_usage", [True, False])
def test_openai_chat_stream(llm: str, llm_proxy: Proxy, asks_for_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asks_for_usage else {}
    agent = f"chat-stream-{asks_for_usage}"
    direct = list(client(llm).chat.completions.create(**ASK, stream=True, **options))
    passed = list(
        client(llm_proxy.url, agent).chat.completions.create(**ASK, stream=True, **options)
    )

    def words(chunks: list[Any]) -> str:
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

    assert words(passed) == words(direct)
    assert [bool(c.choices) for c in passed] == [bool(c.choices) for c in direct]
    assert [c.usage is not None for c in passed] == [c.usage is not None for c in direct]
    row = recorded(llm_proxy, agent)
    whole = client(llm).chat.completions.create(**ASK)
    assert whole.usage is not None
    assert row["input_tokens"] == whole.usage.prompt_tokens
    assert row["output_tokens"] == whole.usage.completion_tokens
    assert row["usage_source"] == "reported"
    assert row["stream"] is True
    assert row["ttft_seconds"] <= row["latency_seconds"]


def test_openai_responses(llm: str, llm_proxy: Proxy) -> None:
    ask: dict[str, Any] = {
        "model": "tiny",
        "input": "Name three rivers.",
        "max_output_tokens": 12,
        "temperature": 0,
    }
    direct = client(llm).responses.create(**ask)
    passed = client(llm_proxy.url, "responses").responses.create(**ask)
    assert passed.output_text == direct.output_text
    assert passed.usage is not None
    row = recorded(llm_proxy, "responses")
    assert row["endpoint"] == "responses"
    assert row["input_tokens"] == passed.usage.input_tokens
    assert row["output_tokens"] == passed.usage.output_tokens


def test_openai_responses_stream(llm_proxy: Proxy) -> None:
    events = list(
        client(llm_proxy.url, "responses-stream").responses.create(
            model="tiny", input="Name three rivers.", max_output_tokens=12, stream=True
        )
    )
    done = events[-1]
    assert done.type == "response.completed"
    assert done.response.usage is not None
    row = recorded(llm_proxy, "responses-stream")
    assert row["input_tokens"] == done.response.usage.input_tokens
    assert row["output_tokens"] == done.response.usage.output_tokens


def test_anthropic_messages(llm: str, llm_proxy: Proxy) -> None:
    ask: dict[str, Any] = {
        "model": "tiny",
        "messages": ASK["messages"],
        "max_tokens": 12,
        "extra_body": {"temperature": 0, "seed": 7},
    }
    direct = claude(llm).messages.create(**ask)
    passed = claude(llm_proxy.url, "claude-json").messages.create(**ask)
    assert [b.text for b in passed.content] == [b.text for b in direct.content]  # type: ignore[union-attr]
    row = recorded(llm_proxy, "claude-json")
    assert row["endpoint"] == "messages"
    usage = passed.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert row["input_tokens"] == usage.input_tokens + cached
    assert row["output_tokens"] == usage.output_tokens
    assert row["finish_reasons"] == [passed.stop_reason]


def test_anthropic_stream(llm_proxy: Proxy) -> None:
    # Not random: where the first token is no whole character (one call of six), this server
    # leaves out message_start, with or without a proxy, and the SDK has no message then.
    with claude(llm_proxy.url, "claude-stream").messages.stream(
        model="tiny",
        messages=ASK["messages"],
        max_tokens=12,
        extra_body={"temperature": 0, "seed": 7},
    ) as stream:
        final = stream.get_final_message()
    row = recorded(llm_proxy, "claude-stream")
    assert row["output_tokens"] == final.usage.output_tokens
    assert row["stream"] is True


def test_upstreams_by_name_and_unknown_paths(llm: str, llm_proxy: Proxy) -> None:
    named = openai.OpenAI(base_url=f"{llm_proxy.url}/local", api_key="sk-e2e", max_retries=0)
    assert named.models.list().data[0].id == client(llm).models.list().data[0].id
    assert named.chat.completions.create(**ASK).choices[0].message.content is not None
    with pytest.raises(openai.NotFoundError):
        client(llm_proxy.url).get("/no/such/path", cast_to=object)


def test_embeddings_errors_pass_as_they_are(llm: str, llm_proxy: Proxy) -> None:
    messages = []
    for url in (llm, llm_proxy.url):
        with pytest.raises(openai.APIStatusError) as caught:
            client(url).embeddings.create(model="tiny", input="river")
        messages.append((caught.value.status_code, caught.value.body))
    assert messages[0] == messages[1]
