"""Hosts and paths: whose call it is, and what."""

from __future__ import annotations

import pytest

from proxy.providers import provider_of, recognise


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("api.openai.com:443", "openai"),
        ("API.OpenAI.com.", "openai"),
        ("my-res.openai.azure.com", "azure_openai"),
        ("my-res.services.ai.azure.com", "azure_ai"),
        ("europe-west4-aiplatform.googleapis.com", "vertex"),
        ("bedrock-runtime.eu-central-1.amazonaws.com", "bedrock"),
        ("bedrock-mantle.us-east-1.api.aws", "bedrock"),
        ("bedrock-agent-runtime.us-east-1.amazonaws.com", "bedrock_agents"),
        ("router.huggingface.co", "huggingface"),
        ("localhost:11434", "ollama"),
        ("[::1]:8000", "vllm"),
        ("api.openai.com.evil.test", "unknown"),
        ("openai.com", "unknown"),
        ("evilapi.openai.com", "unknown"),
        ("", "unknown"),
    ],
)
def test_hosts(host: str, provider: str) -> None:
    assert provider_of(host) == provider


@pytest.mark.parametrize(
    ("provider", "method", "path", "wire", "name", "metered"),
    [
        ("openai", "POST", "/v1/chat/completions", "openai", "chat_completions", True),
        ("groq", "POST", "/chat/completions", "openai", "chat_completions", True),
        ("openai", "GET", "/v1/chat/completions/x", "openai", "chat_completions_item", False),
        ("openai", "POST", "/v1/responses", "responses", "responses", True),
        ("openai", "GET", "/v1/responses", "responses", "responses", True),
        ("openai", "GET", "/v1/responses/resp_1", "responses", "responses_item", False),
        ("openai", "POST", "/v1/responses/input_tokens", "responses", "count_tokens", False),
        ("openai", "GET", "/v1/models", "openai", "models", False),
        ("openai", "POST", "/v1/files", "openai", "files", False),
        ("openai", "POST", "/v1/threads/t/messages", "openai", "assistants", True),
        ("openai", "GET", "/v1/realtime", "openai", "realtime_ws", True),
        ("anthropic", "POST", "/v1/messages", "anthropic", "messages", True),
        ("azure_ai", "POST", "/anthropic/v1/messages", "anthropic", "messages", True),
        ("ollama", "POST", "/v1/messages", "anthropic", "messages", True),
        ("anthropic", "POST", "/v1/messages/count_tokens", "anthropic", "count_tokens", False),
        ("bedrock", "POST", "/openai/v1/chat/completions", "openai", "chat_completions", True),
        (
            "vertex",
            "POST",
            "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
            "openai",
            "chat_completions",
            True,
        ),
        ("mistral", "POST", "/v1/fim/completions", "mistral", "fim_completions", True),
        (
            "vertex",
            "POST",
            "/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict",
            "openai",
            "chat_completions",
            True,
        ),
        ("huggingface", "POST", "/generate_stream", "hosted", "generate", True),
        ("llamacpp", "POST", "/completion", "hosted", "completion", True),
        ("cohere", "POST", "/v1/chat", "cohere", "cohere_chat_v1", True),
        ("writer", "POST", "/v1/chat", "openai", "chat_completions", True),
        ("openai", "POST", "/v1/chat", "", "unknown", True),
        ("gemini", "POST", "/v1beta/cachedContents", "gemini", "cached_contents", False),
        ("openai", "POST", "/v1/nothing/known", "", "unknown", True),
    ],
)
def test_paths(provider: str, method: str, path: str, wire: str, name: str, metered: bool) -> None:
    endpoint = recognise(provider, "", method, path, "", {})
    assert (endpoint.wire, endpoint.name, endpoint.metered) == (wire or "openai", name, metered)


def test_an_unknown_path_keeps_the_upstreams_wire() -> None:
    assert recognise("x", "anthropic", "POST", "/tomorrow", "", {}).wire == "anthropic"


@pytest.mark.parametrize(
    ("path", "query", "model"),
    [
        ("/v1/realtime", "model=gpt-realtime", "gpt-realtime"),
        ("/openai/realtime", "api-version=1&deployment=my%20voice", "my voice"),
        ("/v1/realtime", "intent=transcription", None),
        ("/v1/chat/completions", "model=gpt-5", None),
    ],
)
def test_a_sessions_model_stands_in_the_query(path: str, query: str, model: str | None) -> None:
    assert recognise("openai", "openai", "GET", path, query, {}).model == model


def test_a_gemini_stream_is_an_array_unless_asked_for_events() -> None:
    path = "/v1beta/models/g:streamGenerateContent"
    assert recognise("gemini", "gemini", "POST", path, "", {}).framing == "json-array"
    assert recognise("gemini", "gemini", "POST", path, "alt=sse", {}).framing == ""
