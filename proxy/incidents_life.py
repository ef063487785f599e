"""The life of an incident: pure steps from one state to the next.

Owns: every rule about opening, escalating, reopening, resolving and
dismissing. Must never: read a clock (``now`` is passed in), store or send.
Each step gives the new incident and what happened, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from detection.types import Action, ActionKind, Dimension, Tier, Verdict
from proxy.incidents_model import (
    MAX_ACTIONS,
    EventKind,
    Incident,
    State,
    facts_of,
    fingerprint_of,
    short_hash,
)

Step = tuple[Incident, EventKind | None]


@dataclass(frozen=True, slots=True)
class LifeRules:
    """How long things take. All in seconds.

    ``quiet``: without any standing signal, until it is resolved by itself.
    ``stale``: without a word about a standing signal (its detector is gone).
    ``reopen``: after resolution, within which the same trouble reopens it.
    ``trust``: after dismissal, within which the same trouble stays dismissed
    unless it is worse than what was dismissed.
    """

    quiet: float = 600.0
    stale: float = 21_600.0
    reopen: float = 3_600.0
    trust: float = 604_800.0


def on_verdict(
    current: Incident | None, verdict: Verdict, now: float, rules: LifeRules
) -> Step | None:
    """What a verdict makes of the newest incident of its fingerprint."""
    if verdict.tier == Tier.NONE:
        return _signal_over(current, verdict, now)
    if current is None or (not current.active and not _continues(current, now, rules)):
        return _opened(verdict, now), EventKind.OPENED
    if current.state == State.DISMISSED:
        if verdict.tier <= current.worst:
            repeated = replace(current, repeats=current.repeats + 1, last_seen_at=now)
            return repeated, None
        return _reopened(current, verdict, now), EventKind.REOPENED
    if current.state == State.RESOLVED:
        return _reopened(current, verdict, now), EventKind.REOPENED
    raised = verdict.tier > current.worst
    after = _standing(current, verdict, now)
    if not raised:
        known = current.live.get(verdict.signal) == verdict.tier
        if known:
            return replace(after, revision=current.revision + 1), EventKind.UPDATED
        return after.with_entry(now, "signal", _line(verdict)), EventKind.UPDATED
    after = replace(after, state=State.ESCALATED, worst=verdict.tier, escalated_at=now)
    return after.with_entry(now, "escalated", _line(verdict)), EventKind.ESCALATED


def _continues(current: Incident, now: float, rules: LifeRules) -> bool:
    held = rules.trust if current.state == State.DISMISSED else rules.reopen
    return now - (current.closed_at or current.updated_at) <= held


def _opened(verdict: Verdict, now: float) -> Incident:
    fingerprint = fingerprint_of(verdict.signal, verdict.series)
    incident = Incident(
        id=f"inc_{short_hash(fingerprint, f'{now:.3f}')}",
        fingerprint=fingerprint,
        series=verdict.series,
        signal=verdict.signal,
        opened_at=now,
        since=min(now, verdict.since if verdict.since is not None else verdict.ts),
        worst=verdict.tier,
        projects=((verdict.series.value,) if verdict.series.dimension == Dimension.PROJECT else ()),
    )
    return _standing(incident, verdict, now).with_entry(now, "opened", _line(verdict))


def _reopened(current: Incident, verdict: Verdict, now: float) -> Incident:
    after = replace(
        _standing(current, verdict, now),
        state=State.OPEN,
        worst=max(current.worst, verdict.tier),
        closed_at=None,
        closed_by="",
        acknowledged_by="",
        acknowledged_at=None,
        reopened=current.reopened + 1,
    )
    return after.with_entry(now, "reopened", _line(verdict))


def _standing(current: Incident, verdict: Verdict, now: float) -> Incident:
    live = {**current.live, str(verdict.signal): int(verdict.tier)}
    leads = int(verdict.tier) >= max(live.values())
    return replace(
        current,
        live=live,
        tier=Tier(max(live.values())),
        signal=verdict.signal if leads else current.signal,
        signals=tuple(dict.fromkeys((*current.signals, str(verdict.signal)))),
        evidence=tuple(sorted({*current.evidence, *(str(f) for f in verdict.families)})),
        since=min(current.since, verdict.since) if verdict.since else current.since,
        last_seen_at=now,
        updated_at=now,
        quiet_since=None,
        **(facts_of(verdict) if leads else {}),
    )


def _signal_over(current: Incident | None, verdict: Verdict, now: float) -> Step | None:
    if current is None or not current.active or str(verdict.signal) not in current.live:
        return None
    live = {name: tier for name, tier in current.live.items() if name != verdict.signal}
    after = replace(
        current,
        live=live,
        tier=Tier(max(live.values(), default=int(Tier.NONE))),
        quiet_since=None if live else now,
    )
    return after.with_entry(now, "signal over", str(verdict.signal)), EventKind.UPDATED


def on_action(current: Incident, action: Action, now: float) -> Step | None:
    """Note what policy or a person did about it."""
    if any(done["id"] == action.id for done in current.actions):
        return None
    told: dict[str, Any] = {
        "id": action.id,
        "kind": str(action.kind),
        "scope": f"{action.series.dimension}:{action.series.value}",
        "mode": str(action.mode),
        "since": action.since,
        "until": action.until,
        "rule": action.rule,
        "origin": action.origin,
        "actor": action.actor,
    }
    if action.kind is ActionKind.WEBHOOK:
        told["receiver"] = action.detail.get("receiver", "")
    after = replace(current, actions=(*current.actions, told)[-MAX_ACTIONS:])
    who = action.actor or action.rule or action.origin
    word = "" if action.mode == "enforce" else f" ({action.mode}: nothing is held back)"
    return after.with_entry(now, "action", f"{action.kind}{word}", who), EventKind.ACTION


def acknowledge(current: Incident, actor: str, now: float, note: str = "") -> Step | None:
    """A person has it in hand."""
    if not current.active or current.state == State.ACKNOWLEDGED:
        return None
    after = replace(current, state=State.ACKNOWLEDGED, acknowledged_by=actor, acknowledged_at=now)
    return after.with_entry(now, "acknowledged", note, actor), EventKind.ACKNOWLEDGED


def close(
    current: Incident,
    state: State,
    now: float,
    *,
    actor: str,
    resolution: str = "",
    root_cause: str = "",
) -> Step | None:
    """Resolve or dismiss."""
    if not current.active:
        return None
    after = replace(
        current,
        state=state,
        closed_at=now,
        closed_by=actor,
        resolution=resolution,
        root_cause=root_cause,
        live={},
        tier=Tier.NONE,
        quiet_since=None,
    )
    kind = EventKind.DISMISSED if state == State.DISMISSED else EventKind.RESOLVED
    return after.with_entry(now, str(kind), resolution, actor), kind


def sweep(current: Incident, now: float, rules: LifeRules) -> Step | None:
    """Resolve what went quiet, unless an action that was taken still holds."""
    if not current.active:
        return None
    held = any(
        done["kind"] != "notify" and (done["until"] or 0.0) > now and done["mode"] == "enforce"
        for done in current.actions
    )
    if current.quiet_since is not None and now - current.quiet_since >= rules.quiet and not held:
        return close(current, State.RESOLVED, now, actor="", resolution="went quiet")
    if now - current.last_seen_at >= rules.stale:
        return close(current, State.RESOLVED, now, actor="", resolution="no news of it")
    return None


def told(current: Incident, story: str, next_step: str, now: float) -> Incident:
    """The incident with its story."""
    return replace(current, story=story, next_step=next_step, updated_at=now)


#: Scopes that lie within the projects that their calls name.
_NARROW = frozenset(
    {
        Dimension.KEY,
        Dimension.AGENT,
        Dimension.USER,
        Dimension.SESSION,
        Dimension.CLIENT,
        Dimension.KEY_MODEL,
        Dimension.AGENT_MODEL,
    }
)


def explained(current: Incident, found: Mapping[str, Any]) -> Incident:
    """The incident with its root cause, as known now."""
    projects = current.projects
    if current.series.dimension in _NARROW:
        # Its readers must be allowed every project that it tells of.
        named = found["projects"]
        projects = tuple(sorted({*projects, *named})) if named else ()
    return replace(
        current,
        explanation=dict(found),
        since=min(current.opened_at, found["since"]),
        projects=projects,
        cost_nano_usd=max(current.cost_nano_usd, int(found["cost_so_far_nano_usd"])),
        cost_per_hour_nano_usd=int(found["cost_per_hour_nano_usd"]),
    )


def _line(verdict: Verdict) -> str:
    times = f", {verdict.ratio:.1f}× the usual" if verdict.ratio else ""
    return f"{verdict.signal} {verdict.tier.label}{times}"
