"""What parsing costs, beside ``json.loads`` of the same bytes.

Owns: the timing of a chat stream and of a JSON answer, and the memory of a long
stream. Must never: assert a time.
"""

from __future__ import annotations

import json
import timeit
import tracemalloc

import orjson

from detection.types import Usage
from proxy.providers import read_request, recognise, response_parser
from proxy.providers.base import NO_FACTS

_EVENTS = 60
_LONG_BYTES = 10_000_000


def chat_stream(events: int) -> list[bytes]:
    """A chat stream as OpenAI sends it: one chunk an event, usage in the last but one."""
    head = {
        "id": "chatcmpl-BcDeFgHiJkLmNoPqRsTuVwXyZ0123",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": "gpt-5-mini-2025-08-07",
        "service_tier": "default",
        "system_fingerprint": "fp_0a1b2c3d4e",
    }

    def chunk(number: int, delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        doc = {**head, "choices": [choice], "usage": None, "obfuscation": "x" * (number % 11)}
        return b"data: " + orjson.dumps(doc) + b"\n\n"

    stream = [chunk(0, {"role": "assistant", "content": ""}, None)]
    stream += [chunk(n, {"content": f" word{n % 17}"}, None) for n in range(1, events - 2)]
    stream.append(chunk(3, {}, "stop"))
    usage = {"prompt_tokens": 812, "completion_tokens": events, "total_tokens": 812 + events}
    stream.append(b"data: " + orjson.dumps({**head, "choices": [], "usage": usage}) + b"\n\n")
    stream.append(b"data: [DONE]\n\n")
    return stream


def answer(size: int = 1024) -> bytes:
    """A chat answer of about ``size`` bytes."""
    doc = {
        "id": "chatcmpl-BcDeFgHiJkLmNoPqRsTuVwXyZ0123",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "gpt-5-mini-2025-08-07",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 812,
            "completion_tokens": 90,
            "total_tokens": 902,
            "prompt_tokens_details": {"cached_tokens": 512, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
        },
        "service_tier": "default",
    }
    bare = len(orjson.dumps(doc))
    doc["choices"][0]["message"]["content"] = "w" * max(0, size - bare)  # type: ignore[index]
    return orjson.dumps(doc)


def parse(pieces: list[bytes], kind: str) -> Usage:
    """One response through a parser of its own."""
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    parser = response_parser(endpoint, NO_FACTS, 200, {"content-type": kind})
    for piece in pieces:
        parser.feed(piece)
    return parser.close(complete=True)


_RUNS = 300


def best_microseconds(run: object, number: int = 15, repeat: int = _RUNS) -> float:
    """The best of many short runs: the machine's noise only ever adds, and not to all."""
    return min(timeit.repeat(run, number=number, repeat=repeat)) / number * 1e6  # type: ignore[arg-type]


def peak_bytes(total: int) -> int:
    """The most memory that inspecting a stream of ``total`` bytes takes."""
    stream = chat_stream(_EVENTS)
    body = stream[1:-3]
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    parser = response_parser(endpoint, NO_FACTS, 200, {"content-type": "text/event-stream"})
    tracemalloc.start()
    sent = 0
    while sent < total:
        for piece in body:
            parser.feed(piece)
            sent += len(piece)
    parser.close(complete=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def report_cost() -> None:
    """Print the costs."""
    stream, document = chat_stream(_EVENTS), answer()
    text_stream, text_answer = "text/event-stream", "application/json"
    datas = [piece[6:-2] for piece in stream[:-1]]
    joined = b"".join(stream)
    rows = (
        (
            f"chat stream, {_EVENTS} events, a feed each",
            lambda: parse(stream, text_stream),
            lambda: [json.loads(d) for d in datas],
        ),
        (
            f"chat stream, {_EVENTS} events, in one piece",
            lambda: parse([joined], text_stream),
            lambda: [json.loads(d) for d in datas],
        ),
        (
            f"JSON answer, {len(document)} bytes",
            lambda: parse([document], text_answer),
            lambda: json.loads(document),
        ),
    )
    print(f"cost, best of {_RUNS} runs, beside json.loads of the same bytes")
    for name, ours, theirs in rows:
        mine, base = best_microseconds(ours), best_microseconds(theirs)
        print(f"  {name:44} {mine:8.1f} µs   json.loads {base:8.1f} µs   ratio {mine / base:.2f}")
    body = orjson.dumps(
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": "w" * 1000}]}
    )
    endpoint = recognise("openai", "openai", "POST", "/v1/chat/completions", "", {})
    facts = best_microseconds(lambda: read_request(endpoint, body, text_answer, b"k" * 32))
    print(f"  {'request facts with fingerprint, 1 KB':44} {facts:8.1f} µs")
    small, large = peak_bytes(_LONG_BYTES // 10), peak_bytes(_LONG_BYTES)
    print(f"  memory of a stream of 1 MB {small:,} bytes, of 10 MB {large:,} bytes")
    print()


if __name__ == "__main__":
    report_cost()
