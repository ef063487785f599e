"""Amazon Bedrock: Converse, and each model's own format by InvokeModel.

Owns: converse, converse-stream, invoke, invoke-with-response-stream
(https://docs.aws.amazon.com/bedrock/latest/APIReference), and the counts in
header fields. Must never: await or raise.

The body's usage comes first, then the invocation metrics of a stream's last
chunk, then the header fields. All of them exclude cached tokens; here they count.
"""

from __future__ import annotations

import re
from typing import Any

from detection.types import CallError
from proxy.providers.anthropic import MessagesReader, message_counts
from proxy.providers.base import Endpoint, Headers, RequestFacts
from proxy.providers.cohere import cohere_counts
from proxy.providers.counts import compatible_counts
from proxy.providers.family import Family, Rule
from proxy.providers.openai import CompatibleReader
from proxy.providers.reading import CountReader, Reader, count, items, part, text
from proxy.providers.refusals import bedrock_refusal, bedrock_stream_error
from proxy.providers.turns import chat_turn, converse_facts

_METRICS = "amazon-bedrock-invocationMetrics"
_HEADER = "x-amzn-bedrock-"


def converse_counts(native: dict[str, Any]) -> dict[str, Any]:
    """The counts of a ``TokenUsage``; Nova spells the cache's members differently."""
    fresh = count(native.get("inputTokens"))
    read = count(native.get("cacheReadInputTokens", native.get("cacheReadInputTokenCount")))
    written = count(native.get("cacheWriteInputTokens", native.get("cacheWriteInputTokenCount")))
    found = {
        "input_tokens": None if fresh is None else fresh + (read or 0) + (written or 0),
        "output_tokens": count(native.get("outputTokens")),
        "cached_input_tokens": read,
        "cache_write_tokens": written,
        "total_tokens": count(native.get("totalTokens")),
    }
    for entry in items(native, "cacheDetails"):
        tokens = count(part({"e": entry}, "e").get("inputTokens"))
        ttl = part({"e": entry}, "e").get("ttl")
        name = {"5m": "cache_write_5m_tokens", "1h": "cache_write_1h_tokens"}.get(str(ttl))
        if name and tokens is not None:
            found[name] = (found.get(name) or 0) + tokens
    return found


class BedrockReader(Reader):
    """Shared: header counts, error types, exceptions in streams."""

    def __init__(self) -> None:
        super().__init__()
        self._headers: dict[str, int] = {}
        self._error_type: str | None = None

    def head(self, status: int, headers: Headers) -> None:
        super().head(status, headers)
        for name in ("input", "output", "cache-read-input", "cache-write-input"):
            value = headers.get(f"{_HEADER}{name}-token-count")
            if value is not None and value.isdigit():
                self._headers[name] = int(value)
        if "input" in self._headers or "output" in self._headers:
            self.extra["header_input_tokens"] = self._headers.get("input")
            self.extra["header_output_tokens"] = self._headers.get("output")
        kind = headers.get("x-amzn-errortype")
        if kind:
            self._error_type = kind.partition(":")[0].rpartition("#")[2][:128]

    def fail(self, doc: Any) -> bool:
        found = super().fail(doc)
        if self.error is not None and self._error_type:
            self.error = type(self.error)(self._error_type, self.error.code, self.error.message)
        return found

    def exception(self, name: bytes, doc: Any) -> bool:
        """Is a message an exception? Then it is the error."""
        if not name.startswith((b"exception:", b"error:")):
            return False
        kind = name.partition(b":")[2].decode("utf-8", "replace")
        message = doc.get("message") if isinstance(doc, dict) else None
        self.error = _call_error(kind, message)
        return True

    def head_native(self) -> dict[str, Any] | None:
        """The header's counts as a usage object."""
        if not self._headers:
            return None
        names = {
            "input": "header_input",
            "output": "header_output",
            "cache-read-input": "header_cache_read",
            "cache-write-input": "header_cache_write",
        }
        return {names[name]: value for name, value in self._headers.items()}


def _call_error(kind: str, message: Any) -> CallError:
    return CallError(type=kind[:128] or None, message=text(message, 200))


class ConverseReader(BedrockReader):
    """Converse and ConverseStream."""

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        return converse_counts(native)

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict) or self.status >= 400:
            self.fail(doc)
            return
        if isinstance(usage := doc.get("usage"), dict) and usage:
            self.native = usage
        self.tier = text(part(doc, "serviceTier").get("type"), 32) or self.tier
        if doc.get("stopReason") is not None:
            self.add_finish(0, doc["stopReason"])
        for block in items(part(part(doc, "output"), "message"), "content"):
            if isinstance(block, dict):
                self.text_bytes += len(text(block.get("text"), 1 << 24) or "")
                self._tool(part(block, "toolUse"))

    def _tool(self, use: dict[str, Any]) -> None:
        if use.get("type") == "server_tool_use":
            self.add_server_tool(use.get("name"))
        elif use:
            self.add_tool(use.get("name"))

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if self.exception(name, doc) or not isinstance(doc, dict):
            return None
        if name == b"contentBlockDelta":
            delta = part(doc, "delta")
            words = delta.get("text") or part(delta, "toolUse").get("input")
            self.text_bytes += len(words) if isinstance(words, str) else 0
        elif name == b"contentBlockStart":
            self._tool(part(part(doc, "start"), "toolUse"))
        elif name == b"messageStop":
            self.ended = True
            self.add_finish(0, doc.get("stopReason"))
        elif name == b"metadata":
            self.document(doc)
        return None


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
            self.error = _call_error(kind, part({"v": value}, "v").get("message"))
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


class AgentReader(BedrockReader):
    """Agents and knowledge bases, whose usage stands in traces, if anywhere."""

    judged = False

    def document(self, doc: Any) -> None:
        if self.status >= 400:
            self.fail(doc)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        self.exception(name, doc)
        return None


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    if endpoint.name == "converse":
        return ConverseReader()
    if endpoint.name == "count_tokens":
        return CountReader()
    if endpoint.name in ("invoke_agent", "retrieve_and_generate", "apply_guardrail"):
        return AgentReader()
    return InvokeReader()


_MODEL = r"/model/(?P<model>[^/]+)"


def _rule(path: str, endpoint: str, *, metered: bool = True, streams: bool = False) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(("POST",)), metered, streams)


FAMILY = Family(
    wire="bedrock",
    rules=(
        _rule(_MODEL + r"/converse$", "converse"),
        _rule(_MODEL + r"/converse-stream$", "converse", streams=True),
        _rule(_MODEL + r"/invoke$", "invoke_model"),
        _rule(_MODEL + r"/invoke-with-response-stream$", "invoke_model", streams=True),
        _rule(_MODEL + r"/count-tokens$", "count_tokens", metered=False),
        _rule(r"/guardrail/[^/]+/version/[^/]+/apply$", "apply_guardrail", metered=False),
        _rule(
            r"/agents/[^/]+/agentAliases/[^/]+/sessions/[^/]+/text$", "invoke_agent", streams=True
        ),
        _rule(r"/retrieveAndGenerate(?:Stream)?$", "retrieve_and_generate"),
    ),
    reader=_reader,
    refusal=bedrock_refusal,
    stream_error=bedrock_stream_error,
    turn=chat_turn,
    facts=converse_facts,
)
