"""An upstream that answers in every provider family's way, and each SDK as its users call it.

Owns: short answers, and streams that go on until somebody ends them. Must never:
know whether a proxy stands between.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import boto3
import openai
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from mistralai.client import Mistral
from mistralai.client import errors as mistral_errors

from proxy.providers.eventstream import encode_message
from tests.rig import Received, chat_answer, json_answer, read_request

ASK = "Name three rivers."
_CLAUDE = "claude-haiku-4-5"
_USAGE = {"input_tokens": 9, "output_tokens": 5}
_MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": _CLAUDE,
    "content": [{"type": "text", "text": "Rhine."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": _USAGE,
}
_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "gpt-5-mini",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 9,
        "output_tokens": 5,
        "total_tokens": 14,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}
_CANDIDATE = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Rhine. "}]}, "index": 0}],
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14},
}
_CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Rhine."}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14},
    "metrics": {"latencyMs": 3},
}


def _sse(event: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(event)}\n\n".encode()


def _aws(name: str, event: dict[str, Any]) -> bytes:
    kinds = ((":event-type", name), (":content-type", "application/json"))
    return encode_message((*kinds, (":message-type", "event")), event)


def _chat_chunk() -> bytes:
    choice = {"index": 0, "delta": {"content": "river " * 20}, "finish_reason": None}
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    return _sse({**base, "choices": [choice]})


def _claude_start() -> bytes:
    started = {**_MESSAGE, "content": [], "stop_reason": None}
    block = {"type": "content_block_start", "index": 0}
    return _sse({"type": "message_start", "message": started}, "message_start") + _sse(
        {**block, "content_block": {"type": "text", "text": ""}}, "content_block_start"
    )


_CLAUDE_DELTA = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "text_delta", "text": "river "},
}
_RESPONSE_DELTA = {
    "type": "response.output_text.delta",
    "item_id": "i",
    "output_index": 0,
    "content_index": 0,
    "delta": "river ",
    "logprobs": [],
    "sequence_number": 1,
}


def _plain(path: str) -> bytes:
    if path.endswith("/responses"):
        return json_answer(_RESPONSE)
    if path.endswith("/messages"):
        return json_answer(_MESSAGE)
    if "generateContent" in path:
        return json_answer(_CANDIDATE)
    if path.endswith("/converse"):
        return json_answer(_CONVERSE)
    return json_answer(chat_answer())


def _endless(path: str) -> tuple[str, bytes, bytes]:
    """Content type, how a stream begins, and what then comes again and again."""
    events = "text/event-stream"
    if path.endswith("/responses"):
        begun = {**_RESPONSE, "status": "in_progress"}
        event = {"type": "response.created", "response": begun, "sequence_number": 0}
        delta = _sse(_RESPONSE_DELTA, "response.output_text.delta")
        return events, _sse(event, "response.created"), delta
    if path.endswith("/messages"):
        return events, _claude_start(), _sse(_CLAUDE_DELTA, "content_block_delta")
    if "streamGenerateContent" in path:
        return events, b"", _sse(_CANDIDATE)
    if path.endswith("/converse-stream"):
        words = {"contentBlockIndex": 0, "delta": {"text": "river "}}
        kind = "application/vnd.amazon.eventstream"
        return kind, _aws("messageStart", {"role": "assistant"}), _aws("contentBlockDelta", words)
    return events, b"", _chat_chunk()


@dataclass
class Families:
    """The upstream. ``seen`` are the requests that reached it, ``cut`` the streams it lost."""

    seen: list[Received] = field(default_factory=list)
    cut: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            self.seen.append(request)
            path = request.line.split(" ")[1].partition("?")[0]
            streams = b'"stream":true' in request.body.replace(b" ", b"") or "tream" in path
            if not streams:
                writer.write(_plain(path))
                await writer.drain()
                continue
            kind, begin, again = _endless(path)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head.encode())
            try:
                while not writer.is_closing():
                    for piece in filter(None, (begin, again)):
                        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    begin = b""
                    await writer.drain()
                    await asyncio.sleep(0.02)
            except ConnectionError:
                pass
            self.cut += 1
            return

    def models(self) -> list[str]:
        """The models that were asked for, in order."""
        return [json.loads(r.body).get("model", "") for r in self.seen if r.body]


@dataclass(frozen=True)
class Family:
    """One SDK as its users call it, with its own idea of retries.

    ``limited`` and ``stopped`` are what it raises on a throttle and on a block,
    ``broken`` on an error inside a stream; ``waits`` says whether it waits as
    Retry-After tells it and tries again by itself.
    """

    ask: Callable[[str, str], Any]
    stream: Callable[[str, str], Iterator[Any]]
    limited: type[Exception]
    stopped: type[Exception]
    broken: type[Exception]
    waits: bool = False


def _openai(url: str, agent: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/@{agent}/v1", api_key="sk-test")


def _chat(url: str, agent: str) -> Any:
    return _openai(url, agent).chat.completions.create(
        model="gpt-4o-mini", max_tokens=20, messages=[{"role": "user", "content": ASK}]
    )


def _chat_stream(url: str, agent: str) -> Iterator[Any]:
    yield from _openai(url, agent).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": ASK}], stream=True
    )


def _responses(url: str, agent: str) -> Any:
    return _openai(url, agent).responses.create(model="gpt-5-mini", input=ASK)


def _responses_stream(url: str, agent: str) -> Iterator[Any]:
    yield from _openai(url, agent).responses.create(model="gpt-5-mini", input=ASK, stream=True)


def _claude(url: str, agent: str) -> Any:
    client = anthropic.Anthropic(base_url=f"{url}/@{agent}", api_key="sk-ant-test")
    return client.messages.create(
        model=_CLAUDE, max_tokens=20, messages=[{"role": "user", "content": ASK}]
    )


def _claude_stream(url: str, agent: str) -> Iterator[Any]:
    client = anthropic.Anthropic(base_url=f"{url}/@{agent}", api_key="sk-ant-test")
    with client.messages.stream(
        model=_CLAUDE, max_tokens=900, messages=[{"role": "user", "content": ASK}]
    ) as events:
        yield from events


def _gemini(url: str, agent: str) -> genai.Client:
    options = genai_types.HttpOptions(base_url=f"{url}/@{agent}", api_version="v1beta")
    return genai.Client(api_key="test", http_options=options)


def _generate(url: str, agent: str) -> Any:
    client = _gemini(url, agent)
    return client.models.generate_content(model="gemini-2.5-flash", contents=ASK)


def _generate_stream(url: str, agent: str) -> Iterator[Any]:
    client = _gemini(url, agent)
    yield from client.models.generate_content_stream(model="gemini-2.5-flash", contents=ASK)


def _mistral(url: str, agent: str) -> Any:
    with Mistral(server_url=f"{url}/@{agent}/mistral", api_key="test") as client:
        return client.chat.complete(
            model="mistral-small-latest", messages=[{"role": "user", "content": ASK}]
        )


def _mistral_stream(url: str, agent: str) -> Iterator[Any]:
    with Mistral(server_url=f"{url}/@{agent}/mistral", api_key="test") as client:
        yield from client.chat.stream(
            model="mistral-small-latest", messages=[{"role": "user", "content": ASK}]
        )


def _bedrock(url: str, agent: str) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=f"{url}/@{agent}/bedrock",
        region_name="us-east-1",
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="secret",
        config=Config(retries={"mode": "standard"}),
    )


_TURN: list[Any] = [{"role": "user", "content": [{"text": ASK}]}]


def _converse(url: str, agent: str) -> Any:
    return _bedrock(url, agent).converse(modelId=f"anthropic.{_CLAUDE}", messages=_TURN)


def _converse_stream(url: str, agent: str) -> Iterator[Any]:
    answer = _bedrock(url, agent).converse_stream(modelId=f"anthropic.{_CLAUDE}", messages=_TURN)
    yield from answer["stream"]


_OPENAI = (openai.RateLimitError, openai.RateLimitError, openai.APIError)
_ANTHROPIC = (anthropic.RateLimitError, anthropic.RateLimitError, anthropic.APIStatusError)
_GOOGLE = (genai_errors.ClientError, genai_errors.ClientError, genai_errors.ClientError)
_MISTRAL = (
    mistral_errors.SDKError,
    mistral_errors.SDKError,
    mistral_errors.ResponseValidationError,
)

FAMILIES: dict[str, Family] = {
    "openai-chat": Family(_chat, _chat_stream, *_OPENAI, waits=True),
    "openai-responses": Family(_responses, _responses_stream, *_OPENAI, waits=True),
    "anthropic": Family(_claude, _claude_stream, *_ANTHROPIC, waits=True),
    "google-genai": Family(_generate, _generate_stream, *_GOOGLE),
    "mistralai": Family(_mistral, _mistral_stream, *_MISTRAL),
    "boto3": Family(_converse, _converse_stream, ClientError, ClientError, EventStreamError),
}


def upstreams(url: str) -> dict[str, Any]:
    """The upstreams of a proxy that has this one behind every name."""
    return {
        "openai": {"base_url": url},
        "anthropic": {"base_url": url, "wire": "anthropic"},
        "gemini": {"base_url": url, "wire": "gemini"},
        "mistral": {"base_url": url, "wire": "mistral"},
        "bedrock": {"base_url": url, "wire": "bedrock", "provider": "bedrock"},
    }
