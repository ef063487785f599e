"""What the gate's tests build calls, gates and replicas with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from detection.types import Action, ActionKind, Observation, Series
from proxy.context import RequestContext
from proxy.enforcement import Enforcement
from proxy.gate import Gate
from proxy.gate_decision import Decision
from proxy.gate_estimate import Rates
from proxy.keys import KeyRing
from proxy.providers.base import RequestFacts
from proxy.settings import KeysSettings
from proxy.store.store import Store

START = 1_800_000_000.0
RATES = Rates(input=150, output=600)


class Time:
    """A clock that is moved by hand."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def call(
    agent: str | None = "agent",
    *,
    key: str | None = "key_0",
    model: str = "m",
    max_tokens: int | None = 100,
    body_bytes: int = 200,
    **more: Any,
) -> RequestContext:
    facts = RequestFacts(model=model, max_output_tokens=max_tokens, body_bytes=body_bytes)
    return RequestContext(
        id="r",
        provider="openai",
        upstream="openai",
        wire="openai",
        endpoint="chat_completions",
        key=key,
        agent=agent,
        model=model,
        facts=facts,
        **more,
    )


def done(
    input_tokens: int = 50, output_tokens: int = 20, status: int = 200, **more: Any
) -> Observation:
    cost = input_tokens * RATES.input + output_tokens * RATES.output
    return Observation(
        START,
        "r",
        status=status,
        usage_source="reported",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_nano_usd=cost,
        **more,
    )


def refused(status: int = 429) -> Observation:
    return Observation(START, "r", status=status)


def gate(clock: Callable[[], float], **settings: Any) -> Gate:
    return Gate(clock=clock, rates=lambda provider, model, project: RATES, **settings)


def action(
    kind: ActionKind, dimension: str, value: str, *, seconds: float = 60.0, **more: Any
) -> Action:
    since = more.pop("since", START)
    name = more.pop("id", f"{kind}-{dimension}-{value}")
    return Action(
        id=name,
        kind=kind,
        series=Series(dimension, value),
        since=since,
        until=since + seconds,
        rule=more.pop("rule", "test"),
        **more,
    )


class Replica:
    """A gate and its enforcement on a real store."""

    def __init__(self, store: Store, folder: Path, **settings: Any) -> None:
        self.store = store
        self.keys = KeyRing(b"s" * 32, KeysSettings(), store.clock)
        self.gate = gate(store.clock, keys=self.keys, **settings)
        self.enforcement = Enforcement(
            gate=self.gate, keys=self.keys, store=store, clock=store.clock, data_dir=folder
        )

    async def admit(self, ctx: RequestContext) -> Decision:
        """Admission as the pump does it, with the wait for a share."""
        import asyncio

        decision = self.gate.admit(ctx)
        if decision.kind != "wait":
            return decision
        answer: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self.gate.wait(ctx, decision, answer.set_result)
        return await asyncio.wait_for(answer, 5)
