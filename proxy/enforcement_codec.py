"""Actions as control documents and JSON.

Owns: both directions. Must never: fail on what a newer version wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detection.types import Action, ActionKind, Mode, Series, Tier


def to_json(action: Action) -> dict[str, Any]:
    """An action as plain values."""
    return {
        "id": action.id,
        "kind": str(action.kind),
        "dimension": str(action.series.dimension),
        "value": action.series.value,
        "since": action.since,
        "until": action.until,
        "mode": str(action.mode),
        "rule": action.rule,
        "signal": action.signal,
        "tier": action.tier.label,
        "reason": action.reason,
        "rate_per_second": action.rate_per_second,
        "models": dict(action.models),
        "cut": action.cut,
        "origin": action.origin,
        "actor": action.actor,
        "incident": action.incident,
        "detail": dict(action.detail),
    }


def from_json(body: Mapping[str, Any]) -> Action | None:
    """An action, or ``None`` where it is not one that this version knows."""
    try:
        return Action(
            id=str(body["id"]),
            kind=ActionKind(body["kind"]),
            series=Series(str(body["dimension"]), str(body["value"])),
            since=float(body["since"]),
            until=None if body.get("until") is None else float(body["until"]),
            mode=Mode(body.get("mode", "enforce")),
            rule=str(body.get("rule", "")),
            signal=str(body.get("signal", "")),
            tier=Tier[str(body.get("tier", "none")).upper()],
            reason=str(body.get("reason", "")),
            rate_per_second=body.get("rate_per_second"),
            models=dict(body.get("models", {})),
            cut=bool(body.get("cut", False)),
            origin=str(body.get("origin", "policy")),
            actor=str(body.get("actor", "")),
            incident=str(body.get("incident", "")),
            detail=dict(body.get("detail", {})),
        )
    except (KeyError, TypeError, ValueError):
        return None
