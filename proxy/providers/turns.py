"""What a request says of itself: its last turn, its limits, its user.

Owns: the reading of decoded request bodies of every family. Must never: keep a
prompt; only the short values and the last turn leave this file, and the last
turn only to be hashed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import orjson

from proxy.providers.base import RequestFacts
from proxy.providers.family import Turn

_HASHED_BYTES = 65_536
#: Members that differ from call to call without meaning anything.
_VOLATILE = frozenset(
    (
        "id",
        "tool_call_id",
        "call_id",
        "tool_use_id",
        "toolUseId",
        "status",
        "cache_control",
        "cachePoint",
        "signature",
        "thoughtSignature",
    )
)
_SESSION = re.compile(r"_session_([0-9A-Za-z-]{8,64})$")


def name_turn(facts: RequestFacts) -> None:
    """Make the fingerprint of a request's last turn, and let go of the turn.

    Nothing that stands between a request and its provider needs it: it is made while
    the provider is at work.
    """
    if facts.turn is None:
        return
    turn, key = facts.turn
    known = vars(facts)
    known["turn"] = None
    try:
        known["fingerprint"] = fingerprint(turn, key)
    except Exception:
        # A body that breaks the reader must not break the call: it is only not understood.
        known["fingerprint_kind"] = None


def fingerprint(turn: Turn, key: bytes) -> str:
    """A keyed hash (16 hex digits) of a turn, whatever the order of its members."""
    kind, parts = turn
    said = [kind.encode()]
    for piece in parts:
        if isinstance(piece, str):
            try:
                data = piece.encode()
            except UnicodeEncodeError:
                data = piece.encode("utf-8", "surrogatepass")
        else:
            data = _canonical(piece)
        said.append(len(data).to_bytes(8))
        if len(data) > _HASHED_BYTES:
            data = data[: _HASHED_BYTES // 2] + data[-_HASHED_BYTES // 2 :]
        said.append(data)
    return hashlib.blake2b(b"".join(said), digest_size=8, key=key[:64]).hexdigest()


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(
            _stable(value, 0), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
        )
    except (TypeError, ValueError):
        return repr(value).encode("utf-8", "replace")


def _stable(value: Any, depth: int) -> Any:
    if depth > 12:
        return None
    if isinstance(value, dict):
        return {k: _stable(v, depth + 1) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, list):
        return [_stable(v, depth + 1) for v in value]
    return value


def _arguments(value: Any) -> Any:
    """A call's arguments: JSON in a string is read, so that its spacing does not matter."""
    if isinstance(value, str) and len(value) <= _HASHED_BYTES:
        try:
            return orjson.loads(value)
        except ValueError:
            return value
    return value


def _last(values: Any) -> Any:
    return values[-1] if isinstance(values, list) and values else None


def _objects(values: Any) -> list[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _calls_of(message: dict[str, Any]) -> Iterable[tuple[Any, Any, Any]]:
    """Id, name and arguments of the calls in an assistant's message."""
    for call in _objects(message.get("tool_calls")):
        function = call.get("function")
        if isinstance(function, dict):
            yield call.get("id"), function.get("name"), function.get("arguments")
        else:
            yield call.get("id"), call.get("name"), call.get("parameters")


def chat_turn(body: dict[str, Any]) -> Turn | None:
    """The last turn of a chat body; else the prompt or input of other endpoints."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        for name in ("prompt", "input", "message", "texts", "query"):
            if body.get(name):
                return ("text", (body[name],))
        return None
    last = messages[-1]
    if not isinstance(last, dict):
        return ("text", (last,))
    if last.get("role") in ("tool", "function"):
        return _tool_turn(messages)
    if isinstance(content := last.get("content"), list):
        blocks = block_turn(messages, content)
        if blocks is not None:
            return blocks
    return ("text", (str(last.get("role")), last.get("content")))


def _tool_turn(messages: list[Any]) -> Turn:
    """All results at the end of the conversation, each with the call that it answers."""
    results: list[dict[str, Any]] = []
    at = len(messages)
    while (
        at > 0
        and isinstance(messages[at - 1], dict)
        and (messages[at - 1].get("role") in ("tool", "function"))
    ):
        at -= 1
        results.append(messages[at])
        if len(results) >= 64:
            break
    before = messages[at - 1] if at > 0 else None
    before = before if isinstance(before, dict) else {}
    calls = list(_calls_of(before))
    legacy = before.get("function_call")
    parts: list[Any] = []
    for number, result in enumerate(reversed(results)):
        ident = result.get("tool_call_id")
        call = next((c for c in calls if ident is not None and c[0] == ident), None)
        if call is None and number < len(calls):
            call = calls[number]
        if call is not None:
            parts += [str(call[1]), _arguments(call[2])]
        elif isinstance(legacy, dict):
            parts += [str(legacy.get("name")), _arguments(legacy.get("arguments"))]
        else:
            parts.append(str(result.get("name") or result.get("tool_name")))
        parts.append(_arguments(result.get("content")))
    return ("tool", tuple(parts))


def block_turn(messages: list[Any], content: list[Any]) -> Turn | None:
    """A turn whose content blocks hold tool results (Anthropic, Bedrock), else ``None``."""
    results = [
        block.get("toolResult", block)
        for block in _objects(content)
        if block.get("type") == "tool_result" or "toolResult" in block
    ]
    results = _objects(results)
    if not results:
        return None
    calls: dict[Any, tuple[Any, Any]] = {}
    before = messages[-2] if len(messages) > 1 and isinstance(messages[-2], dict) else {}
    for block in _objects(before.get("content")):
        use = block.get("toolUse", block)
        if isinstance(use, dict) and (block.get("type") == "tool_use" or "toolUse" in block):
            calls[use.get("id") or use.get("toolUseId")] = (use.get("name"), use.get("input"))
    parts: list[Any] = []
    for result in results:
        call = calls.get(result.get("tool_use_id") or result.get("toolUseId"))
        if call is not None:
            parts += [str(call[0]), call[1]]
        parts.append(result.get("content"))
    return ("tool", tuple(parts))


def responses_turn(body: dict[str, Any]) -> Turn | None:
    """The last turn of a Responses body."""
    given = body.get("input")
    last = _last(given)
    if not isinstance(last, dict):
        return ("text", (given if isinstance(given, str) else last,)) if given else None
    if not str(last.get("type", "")).endswith("_output"):
        return ("text", (str(last.get("role")), last.get("content", last)))
    calls: dict[Any, dict[str, Any]] = {}
    outputs: list[dict[str, Any]] = []
    for item in reversed(_objects(given)[-128:]):
        kind = str(item.get("type", ""))
        if kind.endswith("_output"):
            if not calls:
                outputs.append(item)
        elif kind.endswith("_call"):
            calls.setdefault(item.get("call_id"), item)
        elif kind not in ("reasoning", "message") or calls:
            break
    parts: list[Any] = []
    for output in reversed(outputs):
        call = calls.get(output.get("call_id"))
        if call is not None:
            parts += [
                str(call.get("name")),
                _arguments(call.get("arguments", call.get("input", call.get("action")))),
            ]
        parts.append(_arguments(output.get("output")))
    return ("tool", tuple(parts))


def gemini_turn(body: dict[str, Any]) -> Turn | None:
    """The last turn of a Gemini body."""
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        for name in ("content", "input", "requests", "instances"):
            if body.get(name):
                return ("text", (body[name],))
        return None
    last = contents[-1]
    if not isinstance(last, dict):
        return ("text", (last,))
    results = [
        found
        for piece in _objects(last.get("parts"))
        if isinstance(found := piece.get("functionResponse", piece.get("function_response")), dict)
    ]
    if not results:
        return ("text", (str(last.get("role")), last.get("parts")))
    before = contents[-2] if len(contents) > 1 and isinstance(contents[-2], dict) else {}
    calls = [
        found
        for piece in _objects(before.get("parts"))
        if isinstance(found := piece.get("functionCall", piece.get("function_call")), dict)
    ]
    parts: list[Any] = [[c.get("name"), c.get("args")] for c in calls]
    parts += [[r.get("name"), r.get("response")] for r in results]
    return ("tool", tuple(parts))


def cohere_turn(body: dict[str, Any]) -> Turn | None:
    """The last turn of a Cohere body: v1 has its tool results beside the message."""
    results = body.get("tool_results")
    if isinstance(results, list) and results:
        return ("tool", (results[-8:],))
    return chat_turn(body)


def _whole(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _short(value: object, limit: int = 256) -> str | None:
    return value[:limit] if isinstance(value, str) and value else None


def strings(value: object) -> dict[str, str]:
    """The short string members of an object."""
    if not isinstance(value, dict):
        return {}
    found = {}
    for name, word in value.items():
        if isinstance(name, str) and isinstance(word, str) and len(name) <= 64:
            found[name] = word[:512]
            if len(found) >= 16:
                break
    return found


def chat_facts(body: dict[str, Any]) -> dict[str, Any]:
    """Limits and names in a chat body of OpenAI's kind."""
    options = body.get("stream_options")
    stream = body.get("stream") is True
    asked = isinstance(options, dict) and options.get("include_usage") is True
    limit = None
    if "max_completion_tokens" in body:
        limit = _whole(body["max_completion_tokens"])
    if limit is None and "max_tokens" in body:
        limit = _whole(body["max_tokens"])
    found: dict[str, Any] = {
        "max_output_tokens": limit,
        "include_usage": asked if stream else None,
        # Not left to the class, where the interpreter finds them slowly.
        "choices": 1,
        "user": None,
        "session": None,
    }
    # Few bodies have these.
    if "n" in body:
        found["choices"] = _whole(body["n"]) or 1
    if "user" in body or "safety_identifier" in body:
        found["user"] = _short(body.get("user")) or _short(body.get("safety_identifier"))
    if "session_id" in body:
        found["session"] = _short(body["session_id"])
    if "metadata" in body:
        found["metadata"] = strings(body["metadata"])
    if "service_tier" in body:
        found["service_tier"] = _short(body["service_tier"], 32)
    return found


def responses_facts(body: dict[str, Any]) -> dict[str, Any]:
    """Limits and names in a Responses body."""
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    return {
        "max_output_tokens": _whole(body.get("max_output_tokens")),
        "user": _short(body.get("user")) or _short(body.get("safety_identifier")),
        "session": _short(conversation),
        "metadata": strings(body.get("metadata")),
        "service_tier": _short(body.get("service_tier"), 32),
    }


def anthropic_facts(body: dict[str, Any]) -> dict[str, Any]:
    """Limits and names in a Messages body. Claude Code writes its session into the user id."""
    user = None
    session = None
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        user = _short(metadata.get("user_id"))
        if user is not None and (found := _SESSION.search(user)):
            session = found[1]
            user = user[: found.start()]
    limit = body.get("max_tokens", body.get("max_tokens_to_sample"))
    return {
        "max_output_tokens": _whole(limit),
        "user": user,
        "session": session,
        "service_tier": _short(body.get("service_tier"), 32),
    }


def gemini_facts(body: dict[str, Any]) -> dict[str, Any]:
    """Limits in a Gemini body."""
    config = body.get("generationConfig", body.get("generation_config"))
    config = config if isinstance(config, dict) else {}
    return {
        "max_output_tokens": _whole(config.get("maxOutputTokens", config.get("max_output_tokens"))),
        "choices": _whole(config.get("candidateCount")) or 1,
        "metadata": strings(body.get("labels")),
        "service_tier": _short(body.get("serviceTier"), 32),
    }


def converse_facts(body: dict[str, Any]) -> dict[str, Any]:
    """Limits in a Bedrock body, Converse's or a model's own."""
    config = body.get("inferenceConfig")
    config = config if isinstance(config, dict) else {}
    limit = config.get("maxTokens", config.get("max_new_tokens"))
    if limit is None:
        limit = body.get("max_tokens", body.get("max_tokens_to_sample", body.get("max_gen_len")))
    return {
        "max_output_tokens": _whole(limit),
        "metadata": strings(body.get("requestMetadata")),
    }


def ollama_facts(body: dict[str, Any]) -> dict[str, Any]:
    """Limits in an Ollama body."""
    options = body.get("options")
    options = options if isinstance(options, dict) else {}
    return {"max_output_tokens": _whole(options.get("num_predict"))}
