"""What a call probably used, where the provider did not say.

Owns: estimates by length, marked as such; and finish reasons in few words. Must
never: replace a count that was reported for a whole answer.
"""

from __future__ import annotations

from dataclasses import replace

from detection.types import Usage
from proxy.providers.base import RequestFacts

#: English text and JSON come to about four bytes a token with today's tokenisers.
_BYTES_PER_TOKEN = 4
#: No model reads more; a larger body holds files, whose bytes are not text.
_MAX_INPUT_TOKENS = 1_000_000
#: Units other than tokens, told exactly: nothing is to be estimated.
_BILLED_OTHERWISE = frozenset(("seconds", "pages"))

_FINISH = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "complete": "stop",
    "finish": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "endoftext": "stop",
    "end_of_text": "stop",
    "1": "stop",
    "length": "length",
    "max_tokens": "length",
    "maximum_tokens": "length",
    "model_length": "length",
    "incomplete:max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "2": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "requires_action": "tool_calls",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "incomplete:content_filter": "content_filter",
    "guardrail_intervened": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "image_safety": "content_filter",
    "error": "error",
    "failed": "error",
    "malformed_function_call": "error",
    "cancelled": "cancelled",
    "pause_turn": "pause",
}


def normalised_finish(reason: str) -> str:
    """A finish reason in one of few words.

    ``stop``, ``length``, ``tool_calls``, ``content_filter``, ``error``,
    ``cancelled``, ``pause``, or ``other``; ``""`` (none was given) stays as it is.

    >>> normalised_finish("MAX_TOKENS"), normalised_finish("end_turn")
    ('length', 'stop')
    """
    return _FINISH.get(reason.lower(), "other") if reason else ""


def estimate_usage(usage: Usage, facts: RequestFacts) -> Usage:
    """The usage, with estimates for what the provider did not tell.

    Calls that name no model (an unknown path, say) are left unknown. A stream that
    ended early never told its output: then what was seen of it counts. ``source``
    becomes ``estimated`` as soon as one count is.
    """
    if not _BILLED_OTHERWISE.isdisjoint(usage.extra):
        return usage
    seen = -(-usage.output_bytes // _BYTES_PER_TOKEN)
    given, made = usage.input_tokens, usage.output_tokens
    if usage.source == "unknown":
        if facts.model is None and usage.model_served is None:
            return usage
        given = min(facts.body_bytes // _BYTES_PER_TOKEN, _MAX_INPUT_TOKENS)
        made = seen
    elif usage.complete is False and seen > 2 * (made or 0):
        # Not merely denser text than thought: the count is the one that the stream began with.
        made = seen
    elif given is None and usage.total_tokens is None:
        given = min(facts.body_bytes // _BYTES_PER_TOKEN, _MAX_INPUT_TOKENS)
    else:
        return usage
    extra = usage.extra
    if facts.characters is not None:
        extra = {**extra, "characters": facts.characters}
    return replace(usage, source="estimated", input_tokens=given, output_tokens=made, extra=extra)
