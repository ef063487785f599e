"""Answers whose members have other types than any document says: read, never stumbled over."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.providers import response_parser
from proxy.providers.base import NO_FACTS, Endpoint
from proxy.providers.eventstream import encode_message
from proxy.providers.reading import BodyParser
from proxy.providers.realtime import Session
from proxy.providers.websocket import encode_frame
from tests.wire.fixture import fixtures

ENDPOINTS = sorted({f.endpoint for f in fixtures()}, key=str)


def _names(value: Any, found: set[str]) -> set[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            found.add(name)
            _names(member, found)
    elif isinstance(value, list):
        for member in value:
            _names(member, found)
    return found


def _words(value: Any, found: set[str]) -> set[str]:
    if isinstance(value, str) and len(value) < 40:
        found.add(value)
    elif isinstance(value, dict):
        for member in value.values():
            _words(member, found)
    elif isinstance(value, list):
        for member in value:
            _words(member, found)
    return found


_CONTENTS = [f.content for f in fixtures()]
NAMES = sorted(_names(_CONTENTS, set()))
WORDS = sorted(_words(_CONTENTS, set()))

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10**6)
    | st.sampled_from([0.5, 3.0, -1.0, 1e300])
    | st.sampled_from(WORDS)
)
_SHAPES: st.SearchStrategy[Any] = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES), inner, min_size=1, max_size=4)
    ),
    max_leaves=14,
)


def _mutated(document: Any, data: st.DataObject) -> Any:
    """A document with one member of another type."""
    if isinstance(document, dict) and document and data.draw(st.integers(0, 4)):
        name = data.draw(st.sampled_from(sorted(document)))
        return {**document, name: _mutated(document[name], data)}
    if isinstance(document, list) and document and data.draw(st.integers(0, 4)):
        at = data.draw(st.integers(0, len(document) - 1))
        return [*document[:at], _mutated(document[at], data), *document[at + 1 :]]
    return data.draw(_SHAPES)


def _read(endpoint: Endpoint, body: bytes, kind: str, status: int = 200) -> None:
    parser = response_parser(endpoint, NO_FACTS, status, {"content-type": kind})
    assert isinstance(parser, BodyParser)
    parser.feed(body)
    parser.close(complete=True)
    assert parser.faults == 0


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(ENDPOINTS), _SHAPES, st.sampled_from([200, 404, 503]))
def test_any_document(endpoint: Endpoint, document: Any, status: int) -> None:
    _read(endpoint, json.dumps(document).encode(), "application/json", status)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(ENDPOINTS), st.lists(_SHAPES, max_size=4), st.sampled_from(WORDS))
def test_any_event(endpoint: Endpoint, documents: list[Any], name: str) -> None:
    event = b"event: " + name.replace("\n", "").encode() + b"\n"
    lines = [event + b"data: " + json.dumps(d).encode() + b"\n\n" for d in documents]
    _read(endpoint, b"".join(lines), "text/event-stream")
    headers = ((":event-type", name[:200]), (":message-type", "event"))
    packed = [{"bytes": base64.b64encode(json.dumps(d).encode()).decode()} for d in documents]
    for payloads in (documents, packed):
        stream = b"".join(encode_message(headers, json.dumps(p).encode()) for p in payloads)
        _read(endpoint, stream, "application/vnd.amazon.eventstream")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_real_answers_with_a_member_of_another_type(data: st.DataObject) -> None:
    fixture = data.draw(st.sampled_from(fixtures()))
    content = fixture.content
    kind = next(
        k
        for k in ("json", "sse", "eventstream", "chunks", "ndjson", "array", "text")
        if k in content
    )
    changed = {**content, kind: content[kind]}
    if kind == "json":
        changed["json"] = _mutated(content["json"], data)
    elif kind != "text":
        entries = list(content[kind])
        at = data.draw(st.integers(0, len(entries) - 1))
        entry = entries[at]
        named = kind in ("sse", "eventstream")
        payload = entry[1] if named else entry
        if isinstance(payload, str):
            return
        payload = _mutated(payload, data)
        entries[at] = [entry[0], payload] if named else payload
        changed[kind] = entries
    altered = type(fixture)(fixture.family, fixture.name, changed)
    headers = content["headers"]
    parser = response_parser(altered.endpoint, altered.facts(), content.get("status", 200), headers)
    assert isinstance(parser, BodyParser)
    parser.feed(altered.body)
    parser.close(complete=True)
    assert parser.faults == 0


@pytest.mark.parametrize("wire", ["openai", "responses", "gemini"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_message_of_a_session(wire: str, data: st.DataObject) -> None:
    session = Session(Endpoint("vendor", wire, "realtime_ws"), {})
    for document in data.draw(st.lists(_SHAPES, max_size=4)):
        frame = encode_frame(json.dumps(document).encode())
        session.feed_client(frame)
        session.feed_server(frame)
    session.close(complete=True)
    assert session.faults == 0
