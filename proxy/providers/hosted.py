"""Hosts with an API of their own that is not worth a family each.

Owns: Cloudflare Workers AI, IBM watsonx.ai text generation, Replicate, Hugging
Face's task endpoints and its inference server, llama.cpp's own completions, Aleph
Alpha. Must never: await or raise.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.family import Family, Rule
from proxy.providers.openai import CompatibleReader
from proxy.providers.reading import Reader, count, items, part, text
from proxy.providers.refusals import openai_refusal, openai_stream_error
from proxy.providers.turns import chat_facts, chat_turn


class WorkersReader(CompatibleReader):
    """Cloudflare: the answer stands in ``result``, errors in a list
    (https://developers.cloudflare.com/workers-ai)."""

    def document(self, doc: Any) -> None:
        if isinstance(doc, dict) and isinstance(result := doc.get("result"), dict):
            if doc.get("success") is False:
                self.fail(doc)
            for call in items(result, "tool_calls"):
                self.add_tool(
                    part({"c": call}, "c").get("name") or part(call, "function").get("name")
                )
            self.text_bytes += len(text(result.get("response"), 1 << 24) or "")
            doc = result
        super().document(doc)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if isinstance(doc, dict) and "response" in doc:
            words = doc["response"]
            if isinstance(words, str):
                self.text_bytes += len(words)
            for call in items(doc, "tool_calls"):
                self.add_tool(part({"c": call}, "c").get("name"))
            usage = doc.get("usage")
            if not usage:
                return b'"response":"' if len(doc) <= 2 else None
            if isinstance(usage, dict):
                self.native = usage
            return None
        return super().event(name, doc)


class WatsonxReader(Reader):
    """IBM watsonx.ai: the input's count stands in the first event, the output's grows
    (https://cloud.ibm.com/apidocs/watsonx-ai)."""

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        return {
            "input_tokens": count(native.get("input_token_count")),
            "output_tokens": count(native.get("generated_token_count")),
        }

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict) or self.status >= 400 or "errors" in doc:
            self.fail(doc)
            return
        self.model = text(doc.get("model_id")) or self.model
        for number, result in enumerate(items(doc, "results")):
            if not isinstance(result, dict):
                continue
            counted = dict(self.native or {})
            for name in ("input_token_count", "generated_token_count"):
                value = count(result.get(name))
                if value or (value is not None and name not in counted):
                    counted[name] = value
            self.native = counted
            self.text_bytes += len(text(result.get("generated_text"), 1 << 20) or "")
            reason = result.get("stop_reason")
            if reason not in (None, "not_finished", "NOT_FINISHED"):
                self.ended = True
                self.add_finish(number, reason)


class GenerationReader(Reader):
    """What inference servers speak beside OpenAI's formats: Hugging Face's TGI
    (https://huggingface.github.io/text-generation-inference), whose counts stand in
    ``details``, and llama.cpp's ``/completion`` (its tools/server/README.md)."""

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        if "tokens_evaluated" in native:
            return {
                "input_tokens": count(native["tokens_evaluated"]),
                "output_tokens": count(native.get("tokens_predicted")),
                "cached_input_tokens": count(native.get("cache_n")),
            }
        given = count(native.get("input_length"))
        if given is None and (prefill := items(native, "prefill")):
            given = len(prefill)
        return {"input_tokens": given, "output_tokens": count(native.get("generated_tokens"))}

    def document(self, doc: Any) -> None:
        if self.status >= 400:
            self.fail(doc)
            return
        for one in doc if isinstance(doc, list) else (doc,):
            if isinstance(one, dict):
                self._generation(one)

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if isinstance(doc, dict) and (name == b"error" or doc.get("error")):
            self.fail(doc if "error" in doc else {"error": doc})
        elif isinstance(doc, dict):
            self.text_bytes += len(text(part(doc, "token").get("text"), 1 << 20) or "")
            self._generation(doc)
        return None

    def _generation(self, doc: dict[str, Any]) -> None:
        self.model = text(doc.get("model")) or self.model
        self.text_bytes += len(text(doc.get("content"), 1 << 24) or "")
        details = part(doc, "details")
        if details:
            kept = ("generated_tokens", "input_length", "prefill")
            self.native = {name: details[name] for name in kept if name in details}
            self.add_finish(0, details.get("finish_reason"))
            self.ended = True
        if doc.get("tokens_evaluated") is not None:
            self.native = {
                "tokens_evaluated": doc["tokens_evaluated"],
                "tokens_predicted": doc.get("tokens_predicted"),
                "cache_n": part(doc, "timings").get("cache_n"),
            }
        if doc.get("stop") is True:
            self.ended = True
            self.add_finish(0, doc.get("stop_type"))


class TaskReader(Reader):
    """Answers that tell neither tokens nor reasons: errors are all there is to read."""

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        return {
            "input_tokens": count(native.get("input_token_count")),
            "output_tokens": count(native.get("output_token_count")),
        }

    def document(self, doc: Any) -> None:
        if self.status >= 400:
            self.fail(doc)
            return
        metrics = part(doc, "metrics")
        if metrics.get("output_token_count") is not None:
            self.native = metrics


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    if endpoint.name == "cloudflare_run":
        return WorkersReader(judged=False)
    if endpoint.name == "watsonx_generation":
        return WatsonxReader()
    if endpoint.name in ("completion", "generate", "hf_inference"):
        return GenerationReader()
    return TaskReader()


def _rule(path: str, endpoint: str, *providers: str, metered: bool = True) -> Rule:
    return Rule(re.compile(path), endpoint, frozenset(), metered, providers=frozenset(providers))


FAMILY = Family(
    wire="hosted",
    rules=(
        _rule(r"/ai/run/(?P<model>.+)$", "cloudflare_run", "cloudflare"),
        _rule(r"/ai/models/", "models", "cloudflare", metered=False),
        _rule(r"/ml/v1[^/]*/text/generation(?:_stream)?$", "watsonx_generation", "watsonx"),
        _rule(r"/generation/text(?:_stream)?$", "watsonx_generation", "watsonx"),
        _rule(r"/predictions(?:/|$)", "replicate_predictions", "replicate"),
        _rule(r"(?:/hf-inference/models/(?P<model>.+))?/pipeline/", "hf_pipeline", "huggingface"),
        _rule(r"^(?:/hf-inference)?/models/(?P<model>[^/]+/[^/]+)$", "hf_inference", "huggingface"),
        _rule(r"/complete$", "complete", "aleph_alpha"),
        _rule(r"^/generate(?:_stream)?$", "generate"),
        _rule(r"^/(?:completion|infill)$", "completion"),
    ),
    reader=_reader,
    refusal=openai_refusal,
    stream_error=openai_stream_error,
    turn=chat_turn,
    facts=chat_facts,
)
