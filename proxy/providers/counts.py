"""The counts in usage objects of OpenAI's kind.

Owns: the many names that vendors gave to the same counts. Must never: know where in
an answer such an object stands.
"""

from __future__ import annotations

from typing import Any

from proxy.providers.reading import SMALL, count, part

_CACHED = (
    "prompt_cache_hit_tokens",
    "num_cached_tokens",
    "cached_tokens",
    "cache_read_input_tokens",
)
#: Members of the details of a prompt and of an answer, and what they are to us.
_BEFORE = {
    "cached_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
}
_AFTER = {
    "reasoning_tokens": "reasoning_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}


def compatible_counts(native: dict[str, Any]) -> dict[str, Any]:
    """The counts in a usage object of OpenAI's kind, whoever sent it.

    Field names: OpenAI chat and Responses; ``prompt_cache_hit_tokens`` DeepSeek;
    ``num_cached_tokens`` Mistral; top-level ``cached_tokens`` Moonshot;
    top-level ``reasoning_tokens`` Perplexity; ``cache_read_input_tokens`` Baseten.
    """
    taken = native.get
    # Nearly all are small integers, for which nothing is called, and whose comparison with one
    # bound at a time the interpreter knows to shorten.
    given = taken("prompt_tokens")
    if type(given) is not int or given < 0 or given > SMALL:
        given = count(given)
        if given is None:
            given = count(taken("input_tokens"))
    made = taken("completion_tokens")
    if type(made) is not int or made < 0 or made > SMALL:
        made = count(made)
        if made is None:
            made = count(taken("output_tokens"))
    before = (
        taken("prompt_tokens_details")
        or taken("input_tokens_details")
        or taken("input_token_details")
    )
    after = (
        taken("completion_tokens_details")
        or taken("output_tokens_details")
        or taken("output_token_details")
    )
    found: dict[str, Any] = {}
    # Only what is there is looked at: a chat's usage has a third of all these names.
    if isinstance(before, dict):
        for name, value in before.items():
            if name in _BEFORE:
                if type(value) is not int or value < 0 or value > SMALL:
                    value = count(value)
                found[_BEFORE[name]] = value
        if "cache_creation_tokens" in before and "cache_write_tokens" not in before:
            found["cache_write_tokens"] = count(before["cache_creation_tokens"])
        if "cached_tokens_details" in before:
            details = part(before, "cached_tokens_details")
            found["cached_audio_tokens"] = count(details.get("audio_tokens"))
    if isinstance(after, dict):
        for name, value in after.items():
            if name in _AFTER:
                if type(value) is not int or value < 0 or value > SMALL:
                    value = count(value)
                found[_AFTER[name]] = value
    if found.get("cached_input_tokens") is None:
        for name in _CACHED:
            if name in native and (cached := count(native[name])) is not None:
                found["cached_input_tokens"] = cached
                break
    if "cache_creation_input_tokens" in native and found.get("cache_write_tokens") is None:
        # Gateways put a 0 here for models that have no such thing.
        found["cache_write_tokens"] = count(native["cache_creation_input_tokens"]) or None
    reasoning = found.get("reasoning_tokens")
    if reasoning is None and "reasoning_tokens" in native:
        reasoning = found["reasoning_tokens"] = count(native["reasoning_tokens"])
    total = taken("total_tokens")
    if type(total) is not int or total < 0 or total > SMALL:
        total = count(total)
    if reasoning and given is not None and made is not None and given + made + reasoning == total:
        # xAI and some hosts count reasoning beside the completion, not in it.
        made += reasoning
    if "server_tool_use" in native or "num_search_queries" in native:
        # OpenRouter, and Perplexity.
        searches = count(part(native, "server_tool_use").get("web_search_requests"))
        if searches is None:
            searches = count(taken("num_search_queries"))
        found["web_searches"] = searches
    found["input_tokens"] = given
    found["output_tokens"] = made
    found["total_tokens"] = total
    return found
