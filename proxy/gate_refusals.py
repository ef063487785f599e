"""Why a call is refused, in words a developer understands.

Owns: the text of every refusal that the gate makes. Must never: decide, or
name a credential.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from detection.budget import dollars
from detection.types import Action, ActionKind, Series
from proxy.gate_rules import CallCap, Counter
from proxy.providers.base import Refusal

_LONGEST_WAIT_SECONDS = 60.0
_UNITS = {"requests": "request", "tokens": "token", "in_flight": "call"}


def scope_of(series: Series) -> str:
    """A series for people."""
    if series.dimension == "total":
        return "all calls"
    return f"{series.dimension} {series.value}"


def clock_time(at: float) -> str:
    """A moment for people."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def amount(metric: str, value: int) -> str:
    """A count with its unit."""
    if metric == "cost":
        return dollars(value)
    return f"{value} {_UNITS[metric]}{'' if value == 1 else 's'}"


def wait_seconds(wait: float) -> float:
    """What Retry-After may say: at least a second, at most a minute."""
    return float(min(_LONGEST_WAIT_SECONDS, max(1.0, math.ceil(wait))))


def by_action(action: Action, link: str, *, half_open: bool = False) -> Refusal:
    """A block, a disabled key, or the calls beside the probes after a block."""
    scope = scope_of(action.series)
    why = "; ".join(w for w in (action.signal.replace("_", " "), action.reason) if w)
    rule = f" (rule {action.rule})" if action.rule else ""
    if action.kind is ActionKind.DISABLE_KEY:
        message = f"Tokenweir: {scope} is disabled{rule}"
        kind, until = "disabled", None
    elif half_open:
        message = f"Tokenweir: {scope} is being let in again call by call after a block{rule}"
        kind, until = "throttle", None
    else:
        until = action.until
        end = f"until {clock_time(until)}" if until is not None else "until a person lifts it"
        message = f"Tokenweir blocked {scope} {end}{rule}"
        kind = "anomaly"
    return Refusal(
        kind,
        f"{message}: {why}." if why else f"{message}.",
        scope=scope,
        rule=action.rule,
        reset_at=until,
        retry_after_seconds=2.0 if half_open else None,
        incident=action.incident,
        link=link,
    )


def by_throttle(action: Action, now: float, wait: float, link: str) -> Refusal:
    """A throttle whose bucket is empty."""
    scope = scope_of(action.series)
    why = f": {action.reason}" if action.reason else ""
    return Refusal(
        "throttle",
        f"Tokenweir slows {scope} to {action.rate_per_second:g} calls a second until "
        f"{clock_time(action.until) if action.until is not None else 'a person lifts it'}{why}.",
        scope=scope,
        rule=action.rule,
        limit=f"{action.rate_per_second:g} requests per second",
        reset_at=now + wait,
        retry_after_seconds=wait_seconds(wait),
        incident=action.incident,
        link=link,
    )


def by_limit(counter: Counter, need: int, now: float) -> Refusal:
    """A limit or budget that doesn't cover the call."""
    rule = counter.rule
    limit, spent = amount(rule.metric, rule.limit), amount(rule.metric, counter.used_now)
    if rule.metric == "in_flight":
        return Refusal(
            "throttle",
            f"Tokenweir: {counter.scope} has {limit} running, the most that limit {rule.name} "
            "allows.",
            scope=counter.scope,
            rule=rule.name,
            limit=limit,
            spent=limit,
            reset_at=now + 1,
            retry_after_seconds=1.0,
        )
    window = f"{'rolling ' if rule.rolling else ''}{rule.per}"
    used = counter.used_now + counter.account.charged
    reset: float | None
    if rule.metric != "requests" and used + need <= rule.limit:
        # What running calls have set aside mostly comes back: waiting helps.
        aside = amount(rule.metric, rule.limit - used)
        state, ends = f"has no room for now: running calls have {aside} set aside", ""
        reset = now + 1
    else:
        reset = None if rule.per == "session" else counter.end
        state, ends = "is used up", "" if reset is None else f" More from {clock_time(reset)}."
    wait = math.inf if reset is None else reset - now
    short = wait <= _LONGEST_WAIT_SECONDS
    return Refusal(
        "throttle" if short else "budget",
        f"Tokenweir: {rule.kind} {rule.name} for {counter.scope} {state}; {spent} of {limit} "
        f"per {window} spent, and this call may take {amount(rule.metric, need)}.{ends}",
        scope=counter.scope,
        rule=rule.name,
        limit=f"{limit} per {window}",
        spent=spent,
        reset_at=reset,
        retry_after_seconds=wait_seconds(wait) if short else None,
    )


def by_cap(cap: CallCap, cost: int) -> Refusal:
    """A call that could cost more than one call may."""
    return Refusal(
        "budget",
        f"Tokenweir: this call may cost {dollars(cost)}; limit {cap.name} allows "
        f"{dollars(cap.limit)} for one call. Ask for fewer output tokens.",
        scope="this call",
        rule=cap.name,
        limit=dollars(cap.limit),
        spent=dollars(cost),
    )


def store_away(counter: Counter) -> Refusal:
    """A rule that fails closed while the store is away."""
    rule = counter.rule
    return Refusal(
        "unavailable",
        f"Tokenweir can't reach its store, and {rule.kind} {rule.name} for {counter.scope} does "
        "not let calls pass unchecked.",
        scope=counter.scope,
        rule=rule.name,
        limit=amount(rule.metric, rule.limit),
        spent=amount(rule.metric, counter.used_now),
        retry_after_seconds=5.0,
    )


def rate_headers(counter: Counter, now: float) -> tuple[tuple[str, str], ...]:
    """``x-ratelimit-*`` for a limit that refused, in OpenAI's names where it has them."""
    rule = counter.rule
    metric = {"cost": "cost-nano-usd", "in_flight": "concurrent"}.get(rule.metric, rule.metric)
    left = max(0, counter.account.remaining)
    found = [
        (f"x-ratelimit-limit-{metric}", str(rule.limit)),
        (f"x-ratelimit-remaining-{metric}", str(left)),
    ]
    if rule.per != "session" and rule.metric != "in_flight":
        found.append((f"x-ratelimit-reset-{metric}", f"{max(0, math.ceil(counter.end - now))}s"))
    return tuple(found)
