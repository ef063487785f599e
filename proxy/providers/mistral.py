"""Mistral's API: OpenAI's formats with words of its own.

Owns: what ``api.mistral.ai`` does differently (https://docs.mistral.ai/api): its
errors, its conversations. Must never: await or raise.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.family import Family, Rule
from proxy.providers.openai import CompatibleReader
from proxy.providers.reading import Reader, count, items, part, text
from proxy.providers.refusals import mistral_refusal, mistral_stream_error
from proxy.providers.turns import chat_facts, chat_turn


class MistralReader(CompatibleReader):
    """Chat answers, and the entries of a conversation."""

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        found = super().counts(native)
        given, made, audio = (
            found.get("input_tokens"),
            found.get("output_tokens") or 0,
            found.get("audio_input_tokens"),
        )
        if given is not None and audio and given + made + audio == found.get("total_tokens"):
            # Audio is billed, but told only in the total.
            found["input_tokens"] = given + audio
        return found

    def document(self, doc: Any) -> None:
        super().document(doc)
        pages = count(part(doc, "usage_info").get("pages_processed"))
        if pages is not None:
            self.extra["pages"] = pages
        for entry in items(doc, "outputs"):
            self._entry(entry)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        member = super().event(name, doc)
        kind = str(doc.get("type", "")) if isinstance(doc, dict) else ""
        if kind == "conversation.response.done":
            self.ended = True
        elif kind == "conversation.response.error":
            self.fail({"error": doc})
        elif kind == "function.call.delta":
            call = text(doc.get("tool_call_id"), 128)
            if call not in self._calls and len(self._calls) < 512:
                self._calls[call] = ""
                self.add_tool(doc.get("name"))
        elif kind == "tool.execution.started":
            self.add_server_tool(doc.get("name"))
        elif kind == "message.output.delta":
            self.model = text(doc.get("model")) or self.model
            self.text_bytes += len(text(doc.get("content"), 1 << 20) or "")
        return member

    def _entry(self, entry: Any) -> None:
        kind = part({"e": entry}, "e").get("type")
        if kind == "function.call":
            self.add_tool(entry.get("name"))
        elif kind == "tool.execution":
            self.add_server_tool(entry.get("name"))
        elif kind == "message.output":
            self.model = text(entry.get("model")) or self.model


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    return MistralReader()


def _facts(body: dict[str, Any]) -> dict[str, Any]:
    """Mistral's streams tell their usage unasked."""
    return {**chat_facts(body), "include_usage": None}


_MISTRAL = frozenset(("mistral",))


def _rule(path: str, endpoint: str, *methods: str, metered: bool = True) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(methods), metered, providers=_MISTRAL)


FAMILY = Family(
    wire="mistral",
    rules=(
        _rule(r"/agents(?:/|$)(?!completions)", "agents", metered=False),
        _rule(r"/conversations(?:/|$)", "conversations"),
        _rule(r"/(?:chat|agents)/completions$", "chat_completions", "POST"),
        _rule(r"/fim/completions$", "fim_completions", "POST"),
        _rule(r"/embeddings$", "embeddings", "POST"),
        _rule(r"/ocr$", "ocr", "POST"),
        _rule(r"/audio/speech$", "audio_speech", "POST"),
        _rule(r"/audio/transcriptions(?:#stream)?$", "audio_transcription", "POST"),
        _rule(r"/(?:chat/)?(?:moderations|classifications)$", "moderations", "POST"),
    ),
    reader=_reader,
    refusal=mistral_refusal,
    stream_error=mistral_stream_error,
    turn=chat_turn,
    facts=_facts,
)
