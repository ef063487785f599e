"""From a finished call to its observation: counted, priced, judged.

Owns: how a call becomes an :class:`Observation`, and the order settle, record,
judge. Must never: raise into the request path, await, or make up a number that
the provider did not say without marking it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from detection.types import Observation, Usage
from proxy.gate_decision import Decision
from proxy.http.ports import Finished
from proxy.metrics import RuntimeMetrics
from proxy.pricing import Pricer
from proxy.provider_limits import ProviderLimits
from proxy.providers import estimate_usage

_log = structlog.get_logger("tokenweir.meter")
_REFUSED = frozenset(("throttle", "block", "unavailable", "forbidden"))


class Settles(Protocol):
    """The gate, as the meter sees it."""

    def settle(self, decision: Decision, observation: Observation) -> None: ...


class Records(Protocol):
    """The ledger, as the meter sees it."""

    def record(self, observation: Observation) -> object: ...


class Judges(Protocol):
    """Detection and policy, as the meter sees them."""

    def observe(self, observation: Observation) -> None: ...


class Meter:
    """Takes every finished call."""

    def __init__(
        self,
        *,
        pricer: Pricer,
        gate: Settles,
        ledger: Records,
        judge: Judges,
        runtime: RuntimeMetrics,
        limits: ProviderLimits,
        now: Callable[[], float],
        contributors: Callable[[Observation], None],
        listeners: tuple[Callable[[Observation], None], ...] = (),
    ) -> None:
        self._pricer = pricer
        self._gate = gate
        self._ledger = ledger
        self._judge = judge
        self._runtime = runtime
        self._limits = limits
        self._now = now
        self._contributors = contributors
        self._listeners = listeners

    def finish(self, call: Finished) -> int | None:
        """Record one call; its cost in nano-USD where known."""
        try:
            observation = self.observation(call)
        except Exception:
            _log.exception("meter_failed", request_id=call.ctx.id)
            self._runtime.detector_failures["meter"] += 1
            return None
        # A part of ours that fails must not fail the call.
        decision = call.decision
        if decision is not None:
            would = decision.would
            self._runtime.decisions[f"would_{would}" if would else decision.kind] += 1
            try:
                self._gate.settle(decision, observation)
            except Exception:
                self._failed("gate")
        try:
            self._ledger.record(observation)
        except Exception:
            self._failed("ledger")
        if call.usage is not None or call.status >= 500:
            try:
                self._contributors(observation)
            except Exception:
                self._failed("contributors")
        # The engine sees throttled calls too: who goes on against a throttle runs away.
        try:
            self._judge.observe(observation)
        except Exception:
            self._failed("engine")
        for listener in self._listeners:
            try:
                listener(observation)
            except Exception:
                self._failed("listener")
        key, headers = call.ctx.key, call.answer_headers
        if headers and key is not None:
            provider, usage, now = call.ctx.provider, call.usage, observation.ts
            try:
                self._limits.note(provider, key, headers, now)
                if usage is not None and usage.retry_after_seconds:
                    self._limits.told_to_wait(provider, key, now + usage.retry_after_seconds)
            except Exception:
                self._failed("limits")
        return observation.cost_nano_usd

    def observation(self, call: Finished) -> Observation:
        """The observation of a call."""
        ctx, now = call.ctx, self._now()
        usage = call.usage
        cost: int | None = None
        if usage is not None and ctx.metered and _billable(call, usage):
            usage = estimate_usage(usage, ctx.facts)
            cost = self._cost_nano_usd(call, usage, now)
        usage = usage or Usage()
        error = usage.error
        error_type = call.outcome or (error.type or error.code if error is not None else None)
        if not error_type and call.status >= 400 and call.usage is not None:
            error_type = f"http_{call.status}"
        if not error_type and usage.complete is False and not any(usage.finish_reasons):
            error_type = "incomplete"
        # In the order of its fields: by name it takes four times as long.
        return Observation._make(
            (
                now,
                ctx.id,
                ctx.key,
                ctx.agent,
                ctx.project,
                ctx.user,
                ctx.session,
                ctx.tags,
                ctx.provider,
                ctx.upstream,
                ctx.endpoint,
                ctx.model,
                usage.model_served,
                call.status,
                error_type or None,
                usage.input_tokens,
                usage.cached_input_tokens,
                usage.cache_write_tokens,
                usage.output_tokens,
                usage.reasoning_tokens,
                cost,
                usage.source,
                usage.finish_reasons,
                ctx.facts.fingerprint,
                ctx.facts.fingerprint_kind,
                ctx.client,
                ctx.stream,
                call.ttft_seconds,
                call.latency_seconds,
                _action(call),
                ctx.trace,
            )
        )

    def _cost_nano_usd(self, call: Finished, usage: Usage, now: float) -> int | None:
        """What the call cost; a call whose price fails is recorded all the same."""
        ctx = call.ctx
        try:
            price = self._pricer.price(
                ctx.provider,
                call.model_sent or ctx.model,
                usage,
                upstream_url=call.base_url,
                at=now,
                project=ctx.project,
                upstream=ctx.upstream,
            )
        except Exception:
            self._failed("pricing")
            self._runtime.unpriced[ctx.provider] += 1
            return None
        if price.unpriced:
            self._runtime.unpriced[ctx.provider] += 1
        return price.cost_nano_usd

    def _failed(self, part: str) -> None:
        failures = self._runtime.detector_failures[part] = self._runtime.detector_failures[part] + 1
        if failures & (failures - 1) == 0:  # told at 1, 2, 4, 8: it may fail on every call
            _log.exception("part_failed", part=part, failures=failures)


def _billable(call: Finished, usage: Usage) -> bool:
    """Did the provider do work? Not for an error that it answered at once."""
    return call.status < 400 or usage.input_tokens is not None or call.outcome != ""


def _action(call: Finished) -> str:
    if call.outcome == "cut":
        return "cut"
    if call.decision is None:
        return "allow"
    would = call.decision.would
    return f"shadow_{would}" if would else call.decision.kind
