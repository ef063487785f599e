"""What a change of the policy file would have done: recorded calls through real parts.

Owns: the replay of calls through gate, engine and policy on the calls' own clock, and
the comparison of the file in force with a changed one. Must never: touch traffic, the
store or a running gate; it runs as a process of its own (``python -m proxy.whatif``).

What is not replayed: limits on calls in flight, and the limits of single issued keys.
A call that was refused when it was made is taken to have cost what the last call of
the same caller and model did, since what it would have cost nobody knows.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from detection.backtest import EPISODE_SECONDS, SWEEP_SECONDS, TICK_SECONDS
from detection.engine import Engine
from detection.policy import Policy
from detection.types import Action, Observation, Series, Tier, Verdict
from proxy import config
from proxy.context import RequestContext
from proxy.gate import Gate
from proxy.gate_estimate import Rates
from proxy.history.own import own_calls
from proxy.judge import Judge
from proxy.metrics import RuntimeMetrics
from proxy.providers.base import RequestFacts
from proxy.store.series import REFUSALS

MOST_CALLS: Final = 200_000
_WARM_UP_SECONDS: Final = 21 * 86_400.0
_TOLD_EVERY: Final = 5_000
_SAMPLES: Final = 50
_RULES: Final = 50


@dataclass(slots=True)
class Tally:
    """Calls and nano-USD."""

    calls: int = 0
    cost_nano_usd: int = 0

    def add(self, cost: int) -> None:
        """One call more."""
        self.calls += 1
        self.cost_nano_usd += cost

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return {"calls": self.calls, "cost_nano_usd": self.cost_nano_usd}


@dataclass(slots=True)
class Outcome:
    """What one configuration would have come to."""

    all: Tally = field(default_factory=Tally)
    refused: Tally = field(default_factory=Tally)
    downgraded: Tally = field(default_factory=Tally)
    rules: dict[tuple[str, str, str], Tally] = field(default_factory=dict)
    alarms: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def note(self, what: str, rule: str, scope: str, cost: int) -> None:
        """A rule touched a call."""
        self.rules.setdefault((what, rule, scope), Tally()).add(cost)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the rules that touched most money first."""
        rules = sorted(self.rules.items(), key=lambda r: (r[1].cost_nano_usd, r[1].calls))
        return {
            "all": self.all.as_dict(),
            "refused": self.refused.as_dict(),
            "downgraded": self.downgraded.as_dict(),
            "alarms": dict(self.alarms),
            "actions": dict(self.actions),
            "rules": [
                {"what": what, "rule": rule, "scope": scope, **tally.as_dict()}
                for (what, rule, scope), tally in reversed(rules[-_RULES:])
            ],
            "samples": self.samples,
        }


class Replay:
    """One configuration over a stream of calls in order of time.

    Parameters
    ----------
    settings
        The whole configuration.
    count_from
        Epoch seconds; calls before only teach what is normal.
    """

    def __init__(self, settings: config.Settings, count_from: float) -> None:
        self.outcome = Outcome()
        self._count_from = count_from
        self._now = self._ticked = self._swept = 0.0
        self._cost = 0
        self._last: dict[tuple[Series, Tier], float] = {}
        self._gate = Gate(
            clock=lambda: self._now,
            rates=lambda provider, model, project: Rates(0, 0, call=self._cost),
            mode=settings.mode,
            limits=settings.limits,
            budgets=settings.budgets,
            protect=settings.protect,
            blast_radius=settings.blast_radius,
        )
        self._judge = Judge(
            engine=Engine(settings.detection),
            policy=Policy(settings.policies),
            enforcement=self,
            incidents=self,
            runtime=RuntimeMetrics(),
            now=lambda: self._now,
        )

    def feed(self, call: Observation, ctx: RequestContext) -> None:
        """One call that may have passed, its cost known or assumed."""
        self._now = now = call.ts
        if now - self._ticked >= TICK_SECONDS:
            self._ticked = now
            self._gate.expire()
            self._judge.climb()
            if now - self._swept >= SWEEP_SECONDS:
                self._swept = now
                self._judge.sweep()
        cost = self._cost = call.cost_nano_usd or 0
        decision = self._gate.admit(ctx)
        if now >= self._count_from:
            self._count(call, cost, decision)
        if decision.refusal is None:
            self._gate.settle(decision, call)
            self._judge.observe(call)

    def _count(self, call: Observation, cost: int, decision: Any) -> None:
        outcome = self.outcome
        outcome.all.add(cost)
        refusal = decision.refusal
        if refusal is not None:
            outcome.refused.add(cost)
            outcome.note(decision.kind, decision.rule or refusal.rule, refusal.scope, cost)
            if len(outcome.samples) < _SAMPLES:
                outcome.samples.append(
                    {
                        "ts": call.ts,
                        "agent": call.agent,
                        "key": call.key,
                        "model": call.model,
                        "cost_nano_usd": cost,
                        "rule": decision.rule or refusal.rule,
                    }
                )
        elif decision.model is not None:
            outcome.downgraded.add(cost)
            outcome.note("downgrade", decision.rule, f"to {decision.model}", cost)
        elif decision.would is not None and decision.would_of is not None:
            rule, series = decision.would_of
            scope = f"{series.dimension} {series.value}".strip()
            outcome.note(f"would_{decision.would}", rule, scope, cost)

    # -- as the judge's enforcement and incident book ------------------------------

    def put_in_force(self, actions: Sequence[Action]) -> Sequence[Action]:
        """Apply what policy decided."""
        taken = self._gate.apply(actions)
        if self._now >= self._count_from:
            self.outcome.actions.update(str(action.kind) for action in taken)
        return taken

    def on_verdict(self, verdict: Verdict) -> None:
        """Count an episode of one series at one tier once."""
        seen = (verdict.series, verdict.tier)
        if verdict.tier is Tier.NONE or verdict.learning or self._now < self._count_from:
            return
        if self._now - self._last.get(seen, -1e18) > EPISODE_SECONDS:
            self.outcome.alarms[verdict.tier.label] += 1
        self._last[seen] = self._now

    def on_action(self, action: Action) -> None:
        """Nobody is told."""


def as_made(calls: Iterable[Observation]) -> Iterator[Observation]:
    """The calls as if none had been refused."""
    usual: dict[tuple[str | None, str | None, str | None], Observation] = {}
    for call in calls:
        caller = (call.key, call.agent, call.model)
        if call.action not in REFUSALS:
            usual[caller] = call
            yield call
            continue
        like = usual.get(caller)
        yield call._replace(
            action=None,
            status=200,
            error_type=None,
            cost_nano_usd=like.cost_nano_usd if like else None,
            input_tokens=like.input_tokens if like else None,
            output_tokens=like.output_tokens if like else None,
        )


def context_of(call: Observation) -> RequestContext:
    """The call as the gate saw it when it came."""
    facts = RequestFacts(
        model=call.model, body_bytes=call.input_tokens or 0, max_output_tokens=call.output_tokens
    )
    return RequestContext(
        id=call.id,
        provider=call.provider or "",
        upstream=call.upstream or call.provider or "",
        wire="openai",
        endpoint=call.endpoint or "",
        key=call.key,
        agent=call.agent,
        project=call.project,
        user=call.user,
        session=call.session,
        tags=dict(call.tags),
        client=call.client,
        model=call.model,
        stream=bool(call.stream),
        facts=facts,
    )


def compare(
    data_dir: Path, now: config.Settings, then: config.Settings, days: float, at: float
) -> Iterator[dict[str, Any]]:
    """Replay the last ``days`` under both; yields how far it is, and last the result.

    ``at`` is the present, epoch seconds. Up to three weeks before teach what is
    normal. Of very many calls only the newest :data:`MOST_CALLS` are replayed.
    """
    count_from = at - days * 86_400.0
    begin = count_from - _WARM_UP_SECONDS
    total = sum(1 for _ in own_calls(data_dir, begin, at))
    skipped = max(0, total - MOST_CALLS)
    replays = Replay(now, count_from), Replay(then, count_from)
    first = None
    for number, call in enumerate(as_made(own_calls(data_dir, begin, at))):
        if number < skipped:
            continue
        first = call.ts if first is None else first
        ctx = context_of(call)
        for replay in replays:
            replay.feed(call, ctx)
        if number % _TOLD_EVERY == 0:
            yield {"read": number - skipped, "of": total - skipped}
    yield {
        "read": total - skipped,
        "of": total - skipped,
        "result": {
            "since": max(count_from, first or count_from),
            "until": at,
            "learned_from": first,
            "left_out": skipped,
            "now": replays[0].outcome.as_dict(),
            "then": replays[1].outcome.as_dict(),
        },
    }


def main() -> None:
    """Read a job from standard input, write a line of JSON for each step."""
    os.nice(10)
    job = json.load(sys.stdin)
    source = job["source"]
    now = config.load(source) if source else config.defaults()
    then = config.trial(job["text"])
    for step in compare(Path(job["data_dir"]), now, then, job["days"], job.get("at", time.time())):
        print(json.dumps(step), flush=True)


if __name__ == "__main__":
    main()
