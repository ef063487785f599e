"""Incidents made to order, from the calls of one's own traffic.

Owns: how a loop, a leaked key, a model swap, a bloated prompt and a retry storm
look as observations. Must never: judge, or send anything.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from detection.types import Observation

Kind = Literal["loop", "leak", "swap", "bloat", "storm"]


class IncidentPlan(BaseModel):
    """One incident of a scenario file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = Field(description="loop, leak, swap, bloat or storm.")
    at_hours: float = Field(0.0, ge=0, description="Hours after the stage begins.")
    minutes: float = Field(30.0, gt=0, le=24 * 60, description="How long it would go on.")
    agent: str | None = Field(
        None, description="Whose; unset takes the agent with most calls (a leak: a key's)."
    )
    calls_per_second: float = Field(
        2.0, gt=0, le=100, description="Of a loop, a leak or a storm: calls a second on top."
    )
    factor: float = Field(
        6.0, gt=1, le=1000, description="Of a swap or a bloat: times the usual cost of a call."
    )
    model: str = Field("a-dearer-model", description="Of a swap or a leak: the model used.")


class ScenarioError(ValueError):
    """A scenario that this traffic can't play; the message says why."""


def plant(
    plan: IncidentPlan, calls: Sequence[Observation], begin: float, seed: int
) -> tuple[list[Observation], frozenset[str]]:
    """The stage's calls with the incident in them, and the ids of its calls.

    ``calls`` are in order of time, and so is what is returned.
    """
    chance = random.Random(f"{seed}{plan}")
    start = begin + plan.at_hours * 3600
    end = start + plan.minutes * 60
    agent = plan.agent or _busiest(calls)
    own = [call for call in calls if call.agent == agent]
    if not own:
        raise ScenarioError(f"{plan.kind}: the stage has no call of agent {agent!r}")
    made: list[Observation] = []
    changed: dict[str, Observation] = {}
    if plan.kind in ("swap", "bloat"):
        for call in own:
            if start <= call.ts < end:
                changed[call.id] = CHANGES[plan.kind](call, plan, (call.ts - start) / (end - start))
        if not changed:
            raise ScenarioError(f"{plan.kind}: agent {agent!r} makes no call in that time")
    else:
        model = _typical(own)
        now, number = start, 0
        while (now := now + chance.expovariate(plan.calls_per_second)) < end:
            number += 1
            made.append(MAKERS[plan.kind](model, plan, now, number, chance))
    played = sorted(
        [*(changed.get(call.id, call) for call in calls), *made], key=lambda call: call.ts
    )
    return played, frozenset(changed) | {call.id for call in made}


def _busiest(calls: Sequence[Observation]) -> str | None:
    counted = Counter(call.agent for call in calls if call.agent)
    if not counted:
        raise ScenarioError("no call in this history names an agent; say which with `agent`")
    return counted.most_common(1)[0][0]


def _typical(calls: Sequence[Observation]) -> Observation:
    """The call whose cost is the middle one."""
    middle = median(call.cost_nano_usd or 0 for call in calls)
    return min(calls, key=lambda call: abs((call.cost_nano_usd or 0) - middle))


def _copy(call: Observation, plan: IncidentPlan, now: float, number: int) -> Observation:
    return call._replace(
        ts=now, id=f"drill-{plan.kind}-{now:.3f}-{number}", status=200, error_type=None,
        fingerprint=None, fingerprint_kind=None, action="allow",
    )  # fmt: skip


def _hash(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _loop(
    call: Observation, plan: IncidentPlan, now: float, number: int, chance: random.Random
) -> Observation:
    """The same tool call with the same result again and again."""
    return _copy(call, plan, now, number)._replace(
        session="drill-loop", fingerprint=_hash(plan.kind, call.agent), fingerprint_kind="tool"
    )


def _leak(
    call: Observation, plan: IncidentPlan, now: float, number: int, chance: random.Random
) -> Observation:
    """A stranger with the key: another network, another agent, another model."""
    return _copy(call, plan, now, number)._replace(
        agent="unknown-client",
        client=_hash("stranger"),
        user=None,
        session=None,
        model=plan.model,
        model_served=plan.model,
        cost_nano_usd=round((call.cost_nano_usd or 0) * plan.factor),
        fingerprint=_hash(number, chance.random()),
        fingerprint_kind="text",
    )


def _storm(
    call: Observation, plan: IncidentPlan, now: float, number: int, chance: random.Random
) -> Observation:
    """One failing request, tried again without pause."""
    return _copy(call, plan, now, number)._replace(
        status=500,
        error_type="server_error",
        output_tokens=None,
        fingerprint=_hash(plan.kind, call.agent),
        fingerprint_kind="text",
    )


def _swap(call: Observation, plan: IncidentPlan, share: float) -> Observation:
    """The same calls to a dearer model, from one moment to the next."""
    return call._replace(
        model=plan.model,
        model_served=plan.model,
        cost_nano_usd=round((call.cost_nano_usd or 0) * plan.factor),
    )


def _bloat(call: Observation, plan: IncidentPlan, share: float) -> Observation:
    """Prompts that grow from the usual to the factor over the incident."""
    times = 1 + (plan.factor - 1) * share
    return call._replace(
        input_tokens=round((call.input_tokens or 0) * times),
        cost_nano_usd=round((call.cost_nano_usd or 0) * times),
    )


#: Incidents that are calls on top, and such that change the calls there are.
MAKERS: dict[str, Callable[[Observation, IncidentPlan, float, int, random.Random], Observation]] = {
    "loop": _loop,
    "leak": _leak,
    "storm": _storm,
}
CHANGES: dict[str, Callable[[Observation, IncidentPlan, float], Observation]] = {
    "swap": _swap,
    "bloat": _bloat,
}
