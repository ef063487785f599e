"""The likely story of an incident in one sentence, and what to do next.

Owns: the words. Must never: state a figure that the explanation doesn't hold,
or name anything but the scope's own values (escaping for a medium is the
receiver's part).
"""

from __future__ import annotations

from datetime import UTC, datetime

from detection.explain import Contributor, Explanation
from detection.types import Dimension, Series, Signal

_WHAT = {
    Signal.VOLUME_SURGE: "calls far more often than it ever did",
    Signal.SPEND_SPIKE: "spends far more than usual",
    Signal.ERROR_RATE: "fails far more often than usual",
    Signal.RETRY_STORM: "repeats failing calls",
    Signal.AGENT_LOOP: "repeats the same call",
    Signal.NEW_MODEL: "uses a model never seen here",
    Signal.NEW_AGENT: "is an agent never seen here",
    Signal.NEW_KEY_MODEL: "uses a model it never used",
    Signal.NEW_CLIENT: "is used from a network it was never used from",
    Signal.COST_PER_REQUEST: "pays more for each call",
    Signal.OUTPUT_TOKENS: "gets longer answers",
    Signal.FINISH_REASON_MIX: "ends its calls for other reasons than usual",
    Signal.DRIFT: "grows week by week",
    Signal.PEER_OUTLIER: "is far above its peers",
    Signal.BUDGET_BURN: "burns its budget too fast",
    Signal.HARD_LIMIT: "passed a limit that was set",
}

_NEXT = {
    Signal.AGENT_LOOP: "Stop the agent or throttle it, then look at the tool call it repeats.",
    Signal.RETRY_STORM: "Look at the error it retries; throttle it until the cause is mended.",
    Signal.ERROR_RATE: "Look at the errors' types: an outage, a bad deploy or a dead key.",
    Signal.NEW_CLIENT: "Ask the key's owner; if the network isn't theirs, disable and rotate it.",
    Signal.NEW_KEY_MODEL: "Ask the owner whether the model is meant; else allow-list its models.",
    Signal.NEW_MODEL: "Check the model's price and who chose it.",
    Signal.NEW_AGENT: "Find the agent's owner and give it a limit.",
    Signal.BUDGET_BURN: "Raise the budget if the work is meant, or throttle who burns it.",
    Signal.HARD_LIMIT: "Raise the limit if the work is meant; else leave the block in place.",
    Signal.FINISH_REASON_MIX: "Look at truncated or filtered answers and the latest prompt change.",
}
_NEXT_BY_KIND = {
    "volume": "Ask the owner whether the load is meant; throttle it if nobody knows.",
    "mix": "Check who changed the model; downgrade it if the old one was good enough.",
    "tokens": "Look at the latest prompt or context change; cap output or context length.",
    "price": "Check the price list and the provider's announcement, or choose another model.",
}


def scope_words(series: Series) -> str:
    """A scope as people say it: ``agent support-triage``, ``all traffic``."""
    if series.dimension == Dimension.TOTAL:
        return "all traffic"
    return f"{series.dimension.replace('_', ' × ')} {series.value.replace('|', ' × ')}"


def _named(contributor: Contributor) -> str:
    return scope_words(Series(contributor.dimension, contributor.value))


def _clock(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%H:%M UTC")


def _times(name: str, ratio: float | None) -> str | None:
    if ratio is None or 0.8 <= ratio <= 1.25:
        return None
    return f"{name} {ratio:.1f}×"


def tell(
    signal: Signal | str, series: Series, explanation: Explanation | None, *, kind: str = ""
) -> str:
    """One sentence: who does what, how it differs, since when.

    ``kind`` is ``tool`` where the repeated call is a tool call.

    Examples
    --------
    >>> tell("agent_loop", Series("agent", "support-triage"), None, kind="tool")
    'agent support-triage repeats the same tool call.'
    """
    what = _WHAT.get(Signal(signal), "behaves unlike itself")
    if signal == Signal.AGENT_LOOP and kind == "tool":
        what = "repeats the same tool call"
    parts = [f"{scope_words(series)} {what}"]
    e = explanation
    if e is None:
        return parts[0] + "."
    if (e.top.dimension, e.top.value) != tuple(series) and e.top.dimension != Dimension.TOTAL:
        share = "" if e.top.share is None else f" ({min(e.top.share, 9.99):.0%} of the change)"
        parts.append(f"driven by {_named(e.top)}{share}")
    facts = [
        _times("calls", e.requests_ratio),
        _times("input per call", e.input_tokens_ratio),
        _times("output per call", e.output_tokens_ratio),
    ]
    parts += [fact for fact in facts if fact]
    if e.kind == "price":
        parts.append("at a higher price per token")
    if e.new_models:
        parts.append("now also on " + ", ".join(e.new_models[:3]))
    elif e.kind != "mix" and e.requests_ratio is not None:
        parts.append("model unchanged")
    if e.error_share is not None and e.error_share >= 0.1:
        parts.append(f"{e.error_share:.0%} of calls fail")
    parts.append(f"since {_clock(e.since)}")
    return "; ".join(parts) + "."


def next_step(signal: Signal | str, explanation: Explanation | None) -> str:
    """What a person should look at first."""
    known = _NEXT.get(Signal(signal))
    if known:
        return known
    return _NEXT_BY_KIND[explanation.kind if explanation else "volume"]
