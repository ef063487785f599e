"""OpenAI's Responses API, as JSON and as a stream, and those who copy it.

Owns: ``/v1/responses`` and what hangs below it
(https://platform.openai.com/docs/api-reference/responses). Must never: await or
raise.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.counts import compatible_counts
from proxy.providers.family import Family, Rule
from proxy.providers.reading import CountReader, QuietReader, Reader, items, part, text
from proxy.providers.refusals import openai_refusal, openai_stream_error
from proxy.providers.turns import responses_facts, responses_turn

_TERMINAL = frozenset(("response.completed", "response.failed", "response.incomplete"))
_CLIENT_CALLS = frozenset(("function_call", "custom_tool_call"))


class ResponsesReader(Reader):
    """One response object, whole or told in events."""

    skipped = frozenset(
        (
            b"response.in_progress",
            b"response.queued",
            b"response.output_text.delta",
            b"response.output_text.done",
            b"response.output_text.annotation.added",
            b"response.content_part.added",
            b"response.content_part.done",
            b"response.refusal.delta",
            b"response.refusal.done",
            b"response.function_call_arguments.delta",
            b"response.function_call_arguments.done",
            b"response.custom_tool_call_input.delta",
            b"response.custom_tool_call_input.done",
            b"response.mcp_call_arguments.delta",
            b"response.mcp_call_arguments.done",
            b"response.code_interpreter_call_code.delta",
            b"response.code_interpreter_call_code.done",
            b"response.reasoning_text.delta",
            b"response.reasoning_text.done",
            b"response.reasoning_summary_text.delta",
            b"response.reasoning_summary_text.done",
            b"response.reasoning_summary_part.added",
            b"response.reasoning_summary_part.done",
            b"response.image_generation_call.partial_image",
            b"response.audio.delta",
            b"response.audio.transcript.delta",
        )
    )

    def __init__(self) -> None:
        super().__init__()
        self._items: list[tuple[str, str | None]] = []
        self._searches = 0

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        found = compatible_counts(native)
        found["web_searches"] = found.get("web_searches") or self._searches or None
        return found

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict):
            if self.status >= 400:
                self.fail(doc)
            return
        if (self.status >= 400 or "object" not in doc) and self.fail(doc):
            return
        self._response(doc)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if not isinstance(doc, dict):
            return None
        kind = text(doc.get("type"), 64)
        response = doc.get("response")
        if isinstance(response, dict):
            if kind in _TERMINAL:
                self.ended = True
            self._response(response)
        elif kind == "response.output_item.done":
            if len(self._items) < 256 and isinstance(item := doc.get("item"), dict):
                self._items.append(_item(item))
        elif kind == "error" or name == b"error":
            self.fail(doc if "error" in doc else {"error": doc})
        elif isinstance(delta := doc.get("delta"), str):
            self.text_bytes += len(delta)
        elif doc.get("object") == "response":
            self._response(doc)
        return None

    def _response(self, doc: dict[str, Any]) -> None:
        self.model = text(doc.get("model")) or self.model
        usage = doc.get("usage")
        if isinstance(usage, dict) and usage:
            self.native = usage
        self.tier = text(doc.get("service_tier"), 32) or self.tier
        error = doc.get("error")
        if isinstance(error, dict) and error:
            self.fail(doc)
        status = doc.get("status")
        if isinstance(status, str):
            reason = part(doc, "incomplete_details").get("reason")
            word = f"{status}:{reason}" if isinstance(reason, str) else status
            self.finish = {0: word[:64]}
        else:
            self.finish = {0: None}
        output = items(doc, "output")
        if output:
            self._items = [_item(i) for i in output[:256] if isinstance(i, dict)]
            for item in output:
                for piece in items(item, "content"):
                    words = part({"p": piece}, "p").get("text")
                    self.text_bytes += len(words) if isinstance(words, str) else 0

    def usage(self, *, complete: bool, streamed: bool) -> Any:
        for kind, name in self._items:
            if kind in _CLIENT_CALLS:
                self.add_tool(name)
            elif kind.endswith("_call"):
                self.add_server_tool(kind)
                self._searches += kind == "web_search_call"
        self._items = []
        return super().usage(complete=complete, streamed=streamed)


def _item(item: dict[str, Any]) -> tuple[str, str | None]:
    """An output item's type, and its name where it has one."""
    return text(item.get("type"), 64) or "", text(item.get("name"), 128)


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    if endpoint.name == "count_tokens":
        return CountReader()
    return QuietReader() if endpoint.name == "conversations" else ResponsesReader()


def _rule(path: str, endpoint: str, *methods: str, metered: bool = True) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(methods), metered)


FAMILY = Family(
    wire="responses",
    rules=(
        _rule(r"/responses/input_tokens$", "count_tokens", metered=False),
        _rule(r"/responses/compact$", "responses_compact", "POST"),
        _rule(r"/responses$", "responses"),
        _rule(r"/responses(?:/|$)", "responses_item", metered=False),
        _rule(r"/conversations(?:/|$)", "conversations", metered=False),
    ),
    reader=_reader,
    refusal=openai_refusal,
    stream_error=openai_stream_error,
    turn=responses_turn,
    facts=responses_facts,
)
