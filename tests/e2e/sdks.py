"""The official SDKs, each asked the same, and what each of them saw.

Owns: one function for each SDK and way of asking. Must never: know whether a proxy
stands between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import anthropic
import openai
from google import genai
from google.genai import types as genai_types
from mistralai.client import Mistral

PROMPT = "Name three rivers."
WEATHER = "How warm is it?"
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
#: Members that are made anew for every answer.
_VOLATILE = {"id", "created", "created_at", "completed_at", "create_time", "item_id", "call_id"}
_VOLATILE |= {"tool_call_id", "response_id", "timings", "sdk_http_response", "sequence_number"}


class Seen(NamedTuple):
    """What an SDK showed its caller: everything, and what it said of tokens and tools."""

    shown: list[Any]
    input_tokens: int | None
    output_tokens: int | None
    tools: tuple[str, ...] = ()


def stable(value: Any) -> Any:
    """An SDK's object as plain data, without what is made anew for every answer."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", warnings="none")
    if isinstance(value, dict):
        return {k: stable(v) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, list | tuple):
        return [stable(v) for v in value]
    return value


def openai_chat(url: str, model: str, *, stream: bool, ask: str = PROMPT) -> Seen:
    """Chat completions; a stream that asks for its usage."""
    tools: list[Any] = [
        {"type": "function", "function": {"name": "get_weather", "parameters": _SCHEMA}}
    ]
    given: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": ask}],
        "max_tokens": 12,
        "temperature": 0,
        "seed": 7,
        **({"tools": tools} if ask == WEATHER else {}),
    }
    with openai.OpenAI(base_url=url, api_key="sk-test", max_retries=0) as client:
        if not stream:
            answer = client.chat.completions.create(**given)
            calls = answer.choices[0].message.tool_calls or ()
            names = tuple(c.function.name for c in calls if c.type == "function")
            usage = answer.usage
            return _seen([answer], usage, "prompt_tokens", "completion_tokens", names)
        options = {"include_usage": True}
        chunks = list(client.chat.completions.create(**given, stream=True, stream_options=options))
        usage = next((c.usage for c in chunks if c.usage is not None), None)
        names = tuple(
            call.function.name
            for chunk in chunks
            for choice in chunk.choices
            for call in choice.delta.tool_calls or ()
            if call.function is not None and call.function.name
        )
        return _seen(chunks, usage, "prompt_tokens", "completion_tokens", names)


def openai_responses(url: str, model: str, *, stream: bool, ask: str = PROMPT) -> Seen:
    """The Responses API."""
    given: dict[str, Any] = {
        "model": model,
        "input": ask,
        "max_output_tokens": 16,
        "temperature": 0,
    }
    if ask == WEATHER:
        given["tools"] = [{"type": "function", "name": "get_weather", "parameters": _SCHEMA}]
    with openai.OpenAI(base_url=url, api_key="sk-test", max_retries=0) as client:
        if stream:
            events: list[Any] = list(client.responses.create(**given, stream=True))
            last = next(e.response for e in reversed(events) if e.type == "response.completed")
        else:
            last = client.responses.create(**given)
            events = [last]
        names = tuple(item.name for item in last.output if item.type == "function_call")
        return _seen(events, last.usage, "input_tokens", "output_tokens", names)


def anthropic_messages(url: str, model: str, *, stream: bool, ask: str = PROMPT) -> Seen:
    """The Messages API."""
    given: dict[str, Any] = {
        "model": model,
        "max_tokens": 12,
        "messages": [{"role": "user", "content": ask}],
        "extra_body": {"temperature": 0, "seed": 7},
    }
    if ask == WEATHER:
        given["tools"] = [{"name": "get_weather", "input_schema": _SCHEMA}]
    with anthropic.Anthropic(base_url=url, api_key="sk-ant-test", max_retries=0) as client:
        if stream:
            with client.messages.stream(**given) as events:
                shown: list[Any] = list(events)
                last = events.get_final_message()
        else:
            last = client.messages.create(**given)
            shown = [last]
        names = tuple(block.name for block in last.content if block.type == "tool_use")
        usage = last.usage
        cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        given_tokens = usage.input_tokens + cached
        return Seen([stable(s) for s in shown], given_tokens, usage.output_tokens, names)


def gemini_generate(url: str, model: str, *, stream: bool, ask: str = PROMPT) -> Seen:
    """generateContent."""
    options = genai_types.HttpOptions(base_url=url, api_version="v1beta")
    tool = genai_types.Tool(
        function_declarations=[
            genai_types.FunctionDeclaration(name="get_weather", parameters_json_schema=_SCHEMA)
        ]
    )
    config = genai_types.GenerateContentConfig(
        max_output_tokens=16, tools=[tool] if ask == WEATHER else None
    )
    client = genai.Client(api_key="test", http_options=options)
    if stream:
        given: dict[str, Any] = {"model": model, "contents": ask, "config": config}
        chunks: list[Any] = list(client.models.generate_content_stream(**given))
    else:
        chunks = [client.models.generate_content(model=model, contents=ask, config=config)]
    usage = next((c.usage_metadata for c in reversed(chunks) if c.usage_metadata), None)
    names = tuple(call.name or "" for c in chunks for call in c.function_calls or ())
    return _seen(chunks, usage, "prompt_token_count", "candidates_token_count", names)


def mistral_chat(url: str, model: str, *, stream: bool, ask: str = PROMPT) -> Seen:
    """Mistral's chat."""
    given: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": ask}],
        "max_tokens": 12,
        "temperature": 0,
        "random_seed": 7,
    }
    if ask == WEATHER:
        given["tools"] = [
            {"type": "function", "function": {"name": "get_weather", "parameters": _SCHEMA}}
        ]
    with Mistral(server_url=url, api_key="test") as client:
        if stream:
            events = [e.data for e in client.chat.stream(**given)]
            usage = next((e.usage for e in events if e.usage), None)
            messages: list[Any] = [choice.delta for e in events for choice in e.choices]
        else:
            answer = client.chat.complete(**given)
            events, usage = [answer], answer.usage  # type: ignore[list-item]
            messages = [choice.message for choice in answer.choices]
        names = tuple(call.function.name for m in messages for call in m.tool_calls or ())
        return _seen(events, usage, "prompt_tokens", "completion_tokens", names)


def _seen(shown: Iterable[Any], usage: Any, given: str, made: str, tools: tuple[str, ...]) -> Seen:
    return Seen(
        [stable(one) for one in shown],
        getattr(usage, given, None),
        getattr(usage, made, None),
        tools,
    )


#: SDK and way of asking -> the function, and the wire family that its calls belong to.
ASKING: dict[str, tuple[Callable[..., Seen], str]] = {
    "openai_chat": (openai_chat, "openai"),
    "openai_responses": (openai_responses, "openai"),
    "anthropic_messages": (anthropic_messages, "anthropic"),
    "gemini_generate": (gemini_generate, "gemini"),
    "mistral_chat": (mistral_chat, "mistral"),
}
