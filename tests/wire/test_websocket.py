"""WebSocket sessions: frames of any split, deflated or not, and the sum of their responses."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.types import Usage
from proxy.providers import recognise, websocket_parser
from proxy.providers.websocket import MAX_MESSAGE_BYTES, FrameReader, encode_frame
from tests.wire.fixture import by_bytes, cut

REALTIME = recognise("openai", "openai", "GET", "/v1/realtime", "model=gpt-realtime", {})
RESPONSES = recognise("openai", "openai", "GET", "/v1/responses", "", {})
LIVE = recognise(
    "gemini",
    "gemini",
    "GET",
    "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
    "",
    {},
)


def _frame(doc: Any, *, mask: bytes = b"") -> bytes:
    return encode_frame(json.dumps(doc, separators=(",", ":")).encode(), mask=mask)


def session(
    endpoint: Any,
    sent: Iterable[Any],
    received: Iterable[Any],
    headers: dict[str, str] | None = None,
) -> Usage:
    parser = websocket_parser(endpoint, headers or {})
    for doc in sent:
        parser.feed_client(_frame(doc, mask=b"\x01\x02\x03\x04"))
    for piece in by_bytes(b"".join(_frame(doc) for doc in received)):
        parser.feed_server(piece)
    return parser.close(complete=True)


def _done(given: int, made: int, **response: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": given,
        "output_tokens": made,
        "total_tokens": given + made,
        "input_token_details": {"cached_tokens": 2, "audio_tokens": 3},
        "output_token_details": {"audio_tokens": 1},
    }
    return {
        "type": "response.done",
        "response": {"status": "completed", "output": [], "usage": usage, **response},
    }


def test_a_realtime_session_is_the_sum_of_its_responses() -> None:
    usage = session(
        REALTIME,
        [{"type": "session.update", "session": {}}, {"type": "response.create"}],
        [
            {"type": "session.created", "session": {"model": "gpt-realtime"}},
            {"type": "response.output_audio.delta", "delta": "AAAA"},
            _done(63, 22, output=[{"type": "function_call", "name": "weather"}]),
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "usage": {"type": "duration", "seconds": 3},
            },
            _done(103, 13),
        ],
    )
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (166, 35, 201)
    assert (usage.cached_input_tokens, usage.audio_input_tokens) == (4, 6)
    assert usage.audio_output_tokens == 2
    assert usage.finish_reasons == ("completed", "completed")
    assert usage.tool_call_names == ("weather",)
    assert usage.model_served == "gpt-realtime"
    assert usage.extra["transcription_usage"] == [{"type": "duration", "seconds": 3}]


def test_xai_puts_its_usage_beside_the_response() -> None:
    done = {
        "type": "response.done",
        "response": {"status": "completed", "output": [], "usage": {}},
        "usage": {"input_tokens": 5, "output_tokens": 42, "total_tokens": 47},
    }
    usage = session(REALTIME, [], [done])
    assert (usage.input_tokens, usage.output_tokens) == (5, 42)


def test_responses_over_a_websocket() -> None:
    def completed(given: int, made: int) -> dict[str, Any]:
        usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
        response = {"status": "completed", "model": "gpt-5.5", "output": [], "usage": usage}
        return {"type": "response.completed", "response": response}

    usage = session(
        RESPONSES,
        [{"type": "response.create", "model": "gpt-5.5", "input": []}],
        [completed(14, 29), completed(36, 11)],
    )
    assert (usage.input_tokens, usage.output_tokens) == (50, 40)
    assert usage.finish_reasons == ("completed",)
    assert usage.complete
    assert usage.extra["model_requested"] == "gpt-5.5"


def test_gemini_live_thoughts_lie_outside_the_total() -> None:
    usage = session(
        LIVE,
        [{"setup": {"model": "models/gemini-live"}}],
        [
            {"setupComplete": {}},
            {"toolCall": {"functionCalls": [{"name": "weather"}]}},
            {
                "serverContent": {"turnComplete": True},
                "usageMetadata": {
                    "promptTokenCount": 1131,
                    "responseTokenCount": 26,
                    "totalTokenCount": 1157,
                    "thoughtsTokenCount": 24,
                },
            },
        ],
    )
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (1131, 50, 1157)
    assert usage.reasoning_tokens == 24
    assert usage.tool_call_names == ("weather",)


def test_an_error_in_a_session() -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "code": "x"}}
    usage = session(REALTIME, [], [error])
    assert usage.error is not None
    assert (usage.error.type, usage.error.code) == ("invalid_request_error", "x")
    assert usage.source == "unknown"


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=70_000), max_size=4), st.booleans(), st.data())
def test_frames_however_split(messages: list[bytes], masked: bool, data: st.DataObject) -> None:
    seen: list[bytes] = []
    reader = FrameReader(seen.append)
    stream = b"".join(encode_frame(m, mask=b"abcd" if masked else b"") for m in messages)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    for piece in cut(stream, places):
        reader.feed(piece)
    assert seen == messages


def test_fragments_with_a_ping_between() -> None:
    seen: list[bytes] = []
    reader = FrameReader(seen.append)
    reader.feed(b"\x01\x03abc" + b"\x89\x02hi" + b"\x00\x01d" + b"\x80\x01e")
    assert seen == [b"abcde"]


@pytest.mark.parametrize("kept", [True, False])
def test_deflated_messages(kept: bool) -> None:
    seen: list[bytes] = []
    reader = FrameReader(seen.append, deflate=True, keep_context=kept)
    packer = zlib.compressobj(wbits=-15)
    for text in (b"hello " * 50, b"hello " * 60, b"bye"):
        packed = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
        frame = bytearray(encode_frame(packed[:-4]))
        frame[0] |= 64
        for piece in by_bytes(bytes(frame)):
            reader.feed(piece)
        if not kept:
            packer = zlib.compressobj(wbits=-15)
    assert seen == [b"hello " * 50, b"hello " * 60, b"bye"]


def test_deflate_as_agreed_in_the_handshake() -> None:
    headers = {"sec-websocket-extensions": "permessage-deflate; server_no_context_takeover"}
    parser = websocket_parser(REALTIME, headers)
    for done in (_done(1, 2), _done(3, 4)):
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(json.dumps(done).encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
        frame = bytearray(encode_frame(packed[:-4]))
        frame[0] |= 64
        parser.feed_server(bytes(frame))
    assert parser.close(complete=True).total_tokens == 10


def test_a_message_larger_than_the_cap_passes_unread() -> None:
    seen: list[bytes] = []
    reader = FrameReader(seen.append)
    big = encode_frame(b"x" * (MAX_MESSAGE_BYTES + 1))
    for at in range(0, len(big), 65_536):
        reader.feed(big[at : at + 65_536])
    reader.feed(encode_frame(b"after"))
    assert seen == [b"after"]


@settings(max_examples=200)
@given(st.binary(max_size=300), st.booleans(), st.lists(st.integers(0, 300), max_size=8))
def test_any_bytes(junk: bytes, deflate: bool, places: list[int]) -> None:
    headers = {"sec-websocket-extensions": "permessage-deflate"} if deflate else {}
    parser = websocket_parser(REALTIME, headers)
    for piece in cut(junk, places):
        parser.feed_client(piece)
        parser.feed_server(piece)
    parser.close(complete=False)
