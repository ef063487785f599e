"""Admission: may this call go, how, and what is set aside for it.

Owns: the decision about each call, from local state alone, in microseconds;
its reservation while it runs and its settlement. Must never: do I/O, wait, or
raise into the request path.

What needs the store (a larger share of a budget, telling the other replicas)
is done by :mod:`proxy.enforcement`, which this only tells what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from detection.types import TOTAL, Action, ActionKind, Mode, Observation, Series
from proxy import gate_refusals as say
from proxy.context import RequestContext
from proxy.gate_actions import Actions, ActiveAction
from proxy.gate_counters import Counters
from proxy.gate_decision import ALLOW, Decision
from proxy.gate_estimate import Estimate, Estimator, Rates
from proxy.gate_plan import Caller, Plan, PlanCache
from proxy.gate_rules import CallCap, Rule
from proxy.gate_shadow import ShadowBook
from proxy.keys import KeyRing, Terms
from proxy.providers.base import Refusal
from proxy.settings import BlastRadiusSettings, BudgetSettings, LimitSettings, ProtectSettings

_STREAM_SLACK = 1.25
_SAID = {word: (("x-tokenweir-decision", word),) for word in ("throttle", "block")}
Cut = Callable[[Series, Refusal], object]


class Gate:
    """Decides about every call.

    Parameters
    ----------
    clock
        Epoch seconds, the store's where it is known.
    rates
        ``(provider, model, project) ->`` the dearest rates that can apply.
    keys
        The keys of the installation; ``None`` where there are none.
    link
        What a person can open, from an incident's id; empty for none.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        rates: Callable[[str, str | None, str | None], Rates],
        keys: KeyRing | None = None,
        mode: Mode = Mode.ENFORCE,
        limits: Sequence[LimitSettings] = (),
        budgets: Sequence[BudgetSettings] = (),
        protect: Sequence[ProtectSettings] = (),
        blast_radius: BlastRadiusSettings | None = None,
        link: Callable[[str], str] = lambda incident: "",
    ) -> None:
        self._clock = clock
        self._keys = keys
        self._link = link
        self._cuts: list[Cut] = []
        self._paged: list[Callable[[Action], object]] = []
        self.shadow = ShadowBook()
        self.mode = mode
        self.estimator = Estimator(rates)
        self.counters = Counters(clock)
        self.in_force = Actions(mode, protect, blast_radius or BlastRadiusSettings())
        self._cache = PlanCache(self._plan)
        self._plans = self._cache.plans
        self.counters.on_forgotten = self.refresh
        self.configure(mode, limits, budgets, protect, blast_radius)

    # -- settings and actions ---------------------------------------------------

    def configure(
        self,
        mode: Mode,
        limits: Sequence[LimitSettings],
        budgets: Sequence[BudgetSettings],
        protect: Sequence[ProtectSettings],
        blast_radius: BlastRadiusSettings | None = None,
    ) -> None:
        """Take new settings. Counts of rules that stay go on; actions in force stay."""
        self.mode = mode
        self.counters.configure(mode, limits, budgets)
        self.in_force.configure(mode, protect, blast_radius or BlastRadiusSettings())
        for action in self.actions():
            self.in_force.put(action)
        self.refresh()

    def refresh(self) -> None:
        """Forget what was worked out: rules, actions or keys changed."""
        self._cache.look_at(self.counters.dimensions | self.in_force.dimensions)

    def on_cut(self, callback: Cut) -> None:
        """``callback(series, refusal)`` must end the running calls of a series."""
        self._cuts.append(callback)

    def on_softened(self, callback: Callable[[Action], object]) -> None:
        """Called with the throttle taken where a block would have stopped too much."""
        self._paged.append(callback)

    def apply(self, actions: Iterable[Action]) -> list[Action]:
        """Put decisions of policy or of a person in force here.

        Those that protect lists and the blast radius allow; returns them as they
        were taken, to be told to the other replicas.
        """
        taken = []
        for action in actions:
            if action.origin == "policy" and self.in_force.protects(action.series):
                continue
            if self.in_force.stops(action) and not self._within_blast_radius(action):
                action = self.in_force.softened(action)
                for page in self._paged:
                    page(action)
            self.put(action)
            taken.append(action)
        return taken

    def put(self, action: Action) -> None:
        """Put in force what another replica (or a snapshot) says is in force."""
        now = self._clock()
        if action.until is not None and action.until <= now:
            return
        if action.kind is ActionKind.CUT_STREAMS:
            if action.mode is Mode.ENFORCE and self.mode is Mode.ENFORCE:
                self._cut(action)
            return
        active = self.in_force.put(action)
        if active is None:
            return
        self.refresh()
        stops = action.kind is ActionKind.DISABLE_KEY or action.cut
        if stops and active.mode is Mode.ENFORCE:
            self._cut(action)

    def release(self, action_id: str) -> Action | None:
        """Take an action back; what it was, or ``None`` where there was none."""
        action = self.in_force.remove(action_id)
        if action is not None:
            self.refresh()
        return action

    def actions(self) -> list[Action]:
        """What is in force."""
        return [active.action for active in self.in_force]

    def expire(self) -> list[Action]:
        """Drop the actions that ran out; which they were."""
        gone = self.in_force.expire(self._clock())
        if gone:
            self.refresh()
        return gone

    def _within_blast_radius(self, action: Action) -> bool:
        since = self._clock() - self.in_force.blast.window_seconds
        return self.in_force.within_blast_radius(action, self._cache.callers(since))

    def _cut(self, action: Action) -> None:
        self.cut_streams(action.series, say.by_action(action, self._link(action.incident)))

    def cut_streams(self, series: Series, refusal: Refusal) -> None:
        """End the running calls of a series."""
        for cut in self._cuts:
            cut(series, refusal)

    # -- one call ---------------------------------------------------------------

    def admit(self, ctx: RequestContext) -> Decision:
        """Decide about one call."""
        key_of, clock = self._cache.key_of, self._clock
        key = key_of(ctx)
        plan = self._plans.get(key) or self._cache.add(key, ctx)
        now = clock()
        plan.caller.seen = now
        if plan.idle:
            return ALLOW
        return self._decide(ctx, plan, now, final=False)

    def wait(
        self, ctx: RequestContext, decision: Decision, then: Callable[[Decision], None]
    ) -> None:
        """Call ``then`` with the real answer to a ``wait``, within a quarter of a second.

        Only the first call of a new account, or one that finds the replica's share
        of a budget used up while the budget is not, has to wait for the store.
        """

        tries = 3

        def ready(answered: bool) -> None:
            nonlocal tries
            tries -= 1
            key = self._cache.key_of(ctx)
            plan = self._plans.get(key) or self._cache.add(key, ctx)
            again = self._decide(ctx, plan, self._clock(), final=not (answered and tries))
            if again.kind == "wait":
                self.counters.wait_for(again.holds, ready)
            else:
                then(again)

        self.counters.wait_for(decision.holds, ready)

    def tells_apart(self, dimension: str, name: str) -> bool:
        """Whether an action in force or a rule is for this very name, whatever else is capped."""
        return self.in_force.names(dimension, name) or self.counters.names(dimension, name)

    def _plan(self, ctx: RequestContext, caller: Caller) -> Plan:
        terms = self._keys.terms(ctx) if self._keys is not None else Terms()
        return Plan(
            caller,
            self.in_force.of(ctx),
            self.counters.of(ctx, terms.rules),
            (*self.counters.caps_of(ctx), *terms.caps),
            terms.forbidden,
        )

    def _decide(self, ctx: RequestContext, plan: Plan, now: float, *, final: bool) -> Decision:
        if plan.forbidden is not None:
            return Decision("forbidden", refusal=plan.forbidden, rule=plan.forbidden.rule)
        decision = Decision("allow")
        for active in plan.actions:
            refused = self._act(active, ctx, decision, now)
            if refused is not None:
                return refused
        if plan.counters or plan.caps:
            refused = self._reserve(ctx, plan, decision, now, final=final)
            if refused is not None:
                self._abandon_probe(decision)
                return refused
        if decision.would is not None or decision.model is not None:
            decision.headers = _headers(decision)
        return decision

    def _act(
        self, active: ActiveAction, ctx: RequestContext, decision: Decision, now: float
    ) -> Decision | None:
        """What an action does to a call: a refusal, or a change of the decision."""
        if active.over(now):
            return None
        action, kind = active.action, active.action.kind
        enforced = active.mode is Mode.ENFORCE
        if kind is ActionKind.DOWNGRADE:
            model = active.model_for(ctx.model)
            if model is None or decision.model is not None:
                return None
            if enforced:
                decision.kind, decision.model, decision.rule = "downgrade", model, action.rule
            else:
                decision.might("downgrade", action.rule, action.series)
            return None
        link = self._link(action.incident)
        if active.probes:
            if active.take_probe():
                decision.probe = active
                return None
            word, refusal = "throttle", say.by_action(action, link, half_open=True)
        elif kind is ActionKind.THROTTLE:
            wait = active.take(now, self.counters.replicas)
            if not wait:
                return None
            word, refusal = "throttle", say.by_throttle(action, now, wait, link)
        else:
            if active.refusal is None or active.refusal.link != link:
                active.refusal = say.by_action(action, link)
            word, refusal = "block", active.refusal
        if not enforced:
            decision.might(word, action.rule, action.series)
            return None
        self._abandon_probe(decision)
        return Decision(word, refusal=refusal, rule=action.rule, headers=_SAID[word])

    def _reserve(
        self, ctx: RequestContext, plan: Plan, decision: Decision, now: float, *, final: bool
    ) -> Decision | None:
        estimate = None
        if plan.prices:
            estimate = decision.estimate = self.estimator.estimate(ctx)
            decision.output_tokens = estimate[3]
            for cap in plan.caps:
                refused = self._check_cap(cap, estimate, decision)
                if refused is not None:
                    return refused
        return self.counters.reserve(plan.counters, estimate, decision, now, final=final)

    def _check_cap(self, cap: CallCap, estimate: Estimate, decision: Decision) -> Decision | None:
        # Without max_tokens the answer's length is a guess: only the prompt counts
        # at first, and the stream is cut once it really passes the cap.
        cost = estimate.cost if estimate.bounded else estimate.input_cost
        if cap.mode is Mode.ENFORCE and (decision.cap is None or cap.limit < decision.cap.limit):
            decision.cap = cap
        if cost <= cap.limit or cap.mode is Mode.OBSERVE:
            return None
        if cap.mode is Mode.SHADOW:
            decision.might("block", cap.name, TOTAL)
            return None
        return Decision(
            "block",
            refusal=say.by_cap(cap, cost),
            rule=cap.name,
            headers=(("x-tokenweir-decision", "block"),),
        )

    def progress(self, decision: Decision, output_bytes: int) -> Refusal | None:
        """Tell how long a running answer is, in bytes of text; a refusal ends it."""
        estimate = decision.estimate
        if estimate is None or output_bytes <= decision.output_bytes:
            return None
        decision.output_bytes = output_bytes
        tokens = self.estimator.output_tokens(estimate.learn, output_bytes)
        cap = decision.cap
        if cap is not None:
            cost = estimate.input_cost + tokens * estimate.output_rate
            if cost > cap.limit:
                return say.by_cap(cap, cost)
        if estimate.bounded or tokens <= decision.output_tokens:
            return None
        more = int(tokens * _STREAM_SLACK) - decision.output_tokens
        decision.output_tokens += more
        return self.counters.extend(decision, more, self._clock())

    def settle(self, decision: Decision, observation: Observation) -> None:
        """A call is over: what was set aside becomes what was used. Once per decision."""
        if decision.settled or decision is ALLOW:
            return
        decision.settled = True
        if decision.probe is not None:
            healthy = observation.status is not None and observation.status < 400
            healthy = healthy and not observation.error_type
            decision.probe.probed(healthy=healthy)
        self.counters.settle(decision, observation)
        if decision.would is not None and decision.would_of is not None:
            self.shadow.note(decision.would, *decision.would_of, observation)
        if decision.estimate is not None:
            self.estimator.learn(decision.estimate, decision.output_bytes, observation)

    def drop(self, decision: Decision) -> None:
        """A call that was admitted, or waits, is not made after all."""
        if decision is ALLOW or decision.kind == "wait":
            return
        decision.settled = True
        self._abandon_probe(decision)
        self.counters.give_back(decision)

    def _abandon_probe(self, decision: Decision) -> None:
        if decision.probe is not None:
            decision.probe.running -= 1
            decision.probe = None

    def unusable_key(self, ctx: RequestContext) -> Refusal | None:
        """Why a call's issued key is refused before the gate is asked."""
        return self._keys.unusable(ctx.virtual_key) if self._keys is not None else None

    def own_rules(self, ctx: RequestContext) -> tuple[Rule, ...]:
        """The limits and budgets of a call's own key."""
        return self._keys.terms(ctx).rules if self._keys is not None else ()


def _headers(decision: Decision) -> tuple[tuple[str, str], ...]:
    found = [("x-tokenweir-decision", decision.kind)]
    if decision.model is not None:
        found.append(("x-tokenweir-model", decision.model))
    if decision.would is not None:
        found.append(("x-tokenweir-would", decision.would))
    return tuple(found)
