"""The framers: any bytes, any split, bounded memory, no exception."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.providers import recognise, response_parser
from proxy.providers.base import NO_FACTS
from proxy.providers.decode import Decoder
from proxy.providers.eventstream import EventStreamFramer, encode_message, read_headers
from proxy.providers.jsonstream import JSONStreamFramer
from proxy.providers.skim import SKELETON_BYTES, Skimmer
from proxy.providers.sse import SSEFramer
from tests.wire.fixture import cut


class Recorder:
    """Keeps what a framer tells."""

    skipped = frozenset((b"skip",))

    def __init__(self) -> None:
        self.text_bytes = 0
        self.seen: list[Any] = []

    def event(self, name: bytes, doc: Any) -> bytes | None:
        self.seen.append((name, doc))
        plain = isinstance(doc, dict) and doc.keys() == {"text", "n"}
        return b'"text":' + b' "' if plain else None

    def done(self) -> None:
        self.seen.append("done")


def _framed(kind: Any, pieces: Any) -> Recorder:
    recorder = Recorder()
    framer = kind(recorder)
    for piece in pieces:
        framer.feed(piece)
    framer.close()
    return recorder


_LINES = st.sampled_from(
    [
        b'data: {"a": 1}',
        b'data:{"a": 2}',
        b'data: {"text": "hello", "n": 1}',
        b'data: {"text": "he\\"llo", "n": 1}',
        b'data: {"text": "", "n": 1}',
        b'data: {"text": "x", "n": 2}',
        b'data: {"text": "x", "n": 1   }',
        b'data: {"text": "x", "n": 1, "usage": {"a": 1}}',
        b"data: [DONE]",
        b"data: {",
        b"data: }",
        b"event: ping",
        b"event: skip",
        b": comment",
        b"id: 3",
        b"retry: 3",
        b"garbage",
        b"",
        b"",
    ]
)


@settings(max_examples=200)
@given(st.data())
def test_sse_reads_the_same_however_split(data: st.DataObject) -> None:
    feed = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    lines = data.draw(st.lists(_LINES, max_size=25))
    stream = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + feed.join(lines) + feed
    whole = _framed(SSEFramer, [stream])
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=30))
    split = _framed(SSEFramer, cut(stream, places))
    # Which events a template passes over depends on nothing but the events.
    assert split.seen == whole.seen
    assert split.text_bytes == whole.text_bytes


@settings(max_examples=150)
@given(st.lists(st.tuples(st.text(max_size=10), st.integers(0, 2), st.integers(0, 3)), max_size=30))
def test_a_template_passes_over_nothing_but_text(events: list[tuple[str, int, int]]) -> None:
    """Every event that differs in more than its text, or its padding, is read."""
    stream = b"".join(
        b'data: {"text": ' + json.dumps(text).encode() + b', "n": %d' % n + b" " * pad + b"}\n\n"
        for text, n, pad in events
    )
    seen = {doc["n"] for _, doc in _framed(SSEFramer, [stream]).seen}
    assert seen == {n for _, n, _ in events}


@settings(max_examples=150)
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=10))
def test_any_bytes_into_any_framer(junk: bytes, places: list[int]) -> None:
    for kind in (SSEFramer, JSONStreamFramer, EventStreamFramer):
        _framed(kind, cut(junk, places))
        _framed(kind, cut(b"[{" + junk, places))
        _framed(kind, cut(b"data: " + junk, places))
    skimmer = Skimmer()
    skimmer.feed(junk)
    skimmer.close()
    for encoding in ("gzip", "deflate", "gzip, deflate", "br", "zstd", "nonsense", ""):
        decoder = Decoder(encoding)
        for piece in cut(junk, places):
            list(decoder.feed(piece))
    read_headers(junk)


#: Whole numbers that the decoder keeps exact; a larger one is no count of anything.
_WHOLE = st.integers(-(2**63), 2**64 - 1)
_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | _WHOLE | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(st.text(max_size=4), _DOCUMENTS, max_size=4)


@settings(max_examples=200)
@given(st.data())
def test_json_streams(data: st.DataObject) -> None:
    documents = data.draw(st.lists(_OBJECTS, max_size=5))
    indent = data.draw(st.sampled_from([None, 2]))
    if data.draw(st.booleans()):
        stream = json.dumps(documents, indent=indent).encode()
    else:
        stream = b"\n".join(json.dumps(d, indent=indent).encode() for d in documents)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    assert [doc for _, doc in _framed(JSONStreamFramer, cut(stream, places)).seen] == documents


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=2**64), st.booleans())
def test_numbers_past_64_bits_are_no_counts(number: int, streamed: bool) -> None:
    usage = json.dumps({"prompt_tokens": number, "completion_tokens": 7, "total_tokens": -number})
    document = f'{{"model":"m","choices":[],"usage":{usage}}}'.encode()
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    kind = "text/event-stream" if streamed else "application/json"
    parser = response_parser(endpoint, NO_FACTS, 200, {"content-type": kind})
    parser.feed(b"data: " + document + b"\n\n" if streamed else document)
    read = parser.close(complete=True)
    assert (read.input_tokens, read.output_tokens, read.total_tokens) == (None, 7, None)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=9), _OBJECTS), max_size=5), st.data())
def test_event_streams(messages: list[tuple[str, dict[str, Any]]], data: st.DataObject) -> None:
    messages = [(n, d) for n, d in messages if not isinstance(d.get("bytes"), str)]
    stream = b"".join(
        encode_message(
            ((":event-type", name), (":message-type", "event")), json.dumps(doc).encode()
        )
        for name, doc in messages
    )
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    seen = _framed(EventStreamFramer, cut(stream, places)).seen
    assert seen == [(name.encode(), doc) for name, doc in messages]


@pytest.mark.parametrize("at", [0, 5, 9, 14, 40, -1])
def test_a_wrong_checksum_ends_an_event_stream(at: int) -> None:
    message = encode_message(((":event-type", "a"), (":message-type", "event")), {"x": 1})
    broken = bytearray(message)
    broken[at] ^= 1
    recorder = Recorder()
    framer = EventStreamFramer(recorder)
    framer.feed(bytes(broken) + message)
    assert recorder.seen == []
    assert framer.broken


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_skimmer_keeps_every_short_value(seed: int, split: bool) -> None:
    chance = random.Random(seed)
    document = {
        "model": 'm-\\"x',
        "texts": ['é\\"\n' * chance.randint(0, 9000) for _ in range(chance.randint(1, 6))],
        "embedding": [chance.uniform(-1, 1) for _ in range(chance.randint(0, 6000))],
        "flags": [True, None, 1.5, -3, "end"],
        "nested": [{"name": f"n{i}", "v": [i] * chance.randint(0, 40)} for i in range(200)],
        "usage": {"prompt_tokens": 12, "total_tokens": 99},
    }
    body = json.dumps(document, indent=chance.choice([None, 1]), ensure_ascii=seed % 2 == 0)
    skimmer = Skimmer()
    places = [chance.randint(0, len(body)) for _ in range(40)] if split else []
    for piece in cut(body.encode(), places):
        skimmer.feed(piece)
    found = skimmer.close()
    assert found["model"] == document["model"]
    assert found["flags"] == document["flags"]
    assert [n["name"] for n in found["nested"]] == [f"n{i}" for i in range(200)]
    assert found["usage"] == document["usage"]


def test_a_document_that_even_the_skeleton_of_is_too_large() -> None:
    body = json.dumps(
        {
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "logprobs": [{"token": f"t{i}", "p": -i / 7} for i in range(30_000)],
                    "finish_reason": "length",
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        }
    ).encode()
    assert len(body) > 3 * SKELETON_BYTES
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    parser = response_parser(endpoint, NO_FACTS, 200, {"content-type": "application/json"})
    for at in range(0, len(body), 5000):
        parser.feed(body[at : at + 5000])
    usage = parser.close(complete=True)
    assert (usage.model_served, usage.input_tokens, usage.output_tokens) == ("m", 1, 2)
    assert usage.finish_reasons == ("length",)


def _peak(pieces: Any, kind: str) -> tuple[int, Any]:
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    parser = response_parser(endpoint, NO_FACTS, 200, {"content-type": kind})
    tracemalloc.start()
    for piece in pieces:
        parser.feed(piece)
    usage = parser.close(complete=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, usage


def test_memory_stays_constant() -> None:
    base64 = b'{"model":"m","choices":[],"data":[{"b64_json":"' + b"A" * 65_536
    tail = b'"}],"usage":{"input_tokens":5,"output_tokens":6,"total_tokens":11}}'
    peak, usage = _peak([base64, *[b"B" * 65_536] * 150, tail], "application/json")
    assert peak < 1_000_000
    assert usage.output_tokens == 6
    event = b'data: {"model":"m","choices":[],"x":"' + b"A" * 65_536
    peak, usage = _peak([event, *[b"B" * 65_536] * 150, tail, b"\n\n"], "text/event-stream")
    assert peak < 1_000_000
    never_ending = [b"data: " + b"x" * 65_536] + [b"x" * 65_536] * 150
    assert _peak(never_ending, "text/event-stream")[0] < 1_500_000
    assert _peak([b"[[[[[" * 20_000] * 20, "application/json")[0] < 1_500_000
    strings = [b'{"a":[' + b'"short",' * 8000] + [b'"short",' * 8000] * 12
    assert _peak(strings, "application/json")[0] < 2_500_000


def test_a_small_body_that_unfolds_without_end() -> None:
    plain = b" " * 90_000_000
    for encoding, pack in (
        ("gzip", gzip.compress),
        ("br", lambda data: brotli.compress(data, quality=4)),
        ("zstd", zstandard.compress),
    ):
        bomb = pack(plain)
        decoder = Decoder(encoding)
        tracemalloc.start()
        unfolded = sum(len(piece) for piece in decoder.feed(bomb))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert not decoder.readable, encoding
        assert unfolded < 80_000_000, encoding
        assert peak < 10_000_000, encoding


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_members_of_one_body_follow_each_other(encoding: str) -> None:
    pack = {"gzip": gzip.compress, "zstd": zstandard.compress}[encoding]
    body = pack(b'{"model":"m","choices":[],') + pack(b'"usage":{"prompt_tokens":3}}')
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    headers = {"content-type": "application/json", "content-encoding": encoding}
    parser = response_parser(endpoint, NO_FACTS, 200, headers)
    for at in range(len(body)):
        parser.feed(body[at : at + 1])
    usage = parser.close(complete=True)
    assert (usage.model_served, usage.input_tokens) == ("m", 3)
