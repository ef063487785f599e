"""Google's Gemini API, at AI Studio and on Vertex.

Owns: generateContent and streamGenerateContent (as events and as one JSON array),
embedContent, predict, interactions (https://ai.google.dev/api). Must never: await
or raise.

Thoughts stand beside the candidates and tool-use prompts beside the prompt; both
are added here. The usage of a stream is told in every chunk and the last one
counts, even where it is smaller.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.family import Family, Rule
from proxy.providers.limits import reset_seconds
from proxy.providers.reading import CountReader, QuietReader, Reader, count, items, part, text
from proxy.providers.refusals import google_refusal, google_stream_error
from proxy.providers.turns import gemini_facts, gemini_turn

_TIERS = {"flex": "flex", "priority": "priority", "standard": "standard"}


def member(doc: dict[str, Any], name: str) -> Any:
    """A member by its camelCase name, or by the snake_case one that servers also take."""
    value = doc.get(name)
    if value is None:
        value = doc.get(re.sub(r"[A-Z]", lambda m: "_" + m[0].lower(), name))
    return value


def _of_modality(details: Any, modality: str) -> int | None:
    found = None
    for entry in details if isinstance(details, list) else ():
        if isinstance(entry, dict) and str(entry.get("modality", "")).upper() == modality:
            tokens = count(member(entry, "tokenCount"))
            if tokens is None:
                tokens = count(entry.get("tokens"))
            if tokens is not None:
                found = (found or 0) + tokens
    return found


def metadata_counts(native: dict[str, Any]) -> dict[str, Any]:
    """The counts of ``usageMetadata``; Live says ``response`` instead of ``candidates``."""
    prompt = count(member(native, "promptTokenCount"))
    tools = count(member(native, "toolUsePromptTokenCount"))
    made = count(member(native, "candidatesTokenCount"))
    if made is None:
        made = count(member(native, "responseTokenCount"))
    thoughts = count(member(native, "thoughtsTokenCount"))
    given = (prompt or 0) + (tools or 0) if prompt is not None or tools is not None else None
    total_made = (made or 0) + (thoughts or 0) if made is not None or thoughts is not None else None
    before = member(native, "promptTokensDetails") or member(native, "promptTokenDetails")
    after = member(native, "candidatesTokensDetails") or member(native, "responseTokensDetails")
    tier = text(member(native, "serviceTier"), 32) or text(member(native, "trafficType"), 32)
    return {
        "input_tokens": given,
        "output_tokens": total_made,
        "cached_input_tokens": count(member(native, "cachedContentTokenCount")),
        "reasoning_tokens": thoughts,
        "audio_input_tokens": _of_modality(before, "AUDIO"),
        "cached_audio_tokens": _of_modality(member(native, "cacheTokensDetails"), "AUDIO"),
        "image_input_tokens": _of_modality(before, "IMAGE"),
        "audio_output_tokens": _of_modality(after, "AUDIO"),
        "image_output_tokens": _of_modality(after, "IMAGE"),
        "total_tokens": count(member(native, "totalTokenCount")),
        "service_tier": tier.lower() if tier else None,
    }


class GeminiReader(Reader):
    """``GenerateContentResponse`` objects, one or many."""

    array_streams: ClassVar[bool] = True
    _searches = 0

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        tools = count(member(native, "toolUsePromptTokenCount"))
        if tools is not None:
            self.extra["tool_use_prompt_tokens"] = tools
        return {**metadata_counts(native), "web_searches": self._searches or None}

    def document(self, doc: Any) -> None:
        self.event(b"", doc)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if not isinstance(doc, dict):
            if self.status >= 400:
                self.fail(doc)
            return None
        if "error" in doc or (self.status >= 400 and "candidates" not in doc):
            self.fail(doc)
            for detail in items(doc.get("error"), "details"):
                delay = text(part({"d": detail}, "d").get("retryDelay"), 32)
                if delay is not None:
                    self.retry_after_seconds = reset_seconds(delay, 0.0)
            return None
        inner = doc.get("response")
        if isinstance(inner, dict) and "candidates" not in doc:
            doc = inner
        self.model = text(member(doc, "modelVersion")) or self.model
        usage = member(doc, "usageMetadata")
        if isinstance(usage, dict) and usage:
            self.native = usage
        for number, candidate in enumerate(items(doc, "candidates")):
            self._candidate(candidate, number)
        blocked = member(part(doc, "promptFeedback") or part(doc, "prompt_feedback"), "blockReason")
        if blocked is not None:
            self.extra["block_reason"] = text(str(blocked), 64)
            self.ended = True
        if "predictions" in doc:
            self._predictions(doc)
        return None

    def _candidate(self, candidate: Any, number: int) -> None:
        if not isinstance(candidate, dict):
            return
        reason = member(candidate, "finishReason")
        index = candidate.get("index", number)
        if reason is not None:
            self.ended = True
        self.add_finish(index, reason)
        for piece in items(part(candidate, "content"), "parts"):
            if not isinstance(piece, dict):
                continue
            words = piece.get("text")
            if isinstance(words, str):
                self.text_bytes += len(words)
                continue
            call = member(piece, "functionCall")
            if isinstance(call, dict):
                self.add_tool(call.get("name"))
            elif isinstance(member(piece, "executableCode"), dict):
                self.add_server_tool("code_execution")
        searches = items(part(candidate, "groundingMetadata"), "webSearchQueries")
        if searches:
            self._searches = max(self._searches, len(searches))

    def _predictions(self, doc: dict[str, Any]) -> None:
        """Vertex embeddings and text models: counts stand in each prediction."""
        total = 0
        for prediction in items(doc, "predictions"):
            statistics = part(part(prediction, "embeddings"), "statistics")
            total += count(statistics.get("token_count")) or 0
        tokens = part(part(doc, "metadata"), "tokenMetadata")
        given = count(part(tokens, "inputTokenCount").get("totalTokens"))
        made = count(part(tokens, "outputTokenCount").get("totalTokens"))
        if total or given is not None:
            self.native = {"promptTokenCount": given if given is not None else total}
            if made is not None:
                self.native["candidatesTokenCount"] = made

    def usage(self, *, complete: bool, streamed: bool) -> Any:
        if self.finish == {0: None} and "block_reason" in self.extra:
            self.finish = {}
        return super().usage(complete=complete, streamed=streamed)


class InteractionsReader(Reader):
    """The Interactions API (https://ai.google.dev/api/interactions-api)."""

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        given = count(native.get("total_input_tokens"))
        tools = count(native.get("total_tool_use_tokens"))
        made = count(native.get("total_output_tokens"))
        thoughts = count(native.get("total_thought_tokens"))
        if tools is not None:
            self.extra["tool_use_prompt_tokens"] = tools
        by = native.get("input_tokens_by_modality")
        out = native.get("output_tokens_by_modality")
        return {
            "input_tokens": None if given is None else given + (tools or 0),
            "output_tokens": None if made is None else made + (thoughts or 0),
            "cached_input_tokens": count(native.get("total_cached_tokens")),
            "reasoning_tokens": thoughts,
            "audio_input_tokens": _of_modality(by, "AUDIO"),
            "image_input_tokens": _of_modality(by, "IMAGE"),
            "audio_output_tokens": _of_modality(out, "AUDIO"),
            "image_output_tokens": _of_modality(out, "IMAGE"),
            "total_tokens": count(native.get("total_tokens")),
        }

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict) or self.status >= 400:
            self.fail(doc)
            return
        self._interaction(doc)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if not isinstance(doc, dict):
            return None
        kind = str(doc.get("event_type", ""))
        if kind == "error" or name == b"error":
            self.fail(doc if "error" in doc else {"error": doc})
        elif isinstance(doc.get("interaction"), dict):
            self._interaction(doc["interaction"])
            if kind.endswith((".completed", ".complete", ".failed", ".incomplete")):
                self.ended = True
        elif kind.endswith(".start"):
            self._step(doc.get("step") or doc.get("content"))
        delta = doc.get("delta")
        if isinstance(delta, dict):
            words = delta.get("text") or part(delta, "content").get("text")
            self.text_bytes += len(words) if isinstance(words, str) else 0
        return None

    def _interaction(self, doc: dict[str, Any]) -> None:
        self.model = text(doc.get("model")) or self.model
        usage = doc.get("usage")
        if isinstance(usage, dict) and usage:
            self.native = usage
        self.tier = text(doc.get("service_tier"), 32) or self.tier
        status = doc.get("status")
        if isinstance(status, str):
            self.finish = {0: status[:64]}
        if isinstance(doc.get("error"), dict) and doc["error"]:
            self.fail(doc)
        for step in items(doc, "steps") or items(doc, "outputs"):
            self._step(step)

    def _step(self, step: Any) -> None:
        if not isinstance(step, dict):
            return
        kind = str(step.get("type", ""))
        if kind == "function_call":
            self.add_tool(step.get("name"))
        elif kind.endswith("_call"):
            self.add_server_tool(kind)


class CachedContentReader(QuietReader):
    """A cache's description: its model, and how large it is, which is no usage."""

    def document(self, doc: Any) -> None:
        super().document(doc)
        if isinstance(doc, dict):
            self.model = text(doc.get("model"))


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    if endpoint.name == "interactions":
        return InteractionsReader()
    if endpoint.name == "count_tokens":
        return CountReader()
    if endpoint.name == "cached_contents":
        return CachedContentReader()
    if not endpoint.metered and endpoint.name != "batches":
        return QuietReader()
    return GeminiReader()


_MODEL = r"(?:models|tunedModels|endpoints)/(?P<model>[^/:]+)"


def _rule(
    path: str, endpoint: str, *methods: str, metered: bool = True, streams: bool = False
) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(methods), metered, streams)


FAMILY = Family(
    wire="gemini",
    rules=(
        _rule(_MODEL + r":generateContent$", "generate_content"),
        _rule(_MODEL + r":streamGenerateContent$", "generate_content", streams=True),
        _rule(_MODEL + r":(?:batch)?[eE]mbedContents?$", "embed_content"),
        _rule(_MODEL + r":(?:asyncB|b)atch\w+$", "batches", metered=False),
        _rule(_MODEL + r":countTokens$", "count_tokens", metered=False),
        _rule(r"/count-tokens:rawPredict$", "count_tokens", metered=False),
        _rule(_MODEL + r":predictLongRunning$", "videos"),
        _rule(_MODEL + r":predict$", "vertex_predict"),
        _rule(r"/interactions(?:/[^/]+)?$", "interactions"),
        _rule(r"GenerativeService\.BidiGenerateContent|LlmBidiService/Bidi", "realtime_ws"),
        _rule(r"/cachedContents(?:/|$)", "cached_contents", metered=False),
        _rule(r"/fileSearchStores(?:[/:]|$)|/v\d\w*/files/[^/]+:download$", "files", metered=False),
        _rule(r"/operations/", "operations", metered=False),
    ),
    reader=_reader,
    refusal=google_refusal,
    stream_error=google_stream_error,
    turn=gemini_turn,
    facts=gemini_facts,
    array_streams=True,
)
