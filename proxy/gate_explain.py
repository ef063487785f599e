"""What would happen to a call now, and by which rule.

Owns: the account of a decision that is not made. Must never: decide by itself
(the gate does), or leave a trace in what is counted.
"""

from __future__ import annotations

from typing import Any

from proxy.context import RequestContext
from proxy.gate import Gate
from proxy.gate_rules import Counter


def explain(gate: Gate, ctx: RequestContext, now: float) -> dict[str, Any]:
    """The decision on a call of this kind, and all that touches it."""
    touching = gate.in_force.of(ctx)
    before = [(a, a.allowance, a.last) for a in touching]
    crossed = dict(gate.counters.crossed)
    decision = gate.admit(ctx)
    refusal = gate.unusable_key(ctx)
    kind, rule = ("forbidden", "key") if refusal is not None else (decision.kind, decision.rule)
    if kind == "wait":
        kind, rule = "allow", ""
    refusal = refusal or decision.refusal
    estimate = gate.estimator.estimate(ctx)
    found = {
        "decision": kind,
        "rule": rule,
        "would": decision.would,
        "model": decision.model,
        "message": refusal.message if refusal is not None else None,
        "retry_after_seconds": refusal.retry_after_seconds if refusal is not None else None,
        "mode": str(gate.mode),
        "estimate": {
            "tokens": estimate.tokens,
            "cost_nano_usd": estimate.cost,
            "upper_bound": estimate.bounded,
        },
        "actions": [
            {
                "id": a.action.id,
                "kind": str(a.action.kind),
                "scope": f"{a.action.series.dimension} {a.action.series.value}".strip(),
                "mode": str(a.mode),
                "rule": a.action.rule,
                "reason": a.action.reason,
                "until": a.action.until,
            }
            for a in touching
        ],
        "protected": gate.in_force.is_protected(ctx),
        "counts": [standing(c, now) for c in gate.counters.of(ctx, gate.own_rules(ctx))],
        "caps": [
            {"rule": cap.name, "limit_nano_usd": cap.limit, "mode": str(cap.mode)}
            for cap in gate.counters.caps_of(ctx)
        ],
    }
    gate.drop(decision)
    for active, allowance, last in before:
        active.allowance, active.last = allowance, last
    gate.counters.crossed = crossed
    return found


def standing(counter: Counter, now: float) -> dict[str, Any]:
    """Where a limit or budget stands."""
    rule, account = counter.rule, counter.account
    begun = bool(counter.span.name)
    return {
        "rule": rule.name,
        "kind": rule.kind,
        "metric": rule.metric,
        "scope": counter.scope,
        "by": list(rule.by),
        "values": list(counter.values),
        "per": "at once" if rule.metric == "in_flight" else rule.per,
        "rolling": rule.rolling,
        "mode": str(rule.mode),
        "hard": rule.refuses,
        "limit": rule.limit,
        "used": counter.used_now if begun else 0,
        "reserved": account.reserved + account.others if begun else 0,
        "withheld": account.charged,
        "resets_at": counter.end if now < counter.end < float("inf") else None,
    }
