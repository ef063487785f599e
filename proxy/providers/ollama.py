"""Ollama's own API: lines of JSON.

Owns: ``/api/chat``, ``/api/generate``, ``/api/embed``
(https://github.com/ollama/ollama/blob/main/docs/api.md). Must never: await or raise.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.family import Family, Rule
from proxy.providers.reading import Reader, count, items, part, text
from proxy.providers.refusals import ollama_refusal, ollama_stream_error
from proxy.providers.turns import chat_turn, ollama_facts


class OllamaReader(Reader):
    """An answer, or its pieces: the last one has the counts."""

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        return {
            "input_tokens": count(native.get("prompt_eval_count")),
            "output_tokens": count(native.get("eval_count")),
        }

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict):
            if self.status >= 400:
                self.fail(doc)
            return
        if doc.get("error") or self.status >= 400:
            self.fail(doc)
            return
        self.model = text(doc.get("model")) or self.model
        message = part(doc, "message")
        for call in items(message, "tool_calls"):
            self.add_tool(part(call, "function").get("name"))
        for words in (message.get("content"), message.get("thinking"), doc.get("response")):
            self.text_bytes += len(words) if isinstance(words, str) else 0
        native = {
            name: doc[name]
            for name in ("prompt_eval_count", "eval_count")
            if doc.get(name) is not None
        }
        if native:
            self.native = native
        if doc.get("done") is True:
            self.ended = True
            if doc.get("done_reason") is not None:
                self.add_finish(0, doc["done_reason"])


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    return OllamaReader()


def _rule(path: str, endpoint: str, *, metered: bool = True) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(("POST",)), metered)


FAMILY = Family(
    wire="ollama",
    rules=(
        _rule(r"/api/chat$", "ollama_chat"),
        _rule(r"/api/generate$", "ollama_generate"),
        _rule(r"/api/embed(?:dings)?$", "embeddings"),
    ),
    reader=_reader,
    refusal=ollama_refusal,
    stream_error=ollama_stream_error,
    turn=chat_turn,
    facts=ollama_facts,
)
