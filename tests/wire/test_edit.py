"""Changing a member's bytes, and taking one chunk out: nothing else may change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.providers import UsageChunkFilter, ask_for_usage, recognise, replace_model
from proxy.providers.edit import members
from tests.wire.fixture import cut

CHAT = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})

_TEXT = st.text(max_size=8) | st.sampled_from(["model", '"', "\\", "{", "}", ",", ":", '\\"'])
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 1) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(_TEXT, _JSON, max_size=5)
_INDENTS = st.sampled_from([None, 1, 4])


@given(_OBJECTS, _INDENTS, st.booleans())
def test_members_are_those_of_json(document: dict[str, Any], indent: int | None, raw: bool) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=not raw).encode("utf-8", "replace")
    found = {
        json.loads(b'"' + m.name + b'"'): json.loads(body[m.start : m.end]) for m in members(body)
    }
    assert found == json.loads(body)


@given(_OBJECTS, _INDENTS, st.text(max_size=12))
def test_replacing_the_model_changes_only_it(
    document: dict[str, Any], indent: int | None, model: str
) -> None:
    body = json.dumps({**document, "model": "old"}, indent=indent).encode()
    path, changed = replace_model(CHAT, "/v1/chat/completions", body, model)
    assert path == "/v1/chat/completions"
    assert json.loads(changed) == {**document, "model": model.encode("utf-8", "replace").decode()}
    at = body.rindex(b'"old"')
    assert changed.startswith(body[:at])
    assert changed.endswith(body[at + 5 :])


def test_duplicate_models_are_all_replaced_and_nested_ones_none() -> None:
    body = b'{ "model" : "a",\n"tools":[{"model":"a"}], "m\\"odel":"a", "model":"a" }'
    _, changed = replace_model(CHAT, "/x", body, "b")
    assert changed == b'{ "model" : "b",\n"tools":[{"model":"a"}], "m\\"odel":"a", "model":"b" }'


def test_a_forms_model_is_replaced_before_and_after_a_large_file() -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%s\r\n'
    file = (
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.mp3"\r\n'
        b"content-type: audio/mpeg\r\n\r\n" + b"\xff\xfb" * 200_000 + b"\r\n"
    )
    for make in (lambda m: field % m + file, lambda m: file + field % m):
        body = make(b"gpt-4o-transcribe") + b"--b--\r\n"
        _, changed = replace_model(CHAT, "/x", body, "whisper-1")
        assert changed == make(b"whisper-1") + b"--b--\r\n"
    assert replace_model(CHAT, "/x", b"--no form", "m")[1] == b"--no form"


@pytest.mark.parametrize(
    ("provider", "path", "model", "expected"),
    [
        (
            "gemini",
            "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
            "gemini-2.5-flash",
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        ),
        (
            "bedrock",
            "/model/us.anthropic.claude-opus-4-1-20250805-v1%3A0/converse",
            "amazon.nova-lite-v1:0",
            "/model/amazon.nova-lite-v1%3A0/converse",
        ),
        (
            "bedrock",
            "/model/us.anthropic.claude-opus-4-1-20250805-v1:0/converse-stream",
            "m",
            "/model/m/converse-stream",
        ),
        (
            "azure_openai",
            "/openai/deployments/big/chat/completions",
            "small",
            "/openai/deployments/small/chat/completions",
        ),
        (
            "vertex",
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-a@20250929:rawPredict",
            "claude-b@20251001",
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-b@20251001:rawPredict",
        ),
    ],
)
def test_the_model_in_a_path(provider: str, path: str, model: str, expected: str) -> None:
    endpoint = recognise(provider, "", "POST", path, "", {})
    assert endpoint.model is not None
    body = b'{"model": "kept"}'
    assert replace_model(endpoint, path, body, model) == (expected, body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}', b'{"stream_options":{"include_usage":true},"a":1}'),
        (b' {\n "a":1}', b' {"stream_options":{"include_usage":true},\n "a":1}'),
        (b'{"stream_options":null,"a":1}', b'{"stream_options":{"include_usage":true},"a":1}'),
        (b'{"stream_options":{}}', b'{"stream_options":{"include_usage":true}}'),
        (
            b'{"stream_options":{"include_usage":false}}',
            b'{"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream_options": {"include_obfuscation":false} }',
            b'{"stream_options": {"include_usage":true,"include_obfuscation":false} }',
        ),
        (
            b'{"m":{"stream_options":1}}',
            b'{"stream_options":{"include_usage":true},"m":{"stream_options":1}}',
        ),
        (b"{}", b"{}"),
        (b"[1]", b"[1]"),
        (b"", b""),
    ],
)
def test_asking_for_usage(body: bytes, expected: bytes) -> None:
    assert ask_for_usage(body) == expected


def _chunk(**members: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", **members}).encode()


USAGE = _chunk(choices=[], usage={"prompt_tokens": 1})
OTHERS = (
    _chunk(choices=[{"index": 0, "delta": {"content": '"usage" "choices":[] \n\n'}}]),
    _chunk(choices=[], prompt_filter_results=[]),
    _chunk(choices=[], usage=None),
    _chunk(choices=[{"delta": {}}], usage={"prompt_tokens": 1}),
    b": comment",
    b"event: ping\ndata: {}",
    b"data: [DONE]",
    b"",
)


@settings(max_examples=300)
@given(st.data())
def test_only_the_usage_chunk_is_taken_out(data: st.DataObject) -> None:
    gap = data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    events = data.draw(st.lists(st.sampled_from([*OTHERS, USAGE]), max_size=8))
    tail = data.draw(st.sampled_from([b"", b'data: {"unfinished', b"data: x\n"]))
    stream = b"".join(e + gap for e in events) + tail
    kept = b"".join(e + gap for e in events if e != USAGE) + tail
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=30))
    chunks = UsageChunkFilter()
    passed = b"".join([chunks.feed(piece) for piece in cut(stream, places)])
    assert passed + chunks.close() == kept


def test_the_filter_holds_no_more_than_one_event() -> None:
    chunks = UsageChunkFilter()
    big = b"data: " + b"x" * 5_000_000
    passed = sum(len(chunks.feed(big[at : at + 65_536])) for at in range(0, len(big), 65_536))
    assert passed > 3_900_000
    assert chunks.feed(b"\n\n" + USAGE + b"\n\n").endswith(b"\n\n")
    assert chunks.close() == b""
