"""Cohere's own API, versions 1 and 2.

Owns: chat, generate, embed, rerank (https://docs.cohere.com/reference). Must
never: await or raise.

``tokens`` are what the model saw; ``billed_units`` what is charged. The counts are
the former, where told, and the latter go under ``extra``.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.family import Family, Rule
from proxy.providers.reading import Reader, count, items, part, text
from proxy.providers.refusals import cohere_refusal, cohere_stream_error
from proxy.providers.turns import chat_facts, cohere_turn


def cohere_counts(native: dict[str, Any]) -> dict[str, Any]:
    """The counts of ``usage`` (v2) or ``meta`` (v1)."""
    tokens = part(native, "tokens")
    billed = part(native, "billed_units")
    given = count(tokens.get("input_tokens"))
    made = count(tokens.get("output_tokens"))
    if given is None and made is None:
        given = count(billed.get("input_tokens"))
        made = count(billed.get("output_tokens"))
    return {
        "input_tokens": given,
        "output_tokens": made,
        "cached_input_tokens": count(native.get("cached_tokens")),
        "reasoning_tokens": count(tokens.get("reasoning_tokens")),
        "image_input_tokens": count(tokens.get("image_tokens")),
    }


class CohereReader(Reader):
    """Answers and events of both versions."""

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        billed = part(native, "billed_units")
        if billed:
            self.extra["billed_input_tokens"] = count(billed.get("input_tokens"))
            self.extra["billed_output_tokens"] = count(billed.get("output_tokens"))
            if (units := count(billed.get("search_units"))) is not None:
                self.extra["search_units"] = units
        return cohere_counts(native)

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict) or self.status >= 400:
            self.fail(doc)
            return
        native = part(doc, "usage") or part(doc, "meta")
        if native:
            self.native = native
        if doc.get("finish_reason") is not None:
            self.add_finish(0, doc["finish_reason"])
        message = part(doc, "message")
        for call in items(message, "tool_calls"):
            self.add_tool(part(call, "function").get("name"))
        for call in items(doc, "tool_calls"):
            self.add_tool(part({"c": call}, "c").get("name"))
        for block in items(message, "content"):
            self.text_bytes += len(text(part({"b": block}, "b").get("text"), 1 << 24) or "")
        self.text_bytes += len(text(doc.get("text"), 1 << 24) or "")
        for number, generation in enumerate(items(doc, "generations")):
            reason = part({"g": generation}, "g").get("finish_reason")
            if reason is not None:
                self.add_finish(number, reason)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if not isinstance(doc, dict):
            return None
        kind = doc.get("event_type") or doc.get("type")
        if kind == "stream-end":
            self.ended = True
            self.document(part(doc, "response"))
            if doc.get("finish_reason") is not None:
                self.add_finish(0, doc["finish_reason"])
            self._message_error(doc)
        elif kind == "message-end":
            self.ended = True
            delta = part(doc, "delta")
            self.add_finish(0, delta.get("finish_reason"))
            self.native = part(delta, "usage") or self.native
            self._message_error(delta)
        elif kind == "tool-call-start":
            call = part(part(part(doc, "delta"), "message"), "tool_calls")
            self.add_tool(part(call, "function").get("name"))
        elif kind == "content-delta":
            content = part(part(part(doc, "delta"), "message"), "content")
            words = content.get("text") or content.get("thinking")
            self.text_bytes += len(words) if isinstance(words, str) else 0
            return b'"text":"' if content.get("text") else None
        elif kind == "text-generation" or (kind is None and "is_finished" in doc):
            self.text_bytes += len(text(doc.get("text"), 1 << 20) or "")
            if doc.get("is_finished"):
                self.ended = True
                self.document(part(doc, "response"))
        elif kind is None and ("error" in doc or "message" in doc):
            self.fail(doc if "error" in doc else {"error": doc})
        return None

    def _message_error(self, doc: dict[str, Any]) -> None:
        if isinstance(message := doc.get("error"), str) and message:
            self.fail({"error": message})


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    return CohereReader()


_COHERE = frozenset(("cohere",))


def _rule(path: str, endpoint: str, *, metered: bool = True) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(("POST",)), metered, providers=_COHERE)


FAMILY = Family(
    wire="cohere",
    rules=(
        _rule(r"(?:^|/v1)/chat$", "cohere_chat_v1"),
        _rule(r"/v2/chat$", "cohere_chat_v2"),
        _rule(r"/generate$", "cohere_generate"),
        _rule(r"/embed$", "embeddings"),
        _rule(r"/rerank$", "rerank"),
        _rule(r"/(?:de)?tokenize$", "tokenize", metered=False),
    ),
    reader=_reader,
    refusal=cohere_refusal,
    stream_error=cohere_stream_error,
    turn=cohere_turn,
    facts=chat_facts,
)
