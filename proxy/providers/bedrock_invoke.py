"""Amazon Bedrock's InvokeModel: each model's own format.

Owns: invoke and invoke-with-response-stream of Anthropic, Nova, Titan, Llama,
Mistral, Cohere, AI21 and OpenAI models
(https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html). Must
never: await or raise.

The body's usage comes first, then the invocation metrics of a stream's last chunk,
then the header fields. All of them exclude cached tokens; here they count.
"""

from __future__ import annotations

from typing import Any

from proxy.providers.anthropic import MessagesReader, message_counts
from proxy.providers.bedrock_common import BedrockReader, call_error, converse_counts
from proxy.providers.cohere import cohere_counts
from proxy.providers.counts import compatible_counts
from proxy.providers.openai import CompatibleReader
from proxy.providers.reading import Reader, count, items, part, text

_METRICS = "amazon-bedrock-invocationMetrics"


class InvokeReader(BedrockReader):
    """InvokeModel: whose format it is shows in the body."""

    def __init__(self) -> None:
        super().__init__()
        self._message = MessagesReader()
        self._chat = CompatibleReader()
        self._metrics: dict[str, Any] | None = None
        self._family: str | None = None

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        if "inputTokens" in native or "outputTokens" in native:
            return converse_counts(native)
        if "header_input" in native or "header_output" in native:
            return _sum_counts(
                native, "header_input", "header_output", "header_cache_read", "header_cache_write"
            )
        if "inputTokenCount" in native or "outputTokenCount" in native:
            return _sum_counts(
                native,
                "inputTokenCount",
                "outputTokenCount",
                "cacheReadInputTokenCount",
                "cacheWriteInputTokenCount",
            )
        if "billed_units" in native or "tokens" in native:
            return cohere_counts(native)
        if "prompt_tokens" in native or "completion_tokens" in native:
            return compatible_counts(native)
        if "inputTextTokenCount" in native:
            made = native.get("totalOutputTextTokenCount", native.get("tokenCount"))
            return {
                "input_tokens": count(native["inputTextTokenCount"]),
                "output_tokens": count(made),
            }
        if "prompt_token_count" in native:
            return {
                "input_tokens": count(native.get("prompt_token_count")),
                "output_tokens": count(native.get("generation_token_count")),
            }
        return message_counts(native)

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict) or self.status >= 400:
            self.fail(doc)
            return
        self._body(doc)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if self.exception(name, doc) or not isinstance(doc, dict):
            return None
        metrics = doc.get(_METRICS)
        if isinstance(metrics, dict):
            self._metrics = metrics
        if any(key.endswith("Exception") for key in doc) and len(doc) == 1:
            kind, value = next(iter(doc.items()))
            self.error = call_error(kind, part({"v": value}, "v").get("message"))
            return None
        self._body(doc, streamed=True)
        return None

    def _body(self, doc: dict[str, Any], *, streamed: bool = False) -> None:
        kind = doc.get("type")
        if (
            kind in ("message", "completion")
            or (isinstance(kind, str) and kind.startswith(("message_", "content_block_")))
            or "completion" in doc
        ):
            self._anthropic(doc, streamed)
        elif "choices" in doc:
            self._chat.event(b"", doc) if streamed else self._chat.document(doc)
            self._take(self._chat, "openai")
        elif "outputText" in doc or "inputTextTokenCount" in doc:
            self._titan(doc)
        elif "generation" in doc:
            self._llama(doc)
        elif isinstance(doc.get("outputs"), list):
            self._finishes(doc["outputs"], "stop_reason", "mistral", streamed)
        elif isinstance(doc.get("completions"), list):
            self._ai21(doc["completions"])
        elif {
            "output",
            "messageStart",
            "contentBlockDelta",
            "contentBlockStart",
            "contentBlockStop",
            "messageStop",
            "metadata",
        } & doc.keys():
            self._nova(doc)
        else:
            self._cohere(doc)

    def _take(self, reader: Reader, family: str) -> None:
        """Copy what another format's reader gathered."""
        self._family = family
        self.finish, self.tools = reader.finish, reader.tools
        self.server_tools, self.ended = reader.server_tools, reader.ended
        self.model = reader.model or self.model
        self.native = reader.native or self.native
        self.error = reader.error or self.error
        self.tier = reader.tier or self.tier
        self.text_bytes = reader.text_bytes

    def _anthropic(self, doc: dict[str, Any], streamed: bool) -> None:
        if streamed and doc.get("type") != "message":
            self._message.event(b"", doc)
        else:
            self._message.document(doc)
            if doc.get("stop_reason") is not None:
                self._message.add_finish(0, doc["stop_reason"])
        self._take(self._message, "claude_text" if "completion" in doc else "anthropic")

    def _titan(self, doc: dict[str, Any]) -> None:
        self._family = "titan"
        counted = self.native or {}
        for name in ("inputTextTokenCount", "totalOutputTextTokenCount"):
            if doc.get(name) is not None:
                counted[name] = doc[name]
        made = 0
        results = items(doc, "results")
        for number, result in enumerate(results):
            made += count(part({"r": result}, "r").get("tokenCount")) or 0
            reason = part({"r": result}, "r").get("completionReason")
            if reason is not None:
                self.add_finish(number, reason)
        if results:
            counted["tokenCount"] = made
        if counted:
            self.native = counted
        if doc.get("completionReason") is not None:
            self.ended = True
            self.add_finish(0, doc["completionReason"])
        self.text_bytes += len(text(doc.get("outputText"), 1 << 20) or "")
        if "embedding" in doc:
            self._family = "embedding"

    def _llama(self, doc: dict[str, Any]) -> None:
        self._family = "llama"
        self.text_bytes += len(text(doc.get("generation"), 1 << 24) or "")
        counted = dict(self.native or {})
        for name in ("prompt_token_count", "generation_token_count"):
            if doc.get(name) is not None:
                counted[name] = doc[name]
        if counted:
            self.native = counted
        if doc.get("stop_reason") is not None:
            self.ended = True
            self.add_finish(0, doc["stop_reason"])

    def _finishes(self, entries: list[Any], name: str, family: str, streamed: bool) -> None:
        self._family = family
        for number, entry in enumerate(entries):
            reason = part({"e": entry}, "e").get(name)
            if reason is not None or not streamed:
                self.ended = self.ended or reason is not None
                self.add_finish(number, reason)

    def _ai21(self, entries: list[Any]) -> None:
        self._family = "ai21"
        for number, entry in enumerate(entries):
            reason = part({"e": entry}, "e").get("finishReason")
            word = reason.get("reason") if isinstance(reason, dict) else reason
            self.add_finish(number, word)

    def _nova(self, doc: dict[str, Any]) -> None:
        self._family = "nova"
        usage = doc.get("usage") or part(doc, "metadata").get("usage")
        if isinstance(usage, dict) and usage:
            self.native = usage
        stop = doc.get("stopReason") or part(doc, "messageStop").get("stopReason")
        if stop is not None:
            self.ended = True
            self.add_finish(0, stop)
        delta = part(part(doc, "contentBlockDelta"), "delta")
        self.text_bytes += len(text(delta.get("text"), 1 << 20) or "")
        uses = [part(part(part(doc, "contentBlockStart"), "start"), "toolUse")]
        uses += [
            part(block, "toolUse")
            for block in items(part(part(doc, "output"), "message"), "content")
        ]
        for use in uses:
            if use.get("type") == "server_tool_use":
                self.add_server_tool(use.get("name"))
            elif use:
                self.add_tool(use.get("name"))

    def _cohere(self, doc: dict[str, Any]) -> None:
        if "generations" in doc:
            self._finishes(doc["generations"], "finish_reason", "cohere", False)
        elif doc.get("finish_reason") is not None or "event_type" in doc or "is_finished" in doc:
            self._family = "cohere"
            if doc.get("finish_reason") is not None:
                self.ended = True
                self.add_finish(0, doc["finish_reason"])
        meta = part(part(doc, "response"), "meta") or part(doc, "meta") or part(doc, "usage")
        if meta.get("billed_units") or meta.get("tokens"):
            self.native = meta
        elif isinstance(usage := doc.get("usage"), dict) and usage:
            self.native = usage
        for call in items(doc, "tool_calls"):
            self.add_tool(part({"c": call}, "c").get("name"))
        self.text_bytes += len(text(doc.get("text"), 1 << 20) or "")
        if "embedding" in doc or "embeddings" in doc:
            self._family = "embedding"
        if self.status < 400 and "message" in doc and len(doc) == 1:
            self.fail({"error": doc})

    def usage(self, *, complete: bool, streamed: bool) -> Any:
        if self._metrics is not None:
            self.extra["invocation_metrics"] = self._metrics
            self.extra["metrics_input_tokens"] = count(self._metrics.get("inputTokenCount"))
            self.extra["metrics_output_tokens"] = count(self._metrics.get("outputTokenCount"))
        if self.native is None or _is_partial(self.native):
            self.native = self._metrics or self.head_native() or self.native
        self.extra["invoke_family"] = self._family
        return super().usage(complete=complete, streamed=streamed)


def _is_partial(native: dict[str, Any]) -> bool:
    """Counts that lack their other half, as in Titan's and Llama's first chunks."""
    return native.keys() <= {"inputTextTokenCount"} or native.keys() == {"prompt_token_count"}


def _sum_counts(
    native: dict[str, Any], given: str, made: str, read: str, written: str
) -> dict[str, Any]:
    fresh, cached, stored = (count(native.get(name)) for name in (given, read, written))
    return {
        "input_tokens": None if fresh is None else fresh + (cached or 0) + (stored or 0),
        "output_tokens": count(native.get(made)),
        "cached_input_tokens": cached,
        "cache_write_tokens": stored,
    }
