"""What applies to one kind of caller, worked out once.

Owns: the plan of a call (its actions, counters, caps, key) and its cache. Must
never: decide, or grow without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter

from proxy.bounded import make_room
from proxy.context import RequestContext
from proxy.gate_actions import ActiveAction
from proxy.gate_rules import CallCap, Counter
from proxy.providers.base import Refusal

_ALWAYS = ("key", "agent", "model", "provider", "project", "endpoint")
#: Callers and kinds of calls known at once: about 1 kB each.
_MOST_PLANS = 120_000

PlanKey = tuple[object, ...]


class Caller:
    """A key and agent seen lately. ``example`` is one of its calls."""

    __slots__ = ("example", "seen")

    def __init__(self, example: RequestContext) -> None:
        self.example = example
        self.seen = 0.0


class Plan:
    """All that touches one kind of call. ``idle`` says that nothing does."""

    __slots__ = (
        "actions",
        "caller",
        "caps",
        "counters",
        "forbidden",
        "idle",
        "prices",
    )

    def __init__(
        self,
        caller: Caller,
        actions: tuple[ActiveAction, ...],
        counters: tuple[Counter, ...],
        caps: tuple[CallCap, ...],
        forbidden: Refusal | None,
    ) -> None:
        self.caller = caller
        self.actions = actions
        self.counters = counters
        self.caps = caps
        self.forbidden = forbidden
        self.prices = bool(caps) or any(c.rule.metric in ("cost", "tokens") for c in counters)
        self.idle = not (actions or counters or caps or forbidden)


class PlanCache:
    """Plans by the values that any rule or action looks at."""

    def __init__(self, make: Callable[[RequestContext, Caller], Plan]) -> None:
        self._make = make
        self._callers: dict[tuple[str | None, str | None], Caller] = {}
        self._plans: dict[PlanKey, Plan] = {}
        self.key_of: Callable[[RequestContext], PlanKey] = attrgetter(*_ALWAYS)
        self._extra: frozenset[str] = frozenset()
        self.plans = self._plans

    def look_at(self, dimensions: Iterable[str]) -> None:
        """Forget all plans, and tell calls apart by these dimensions too."""
        self._plans.clear()
        extra = frozenset(dimensions) - {"total", *_ALWAYS}
        if extra == self._extra:
            return
        self._extra = extra
        names = [d for d in sorted(extra) if not d.startswith("tag:")]
        tags = tuple(d[4:] for d in sorted(extra) if d.startswith("tag:"))
        plain: Callable[[RequestContext], PlanKey] = attrgetter(*_ALWAYS, *names)
        if not tags:
            self.key_of = plain
            return

        def with_tags(ctx: RequestContext) -> PlanKey:
            return (*plain(ctx), *(ctx.tags.get(tag) for tag in tags))

        self.key_of = with_tags

    def add(self, key: PlanKey, ctx: RequestContext) -> Plan:
        """Work a caller's plan out."""
        make_room(self._plans, _MOST_PLANS)
        name = (ctx.key, ctx.agent)
        caller = self._callers.get(name)
        if caller is None:
            make_room(self._callers, _MOST_PLANS)
            caller = self._callers[name] = Caller(ctx)
        plan = self._plans[key] = self._make(ctx, caller)
        return plan

    def callers(self, since: float) -> list[RequestContext]:
        """One call of each caller seen since then."""
        return [c.example for c in self._callers.values() if c.seen >= since]
