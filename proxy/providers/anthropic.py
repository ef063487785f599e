"""Anthropic's Messages API, and its legacy text completions.

Owns: ``/v1/messages`` (https://docs.anthropic.com/en/api/messages), streamed
(https://docs.anthropic.com/en/docs/build-with-claude/streaming) and not, at
Anthropic, Vertex, Azure and Bedrock. Must never: await or raise.

``input_tokens`` excludes cache reads and writes there; here it includes them. The
usage of ``message_delta`` is cumulative: where it repeats a count of
``message_start``, it replaces it.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.family import Family, Rule
from proxy.providers.reading import CountReader, QuietReader, Reader, count, items, part, text
from proxy.providers.refusals import anthropic_refusal, anthropic_stream_error
from proxy.providers.turns import anthropic_facts, chat_turn

_DELTAS = {
    "text_delta": ("text", b'"text":"'),
    "thinking_delta": ("thinking", b'"thinking":"'),
    "input_json_delta": ("partial_json", b'"partial_json":"'),
    "signature_delta": ("signature", b'"signature":"'),
}


def message_counts(native: dict[str, Any]) -> dict[str, Any]:
    """The counts of a Messages usage object."""
    fresh = count(native.get("input_tokens"))
    read = count(native.get("cache_read_input_tokens"))
    written = count(native.get("cache_creation_input_tokens"))
    split = part(native, "cache_creation")
    five = count(split.get("ephemeral_5m_input_tokens"))
    hour = count(split.get("ephemeral_1h_input_tokens"))
    given = None
    if fresh is not None or read is not None or written is not None:
        given = (fresh or 0) + (read or 0) + (written or 0)
    made = count(native.get("output_tokens"))
    steps = native.get("iterations")
    if isinstance(steps, list):
        # Compaction and advisors are billed, but stand outside the top level.
        sums = _iterations(steps)
        given = max(given or 0, sums["iterations_input_tokens"])
        made = max(made or 0, sums["iterations_output_tokens"])
    server = part(native, "server_tool_use")
    return {
        "input_tokens": given,
        "output_tokens": made,
        "cached_input_tokens": read,
        "cache_write_tokens": written,
        "cache_write_5m_tokens": five,
        "cache_write_1h_tokens": hour,
        "reasoning_tokens": count(part(native, "output_tokens_details").get("thinking_tokens")),
        "web_searches": count(server.get("web_search_requests")),
        "service_tier": "fast"
        if native.get("speed") == "fast"
        else text(native.get("service_tier"), 32),
    }


def merged_usage(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The cumulative usage: later counts replace earlier ones."""
    return {**earlier, **{name: value for name, value in later.items() if value is not None}}


class MessagesReader(Reader):
    """One message, whole or told in events."""

    def __init__(self) -> None:
        super().__init__()
        self._split_is_stale = False

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        found = message_counts(native)
        if self._split_is_stale:
            found["cache_write_5m_tokens"] = found["cache_write_1h_tokens"] = None
        return found

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict):
            if self.status >= 400:
                self.fail(doc)
            return
        if doc.get("type") == "error" or self.status >= 400:
            self.fail(doc)
            return
        self._message(doc)
        completion = doc.get("completion")
        if isinstance(completion, str):
            self.text_bytes += len(completion)

    def _message(self, doc: dict[str, Any]) -> None:
        self.model = text(doc.get("model")) or self.model
        usage = doc.get("usage")
        if isinstance(usage, dict) and usage:
            self.native = usage
        self.add_finish(0, doc.get("stop_reason"))
        for block in items(doc, "content"):
            self._block(block)

    def _block(self, block: Any) -> None:
        if not isinstance(block, dict):
            return
        kind = block.get("type")
        if kind == "tool_use":
            self.add_tool(block.get("name"))
        elif kind == "fallback":
            self.model = text(part(block, "to").get("model")) or self.model
        elif kind in ("server_tool_use", "mcp_tool_use"):
            self.add_server_tool(block.get("name"))
        for member in ("text", "thinking"):
            if isinstance(words := block.get(member), str):
                self.text_bytes += len(words)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if not isinstance(doc, dict):
            return None
        kind = doc.get("type")
        if kind == "content_block_delta":
            delta = part(doc, "delta")
            known = _DELTAS.get(str(delta.get("type")))
            if known is None:
                return None
            words = delta.get(known[0])
            if isinstance(words, str) and known[0] != "signature":
                self.text_bytes += len(words)
            return known[1]
        if kind == "message_start":
            self._message(part(doc, "message"))
        elif kind == "content_block_start":
            self._block(doc.get("content_block"))
        elif kind == "message_delta":
            self._delta(doc)
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error" or name == b"error":
            self.fail(doc if "error" in doc else {"error": doc})
        elif kind == "completion" or isinstance(doc.get("completion"), str):
            self.model = text(doc.get("model")) or self.model
            self.text_bytes += len(text(doc.get("completion"), 1 << 20) or "")
            if doc.get("stop_reason") is not None:
                self.add_finish(0, doc["stop_reason"])
                self.ended = True
        return None

    def _delta(self, doc: dict[str, Any]) -> None:
        reason = part(doc, "delta").get("stop_reason")
        if reason is not None:
            self.add_finish(0, reason)
        usage = doc.get("usage")
        if isinstance(usage, dict) and usage:
            earlier = self.native or {}
            self.native = merged_usage(earlier, usage)
            # The split of cache writes by lifetime stands in message_start alone.
            writes = "cache_creation_input_tokens"
            if "cache_creation" not in usage and earlier.get(writes) != self.native.get(writes):
                self._split_is_stale = True

    def usage(self, *, complete: bool, streamed: bool) -> Any:
        native = self.native
        if native is not None and isinstance(native.get("iterations"), list):
            self.extra.update(_iterations(native["iterations"]))
        return super().usage(complete=complete, streamed=streamed)


def _iterations(steps: list[Any]) -> dict[str, Any]:
    """What the single steps used: compaction and advisors stand outside the top level."""
    given = made = 0
    kinds = []
    for step in steps[:256]:
        if isinstance(step, dict):
            counts = message_counts(step)
            given += counts["input_tokens"] or 0
            made += counts["output_tokens"] or 0
            kinds.append(text(step.get("type"), 32))
    return {
        "iterations_input_tokens": given,
        "iterations_output_tokens": made,
        "iterations_types": kinds,
    }


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    if endpoint.name == "count_tokens":
        return CountReader()
    return MessagesReader() if endpoint.name != "batches" else QuietReader()


def _rule(path: str, endpoint: str, *methods: str, metered: bool = True) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(methods), metered)


FAMILY = Family(
    wire="anthropic",
    rules=(
        _rule(r"/messages/count_tokens$", "count_tokens", metered=False),
        _rule(r"/messages/batches(?:/|$)", "batches", metered=False),
        _rule(r"^(?!.*/threads/).*/messages$", "messages", "POST"),
        _rule(r"/v1/complete$", "anthropic_complete", "POST"),
        Rule(re.compile(r"/publishers/anthropic/models/(?P<model>[^/:]+):rawPredict$"), "messages"),
        Rule(
            re.compile(r"/publishers/anthropic/models/(?P<model>[^/:]+):streamRawPredict$"),
            "messages",
            streams=True,
        ),
    ),
    reader=_reader,
    refusal=anthropic_refusal,
    stream_error=anthropic_stream_error,
    turn=chat_turn,
    facts=anthropic_facts,
)
