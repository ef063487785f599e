"""OpenAI's formats other than Responses, and all that speak like them.

Owns: chat completions, completions, embeddings, images, audio, moderations,
rerank: answers and streams (https://platform.openai.com/docs/api-reference), with
the places where other vendors keep the same facts. Must never: await or raise.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.assistants import RunReader
from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.counts import compatible_counts
from proxy.providers.family import Family, Rule
from proxy.providers.reading import QuietReader, Reader, items, part, text
from proxy.providers.refusals import openai_refusal, openai_stream_error
from proxy.providers.turns import chat_facts, chat_turn

_CONTENT = b'"content":"'


_begin = Reader.__init__


class CompatibleReader(Reader):
    """Chat completions and their kin."""

    def __init__(self, *, judged: bool = True) -> None:
        _begin(self)  # not by super(), which costs a short answer more than all of this
        self.judged = judged
        self._calls: dict[Any, str] = {}

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        if native.get("type") == "duration":
            self.extra["seconds"] = native.get("seconds")
        return compatible_counts(native)

    def _common(self, doc: dict[str, Any]) -> bool:
        """Model, usage, tier and error; did it say something that matters?"""
        news = False
        model = doc.get("model")
        if model and isinstance(model, str):
            self.model = model[:256]
        usage = doc.get("usage")
        if not usage:
            groq = doc.get("x_groq")
            usage = groq.get("usage") if isinstance(groq, dict) else None
        if usage and isinstance(usage, dict):
            self.native = usage
            news = True
        tier = doc.get("service_tier")
        if tier and isinstance(tier, str):
            self.tier = tier[:32]
        if doc.get("error") and self.fail(doc):
            news = True
        return news

    def document(self, doc: Any) -> None:
        if isinstance(doc, list):
            if self.status >= 400:
                self.fail(doc)
            return
        if not isinstance(doc, dict):
            return
        self._common(doc)
        if "duration" in doc and "text" in doc and self.native is None:
            # Transcriptions are billed by the second, where no tokens are told.
            self.extra["seconds"] = _seconds(doc["duration"])
        if self.error is None and (self.status >= 400 or "choices" not in doc):
            self.fail(doc)
        choices = doc.get("choices")
        if isinstance(choices, list):
            for number, choice in enumerate(choices):
                self._choice(choice, number)

    def _choice(self, choice: Any, number: int) -> None:
        if not isinstance(choice, dict):
            return
        index = choice.get("index", number)
        self.add_finish(number if index is None else index, choice.get("finish_reason"))
        message = choice.get("message")
        if not isinstance(message, dict):
            self.text_bytes += len(text(choice.get("text"), 1 << 20) or "")
            return
        for member in ("content", "reasoning_content", "reasoning"):
            if member in message and isinstance(words := message[member], str):
                self.text_bytes += len(words)
        if "tool_calls" in message:
            for call in items(message, "tool_calls"):
                if isinstance(call, dict):
                    self.add_tool(
                        part(call, "function").get("name") or part(call, "custom").get("name")
                    )
        if message.get("function_call"):
            self.add_tool(part(message, "function_call").get("name"))

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if not isinstance(doc, dict):
            return None
        if "choices" not in doc and isinstance(doc.get("data"), dict) and "type" not in doc:
            doc = doc["data"]
        news = self._common(doc)
        if name == b"error" and self.error is None:
            news = self.fail(doc if "error" in doc else {"error": doc})
        elif "choices" not in doc and not news:
            self._loose_event(doc)
            return None
        boring: bytes | None = None
        for choice in items(doc, "choices"):
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            index = index if type(index) is int else 0
            reason = choice.get("finish_reason")
            if reason is not None or index not in self.finish:
                self.add_finish(index, reason)
                if reason:
                    self.ended = True
                news = True
            delta = choice.get("delta")
            if isinstance(delta, dict):
                boring = self._delta(index, delta) or boring
                news = news or boring is None
            elif isinstance(words := choice.get("text"), str):
                self.text_bytes += len(words)
                boring = b'"text":"'
            if isinstance(message := choice.get("message"), dict) and not delta:
                for call in items(message, "tool_calls"):
                    self.add_tool(part(call, "function").get("name"))
                boring, news = None, True
        return None if news else boring

    def _loose_event(self, doc: dict[str, Any]) -> None:
        """Events without choices: images and transcriptions stream in Responses' style."""
        kind = doc.get("type")
        if isinstance(kind, str) and kind.endswith((".completed", ".done")):
            self.ended = True
        if isinstance(delta := doc.get("delta"), str):
            self.text_bytes += len(delta)
        if doc.get("object") == "error" or kind == "error":
            self.fail(doc)

    def _delta(self, index: Any, delta: dict[str, Any]) -> bytes | None:
        """One delta of a choice; the member that holds its text if that is all."""
        member: bytes | None = None
        for call in items(delta, "tool_calls"):
            if not isinstance(call, dict):
                continue
            function = part(call, "function")
            # A name may be repeated in later deltas of a call, and an index used for the next.
            name = function.get("name") or part(call, "custom").get("name")
            if isinstance(name, str) and name:
                number = call.get("index")
                key = (index, number if type(number) is int else 0)
                ident = text(call.get("id"), 128) or ""
                known = self._calls.get(key)
                if known is None or (ident and known != ident):
                    self.add_tool(name)
                    if len(self._calls) < 512:
                        self._calls[key] = ident
            arguments = function.get("arguments")
            if isinstance(arguments, str):
                self.text_bytes += len(arguments)
            member = None if name else b'"arguments":"'
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            if legacy.get("name"):
                self.add_tool(legacy["name"])
            self.text_bytes += len(text(legacy.get("arguments"), 1 << 20) or "")
        content = delta.get("content")
        if isinstance(content, str) and content:
            self.text_bytes += len(content)
            return None if delta.get("tool_calls") else _CONTENT
        if member is not None:
            return member if len(delta["tool_calls"]) == 1 else None
        for name in ("reasoning_content", "reasoning"):
            words = delta.get(name)
            if isinstance(words, str) and words:
                self.text_bytes += len(words)
                return f'"{name}":"'.encode()
        return None

    def done(self) -> None:
        """``[DONE]`` alone proves nothing: it also follows an answer that was cut."""


def _seconds(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e7 else None


#: Unmetered answers that tell the usage of an earlier call.
_CARRY_USAGE = frozenset(("chat_completions_item", "batches", "unknown"))
#: Endpoints whose streams end with a finish reason.
_JUDGED = frozenset(("chat_completions", "completions", "fim_completions"))


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    if endpoint.name == "assistants":
        return RunReader()
    if not endpoint.metered and endpoint.name not in _CARRY_USAGE:
        return QuietReader()
    return CompatibleReader(judged=endpoint.name in _JUDGED)


def _rule(path: str, endpoint: str, *methods: str, metered: bool = True) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(methods), metered)


FAMILY = Family(
    wire="openai",
    rules=(
        _rule(
            r"/organization/usage/(?:completions|audio_\w+|moderations|images)",
            "admin_usage",
            metered=False,
        ),
        _rule(r"/organization/costs", "admin_usage", metered=False),
        _rule(r"/threads(?:/|$)|/assistants(?:/|$)", "assistants", "POST"),
        _rule(r"/threads(?:/|$)|/assistants(?:/|$)", "assistants", metered=False),
        _rule(r"/batch(?:es|/jobs)(?:/|$)", "batches", metered=False),
        _rule(r"/files(?:/|$)|/uploads(?:/|$)", "files", metered=False),
        _rule(r"/fine_tuning/", "fine_tuning", metered=False),
        _rule(r"/vector_stores(?:/|$)", "vector_stores", metered=False),
        _rule(r"/containers(?:/|$)", "containers", metered=False),
        _rule(r"/traces/ingest$", "traces", metered=False),
        # Vertex serves other makers' models in their own, compatible formats.
        Rule(
            re.compile(r"/publishers/[^/]+/models/(?P<model>[^/:]+):rawPredict$"),
            "chat_completions",
        ),
        Rule(
            re.compile(r"/publishers/[^/]+/models/(?P<model>[^/:]+):streamRawPredict$"),
            "chat_completions",
            streams=True,
        ),
        Rule(re.compile(r"/openai$"), "chat_completions", providers=frozenset(("pollinations",))),
        Rule(re.compile(r"/chat$"), "chat_completions", providers=frozenset(("writer", "watsonx"))),
        _rule(r"/chat/completions$", "chat_completions", "POST"),
        _rule(r"/chat/completions(?:/|$)", "chat_completions_item", metered=False),
        _rule(r"/fim/completions$", "fim_completions", "POST"),
        _rule(r"/agents/completions$", "chat_completions", "POST"),
        _rule(r"/completions$", "completions", "POST"),
        _rule(r"/embeddings$|/embed$", "embeddings"),
        _rule(
            r"/realtime/(?:client_secrets|calls|sessions|transcription_sessions)",
            "realtime_http",
            metered=False,
        ),
        _rule(r"/realtime$", "realtime_ws", "GET"),
        _rule(r"/images?(?:/(?:generations|edits|variations))?$", "images", "POST"),
        _rule(r"/audio/speech$|/tts$|/text-to-speech(?:/|$)", "audio_speech", "POST"),
        _rule(r"/audio/(?:transcriptions|translations)$|/stt$", "audio_transcription", "POST"),
        _rule(r"/moderations$", "moderations", "POST"),
        _rule(r"/rerank(?:ing)?$", "rerank", "POST"),
        _rule(r"/videos(?:/|$)", "videos"),
        _rule(r"/models(?:/|$)", "models", "GET", "HEAD", metered=False),
    ),
    reader=_reader,
    refusal=openai_refusal,
    stream_error=openai_stream_error,
    turn=chat_turn,
    facts=chat_facts,
)
