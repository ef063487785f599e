"""What a request's body says: model, limits, names, and its last turn's fingerprint."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import brotli
import pytest
import zstandard

from proxy.providers import name_turn, read_request, recognise
from proxy.providers.base import NO_FACTS, RequestFacts

KEY = b"k" * 32
CHAT = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
RESPONSES = recognise("openai", "openai", "POST", "/v1/responses", "", {})
MESSAGES = recognise("anthropic", "anthropic", "POST", "/v1/messages", "", {})
GEMINI = recognise("gemini", "gemini", "POST", "/v1beta/models/g:generateContent", "", {})
CONVERSE = recognise("bedrock", "bedrock", "POST", "/model/m/converse", "", {})


def facts(endpoint: Any, body: Any, key: bytes = KEY) -> RequestFacts:
    found = read_request(endpoint, json.dumps(body).encode(), "application/json", key)
    name_turn(found)
    assert found.turn is None  # the prompt is let go of
    return found


def _openai_tool(ident: str, result: str, arguments: str = '{"a":1,"b":2}') -> dict[str, Any]:
    call = {"id": ident, "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {
        "model": "m",
        "messages": [
            {"role": "user", "content": f"question {ident}"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": ident, "content": result},
        ],
    }


def _responses_tool(ident: str, result: str, arguments: str = '{"a":1}') -> dict[str, Any]:
    return {
        "input": [
            {"role": "user", "content": f"question {ident}"},
            {"type": "function_call", "call_id": ident, "name": "f", "arguments": arguments},
            {"type": "function_call_output", "call_id": ident, "output": result},
        ]
    }


def _anthropic_tool(ident: str, result: str, value: int = 1) -> dict[str, Any]:
    use = {"type": "tool_use", "id": ident, "name": "f", "input": {"a": value}}
    return {
        "messages": [
            {"role": "user", "content": f"question {ident}"},
            {"role": "assistant", "content": [{"type": "text", "text": "hm"}, use]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": ident, "content": result}],
            },
        ]
    }


def _gemini_tool(ident: str, result: str, value: int = 1) -> dict[str, Any]:
    return {
        "contents": [
            {"role": "user", "parts": [{"text": f"question {ident}"}]},
            {
                "role": "model",
                "parts": [{"functionCall": {"id": ident, "name": "f", "args": {"a": value}}}],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": ident, "name": "f", "response": result}}],
            },
        ]
    }


def _converse_tool(ident: str, result: str, value: int = 1) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": [{"text": f"question {ident}"}]},
            {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": ident, "name": "f", "input": {"a": value}}}],
            },
            {
                "role": "user",
                "content": [{"toolResult": {"toolUseId": ident, "content": [{"text": result}]}}],
            },
        ]
    }


@pytest.mark.parametrize(
    ("endpoint", "make"),
    [
        (CHAT, _openai_tool),
        (RESPONSES, _responses_tool),
        (MESSAGES, _anthropic_tool),
        (GEMINI, _gemini_tool),
        (CONVERSE, _converse_tool),
    ],
    ids=["chat", "responses", "messages", "gemini", "converse"],
)
def test_the_same_call_with_the_same_result_is_the_same_turn(endpoint: Any, make: Any) -> None:
    first, again = facts(endpoint, make("id1", "42")), facts(endpoint, make("id2", "42"))
    assert first.fingerprint_kind == "tool"
    assert first.fingerprint == again.fingerprint
    assert facts(endpoint, make("id1", "43")).fingerprint != first.fingerprint
    assert facts(endpoint, make("id1", "42"), b"other").fingerprint != first.fingerprint


def test_other_arguments_are_another_turn_other_spacing_is_not() -> None:
    first = facts(CHAT, _openai_tool("i", "42")).fingerprint
    assert facts(CHAT, _openai_tool("i", "42", '{ "b": 2, "a": 1 }')).fingerprint == first
    assert facts(CHAT, _openai_tool("i", "42", '{"a":1,"b":3}')).fingerprint != first


@pytest.mark.parametrize("make", [_openai_tool, _anthropic_tool, _responses_tool])
def test_a_later_user_message_is_text(make: Any) -> None:
    body = make("i", "42")
    name = "input" if "input" in body else "messages"
    body[name].append({"role": "user", "content": "thanks"})
    endpoint = {_openai_tool: CHAT, _anthropic_tool: MESSAGES, _responses_tool: RESPONSES}[make]
    assert facts(endpoint, body).fingerprint_kind == "text"


def test_only_the_last_message_counts() -> None:
    def asked(history: str, last: str) -> RequestFacts:
        messages = [{"role": "user", "content": history}, {"role": "user", "content": last}]
        return facts(CHAT, {"model": "m", "messages": messages})

    assert asked("a", "x").fingerprint == asked("b", "x").fingerprint
    assert asked("a", "x").fingerprint != asked("a", "y").fingerprint
    assert asked("a", "x").fingerprint_kind == "text"


def test_two_results_at_once() -> None:
    body = _openai_tool("i", "42")
    second = {"id": "j", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    body["messages"][1]["tool_calls"].append(second)
    one = facts(CHAT, body).fingerprint
    body["messages"].append({"role": "tool", "tool_call_id": "j", "content": "7"})
    assert facts(CHAT, body).fingerprint not in (None, one)


def test_names_limits_and_options_of_a_chat() -> None:
    found = facts(
        CHAT,
        {
            "model": "m",
            "stream": True,
            "max_tokens": 5,
            "max_completion_tokens": 7,
            "n": 3,
            "user": "u",
            "metadata": {"team": "x", "deep": {"no": 1}},
            "service_tier": "flex",
            "messages": [],
        },
    )
    assert (found.model, found.stream, found.max_output_tokens) == ("m", True, 7)
    assert (found.choices, found.user, found.service_tier) == (3, "u", "flex")
    assert dict(found.metadata) == {"team": "x"}
    assert found.include_usage is False


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"stream": True, "stream_options": {}}, False),
        ({"stream": False}, None),
        ({}, None),
    ],
)
def test_whether_usage_was_asked_for(body: dict[str, Any], asked: bool | None) -> None:
    assert facts(CHAT, {"model": "m", **body}).include_usage is asked


def test_usage_is_not_asked_for_where_that_is_no_option() -> None:
    images = recognise("openai", "openai", "POST", "/v1/images/generations", "", {})
    mistral = recognise("mistral", "mistral", "POST", "/v1/chat/completions", "", {})
    for endpoint in (images, mistral, RESPONSES, MESSAGES):
        assert facts(endpoint, {"model": "m", "stream": True}).include_usage is None


def test_claude_code_tells_its_session_in_the_user_id() -> None:
    user = "user_0123abcd_account__session_d4f1c2aa-7b1e-4c55-9d1e-0a1b2c3d4e5f"
    found = facts(MESSAGES, {"metadata": {"user_id": user}, "messages": []})
    assert found.session == "d4f1c2aa-7b1e-4c55-9d1e-0a1b2c3d4e5f"
    assert found.user == "user_0123abcd_account_"


def test_a_body_cut_short_still_tells_its_head() -> None:
    body = b'{"tools":[{"model":"no"}],"model":"yes","stream":true,"user":"u","messages":[{"role'
    found = read_request(CHAT, body, "application/json", KEY)
    assert (found.model, found.stream, found.user) == ("yes", True, "u")
    assert found.fingerprint is None
    assert found.body_bytes == len(body)


def test_forms_tell_their_model() -> None:
    body = (
        b"--b\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name=model\r\n\r\n"
        b'whisper-1\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        b"\x00\x01\r\n--b--\r\n"
    )
    endpoint = recognise("openai", "openai", "POST", "/v1/audio/transcriptions", "", {})
    assert read_request(endpoint, body, "multipart/form-data; boundary=b", KEY).model == "whisper-1"


def test_a_turn_that_breaks_the_reader_has_no_fingerprint() -> None:
    found = RequestFacts(fingerprint_kind="text", turn=(("text", ("a", object())), "no bytes"))
    name_turn(found)
    assert (found.fingerprint, found.fingerprint_kind, found.turn) == (None, None, None)


def test_a_large_last_message_costs_a_bounded_hash() -> None:
    def huge(middle: str) -> RequestFacts:
        content = "a" * 40_000 + middle + "b" * 40_000
        return facts(CHAT, {"model": "m", "messages": [{"role": "user", "content": content}]})

    assert huge("x" * 1000).fingerprint == huge("y" * 1000).fingerprint
    assert huge("x" * 1000).fingerprint != huge("x" * 1001).fingerprint


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate"])
def test_a_compressed_request_is_read_but_not_to_be_edited(encoding: str) -> None:
    body = json.dumps(
        {"model": "gpt-5", "stream": True, "messages": [{"role": "user", "content": "x" * 999}]}
    ).encode()
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "br": brotli.compress,
        "zstd": zstandard.compress,
        "deflate": zlib.compress,
    }
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    plain = read_request(endpoint, body, "application/json", b"k")
    found = read_request(endpoint, pack[encoding](body), "application/json", b"k", encoding)
    assert plain.include_usage is False
    assert found == replace(plain, include_usage=None)
    assert read_request(endpoint, pack[encoding](body), "application/json", b"k", "new") == (
        replace(NO_FACTS, body_bytes=0)
    )


def test_a_request_that_unfolds_without_end_is_read_to_a_limit() -> None:
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    body = b'{"model":"gpt-5","messages":[' + b" " * 60_000_000
    found = read_request(endpoint, gzip.compress(body, 1), "application/json", b"k", "gzip")
    assert found.model == "gpt-5"
    assert found.body_bytes == 16_777_216
