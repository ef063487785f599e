"""Answers, requests and sessions with anything anywhere: nothing raises, nothing grows.

The parsers keep their own exceptions from the traffic and count them as faults; here
there must be none to keep.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.providers import (
    FAMILIES,
    recognise,
    replace_model,
    response_parser,
    websocket_parser,
)
from proxy.providers.base import NO_FACTS, Endpoint
from proxy.providers.eventstream import encode_message
from proxy.providers.requests import read_facts
from proxy.providers.websocket import encode_frame
from tests.wire.fixture import Fixture, cut, fixtures

ALL = fixtures()
_ODD: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["error", "message", "usage", "tool_use", "completed", "1h", "AUDIO", "-1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "usage", "index", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)
_FRAMES = ("json", "sse", "eventstream", "chunks", "ndjson", "array")


def mutated(data: st.DataObject, value: Any, depth: int = 0) -> Any:
    """A document with some of its values replaced, dropped or doubled."""
    if depth and data.draw(st.integers(0, 11)) == 0:
        return data.draw(_ODD)
    if isinstance(value, dict):
        kept = {k: mutated(data, v, depth + 1) for k, v in value.items()}
        if kept and data.draw(st.integers(0, 9)) == 0:
            del kept[data.draw(st.sampled_from(sorted(kept)))]
        return kept
    if isinstance(value, list):
        changed = [mutated(data, v, depth + 1) for v in value]
        return changed * 2 if data.draw(st.integers(0, 19)) == 0 else changed
    return value


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_value_anywhere_in_an_answer(data: st.DataObject) -> None:
    fixture = data.draw(st.sampled_from([f for f in ALL if any(k in f.content for k in _FRAMES)]))
    kind = next(k for k in _FRAMES if k in fixture.content)
    content = {**fixture.content, kind: fixture.content[kind]}
    if kind in ("sse", "eventstream"):
        content[kind] = [
            [name, doc if isinstance(doc, str) else mutated(data, doc)]
            for name, doc in fixture.content[kind]
        ]
    else:
        content[kind] = mutated(data, fixture.content[kind], 0)
    status = data.draw(st.sampled_from([content.get("status", 200), 200, 400, 503]))
    body = Fixture(fixture.family, fixture.name, content).body
    parser = response_parser(fixture.endpoint, fixture.facts(), status, content["headers"])
    for piece in cut(body, data.draw(st.lists(st.integers(0, len(body)), max_size=4))):
        parser.feed(piece)
    usage = parser.close(complete=True)
    assert parser.faults == 0  # type: ignore[attr-defined]
    for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"):
        count = getattr(usage, name)
        assert count is None or (type(count) is int and 0 <= count <= 10**11), name
    assert all(isinstance(w, str) for w in (*usage.finish_reasons, *usage.tool_call_names))
    assert len(usage.finish_reasons) <= 128
    assert usage.model_served is None or len(usage.model_served) <= 256
    assert usage.error is None or len(usage.error.message or "") <= 200


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_value_anywhere_in_a_request(data: st.DataObject) -> None:
    fixture = data.draw(st.sampled_from([f for f in ALL if f.content.get("request")]))
    given_body = {
        **fixture.content["request"],
        **data.draw(
            st.dictionaries(
                st.sampled_from(
                    ["messages", "input", "contents", "metadata", "stream_options", "n", "tools"]
                ),
                _ODD | st.lists(st.dictionaries(st.sampled_from(["role", "content"]), _ODD)),
                max_size=3,
            )
        ),
    }
    body = json.dumps(mutated(data, given_body)).encode()
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body)))]
    endpoint = fixture.endpoint
    facts = read_facts(FAMILIES[fixture.family], endpoint, body, "application/json", b"key")
    assert facts.model is None or len(facts.model) <= 256
    assert len(facts.metadata) <= 16
    replace_model(endpoint, fixture.content["path"], body, "other")


_SESSION = [
    {"type": "session.created", "session": {"model": "gpt-realtime"}},
    {
        "type": "response.done",
        "response": {
            "status": "completed",
            "output": [{"type": "function_call", "name": "f"}],
            "usage": {
                "input_tokens": 3,
                "output_tokens": 4,
                "input_token_details": {"cached_tokens_details": {"audio_tokens": 1}},
            },
        },
    },
    {"type": "error", "error": {"type": "server_error", "message": "x"}},
    {"setupComplete": {}},
    {
        "serverContent": {"turnComplete": True},
        "usageMetadata": {"promptTokenCount": 3, "responseTokenCount": 4},
    },
    {"toolCall": {"functionCalls": [{"name": "f", "args": {}}]}},
]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_value_anywhere_in_a_session(data: st.DataObject) -> None:
    wire = data.draw(st.sampled_from(["openai", "gemini"]))
    session = websocket_parser(Endpoint(wire, wire, "realtime_ws"), {})
    for doc in data.draw(st.lists(st.sampled_from(_SESSION), max_size=5)):
        payload = json.dumps(mutated(data, doc)).encode()
        frame = encode_frame(payload)
        for piece in cut(frame, data.draw(st.lists(st.integers(0, len(frame)), max_size=3))):
            session.feed_server(piece)
        session.feed_client(encode_frame(payload, mask=b"mask"))
    usage = session.close(complete=True)
    assert session.faults == 0  # type: ignore[attr-defined]
    assert usage.input_tokens is None or usage.input_tokens >= 0


_REPEATED = [
    ("openai", b'{"choices":[{"index":%d,"delta":{"tool_calls":[{"index":%d,"id":"c%d",'
     b'"function":{"name":"f%d"}}]},"finish_reason":"stop"}],"model":"m%d"}'),
    ("anthropic", b'{"type":"content_block_start","index":%d,"content_block":'
     b'{"type":"tool_use","name":"f%d","id":"%d%d%d"}}'),
    ("responses", b'{"type":"response.output_item.done","item":{"type":"function_call",'
     b'"name":"f%d","call_id":"%d%d%d%d"}}'),
    ("mistral", b'{"type":"function.call.delta","name":"f%d","tool_call_id":"%d%d%d%d"}'),
    ("gemini", b'{"candidates":[{"index":%d,"content":{"parts":[{"functionCall":{"name":"f%d"}}'
     b']},"finishReason":"x%d%d%d"}]}'),
    ("cohere", b'{"type":"tool-call-start","delta":{"message":{"tool_calls":{"id":"%d%d%d",'
     b'"function":{"name":"f%d%d"}}}}}'),
    ("ollama", b'{"message":{"tool_calls":[{"function":{"name":"f%d%d%d%d%d"}}]}}'),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "event"), _REPEATED, ids=[wire for wire, _ in _REPEATED])
def test_a_stream_that_names_ever_new_things_does_not_grow(wire: str, event: bytes) -> None:
    endpoint = Endpoint(wire, wire, "chat_completions")
    kind = "application/x-ndjson" if wire == "ollama" else "text/event-stream"
    parser = response_parser(endpoint, NO_FACTS, 200, {"content-type": kind})

    def some(first: int) -> None:
        for n in range(first, first + 2000):
            doc = event % ((n,) * 5)
            parser.feed(doc + b"\n" if wire == "ollama" else b"data: " + doc + b"\n\n")

    some(0)
    tracemalloc.start()
    some(2000)
    some(4000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 60_000
    usage = parser.close(complete=True)
    assert len(usage.tool_call_names) <= 512
    assert len(usage.finish_reasons) <= 128


def test_an_event_stream_that_names_ever_new_things_does_not_grow() -> None:
    endpoint = recognise("bedrock", "bedrock", "POST", "/model/m/converse-stream", "", {})
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    parser = response_parser(endpoint, NO_FACTS, 200, headers)
    for n in range(3000):
        start = {"start": {"toolUse": {"name": f"f{n}", "toolUseId": f"t{n}"}}}
        frame = ((":event-type", "contentBlockStart"), (":message-type", "event"))
        parser.feed(encode_message(frame, start))
    assert len(parser.close(complete=True).tool_call_names) <= 256
