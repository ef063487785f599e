"""Amazon Bedrock: its paths, and Converse.

Owns: recognising Bedrock's calls, converse and converse-stream
(https://docs.aws.amazon.com/bedrock/latest/APIReference). Must never: await or raise.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.bedrock_common import BedrockReader, converse_counts
from proxy.providers.bedrock_invoke import InvokeReader
from proxy.providers.family import Family, Rule
from proxy.providers.reading import CountReader, Reader, items, part, text
from proxy.providers.refusals import bedrock_refusal, bedrock_stream_error
from proxy.providers.turns import chat_turn, converse_facts


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
