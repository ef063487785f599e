"""WebSocket sessions: OpenAI Realtime, Responses over WebSocket, Gemini Live.

Owns: the messages of a session, both ways, and their sum
(https://platform.openai.com/docs/guides/realtime, https://ai.google.dev/api/live).
Must never: await, raise, or keep a session's content.

A session holds many responses; each is billed. The sum goes into the counts, the
single ones under ``extra["responses"]``.
"""

from __future__ import annotations

from typing import Any

from detection.types import CallError, Usage
from proxy.providers.base import Endpoint, Headers
from proxy.providers.counts import compatible_counts
from proxy.providers.errors import read_error
from proxy.providers.gemini import member, metadata_counts
from proxy.providers.reading import items, part, text
from proxy.providers.skim import loads
from proxy.providers.websocket import FrameReader, agreed_deflate

_MAX_KEPT = 256
_SUMMED = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cached_audio_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_input_tokens",
    "image_output_tokens",
    "total_tokens",
)
#: Most messages of a session are audio or text on its way; these beginnings are enough.
_SKIPPED = (
    b'{"type":"response.output_audio.delta"',
    b'{"type":"response.audio.delta"',
    b'{"type":"response.output_text.delta"',
    b'{"type":"response.output_audio_transcript.delta"',
    b'{"type":"response.audio_transcript.delta"',
    b'{"type":"input_audio_buffer.append"',
)


class Session:
    """One WebSocket connection to a provider."""

    def __init__(self, endpoint: Endpoint, headers: Headers) -> None:
        deflate, client, server = agreed_deflate(headers.get("sec-websocket-extensions", ""))
        self._client = FrameReader(self._sent, deflate=deflate, keep_context=client)
        self._server = FrameReader(self._received, deflate=deflate, keep_context=server)
        self._gemini = endpoint.wire == "gemini"
        self._sums: dict[str, int] = {}
        self._tokens = 0
        self._responses: list[dict[str, Any]] = []
        self._transcriptions: list[dict[str, Any]] = []
        self._native: dict[str, Any] | None = None
        self._model: str | None = None
        self._asked: str | None = endpoint.model
        self._finish: list[str] = []
        self._tools: list[str] = []
        self._server_tools: list[str] = []
        self._error: CallError | None = None
        self._tier: str | None = None
        self._complete: bool | None = None
        self._text_bytes = 0
        self.faults = 0

    def feed_client(self, data: bytes) -> None:
        """What the client sent."""
        self._client.feed(data)

    def feed_server(self, data: bytes) -> None:
        """What the provider sent."""
        self._server.feed(data)

    def close(self, *, complete: bool) -> Usage:
        """The sum over the session."""
        extra: dict[str, Any] = {}
        if self._asked is not None:
            extra["model_requested"] = self._asked
        if self._responses:
            extra["usage_messages" if self._gemini else "responses"] = self._responses
        if self._transcriptions:
            extra["transcription_usage"] = self._transcriptions
        if self._native is not None:
            extra["native_usage"] = self._native
        if self._sums.get("cached_audio_tokens"):
            extra["cached_audio_tokens"] = self._sums["cached_audio_tokens"]
        return Usage(
            source="reported" if self._sums else "unknown",
            model_served=self._model,
            finish_reasons=tuple(self._finish),
            tool_call_names=tuple(self._tools),
            server_tool_names=tuple(self._server_tools),
            error=self._error,
            service_tier=self._tier,
            output_bytes=self._text_bytes,
            complete=self._complete,
            extra=extra,
            **{name: self._sums.get(name) for name in _SUMMED if name != "cached_audio_tokens"},
        )

    def _sent(self, message: bytes) -> None:
        if message.startswith(_SKIPPED):
            return
        try:
            self._sent_document(loads(message))
        except Exception:
            self.faults += 1

    def _received(self, message: bytes) -> None:
        if message.startswith(_SKIPPED):
            self._text_bytes += len(message)
            return
        try:
            self._received_document(loads(message))
        except Exception:
            self.faults += 1

    def _sent_document(self, doc: Any) -> None:
        setup = part(doc, "setup")
        model = text(setup.get("model")) or text(part(doc, "session").get("model"))
        if model is None and isinstance(doc, dict) and doc.get("type") == "response.create":
            model = text(doc.get("model")) or text(part(doc, "response").get("model"))
        if model is not None and self._asked is None:
            self._asked = model

    def _received_document(self, doc: Any) -> None:
        if not isinstance(doc, dict):
            return
        kind = doc.get("type")
        if self._gemini or "serverContent" in doc or "usageMetadata" in doc:
            self._live(doc)
        elif kind == "session.created":
            self._model = text(part(doc, "session").get("model")) or self._model
        elif kind in (
            "response.done",
            "response.completed",
            "response.failed",
            "response.incomplete",
        ):
            self._response(doc, part(doc, "response"), str(kind))
        elif kind == "error":
            self._error = read_error(doc, 400)
        elif isinstance(doc.get("response"), dict):
            self._model = text(doc["response"].get("model")) or self._model
        elif "transcription" in str(kind) and isinstance(doc.get("usage"), dict):
            self._transcriptions = [*self._transcriptions[-_MAX_KEPT:], doc["usage"]]

    def _response(self, doc: dict[str, Any], response: dict[str, Any], kind: str) -> None:
        """One response is over. xAI puts its usage beside the response, not inside."""
        self._model = text(response.get("model")) or self._model
        self._tier = text(response.get("service_tier"), 32) or self._tier
        usage = part(response, "usage") or part(doc, "usage")
        if usage:
            self._add(compatible_counts(usage), usage)
        status = text(response.get("status"), 64)
        if status is not None and len(self._finish) < _MAX_KEPT:
            reason = part(response, "incomplete_details").get("reason")
            word = f"{status}:{reason}" if isinstance(reason, str) else status
            if kind == "response.done":
                self._finish.append(word)
            else:
                self._finish = [word]
                self._complete = True
        for item in items(response, "output"):
            name = part({"i": item}, "i")
            if name.get("type") in ("function_call", "custom_tool_call"):
                if isinstance(name.get("name"), str) and len(self._tools) < _MAX_KEPT:
                    self._tools.append(name["name"][:128])
            elif str(name.get("type", "")).endswith("_call"):
                self._server_tools.append(str(name["type"])[:128])
        error = part(response, "error") or part(part(response, "status_details"), "error")
        if error:
            self._error = read_error({"error": error}, 400)

    def _live(self, doc: dict[str, Any]) -> None:
        usage = member(doc, "usageMetadata")
        if isinstance(usage, dict) and usage:
            self._add(metadata_counts(usage), usage)
        call = member(doc, "toolCall")
        for function in items(call, "functionCalls"):
            name = part({"f": function}, "f").get("name")
            if isinstance(name, str) and len(self._tools) < _MAX_KEPT:
                self._tools.append(name[:128])
        if "error" in doc:
            self._error = read_error(doc, 400)

    def _add(self, counts: dict[str, Any], native: dict[str, Any]) -> None:
        self._native = native
        for name in _SUMMED:
            value = counts.get(name)
            if value is not None:
                self._sums[name] = self._sums.get(name, 0) + value
        if len(self._responses) < _MAX_KEPT:
            self._responses.append(native)
