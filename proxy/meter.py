"""From a finished call to its observation: priced, recorded, judged.

Owns: how a call becomes an :class:`Observation`, and what is done before its client
sees the end (the record) and after (all else). Must never: raise into the request
path, await, or make up a number that the provider did not say without marking it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from detection.types import Observation, Usage
from proxy.context import RequestContext
from proxy.gate_decision import Decision
from proxy.http.ports import Finished
from proxy.metrics import RuntimeMetrics
from proxy.pricing import Pricer
from proxy.provider_limits import ProviderLimits
from proxy.providers import estimate_usage

_log = structlog.get_logger("tokenweir.meter")
_new = tuple.__new__


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
        listeners: tuple[Callable[[Observation], None], ...] = (),
    ) -> None:
        self._pricer = pricer
        self._gate = gate
        self._ledger = ledger
        self._judge = judge
        self._runtime = runtime
        self._limits = limits
        self._now = now
        self._listeners = listeners

    def record(self, call: Finished) -> Observation | None:
        """Record one call, before its client sees the end; ``None`` where that fails."""
        try:
            observation = self.observation(call)
        except Exception:
            _log.exception("meter_failed", request_id=call.ctx.id)
            self._runtime.detector_failures["meter"] += 1
            return None
        # A part of ours that fails must not fail the call.
        try:
            self._ledger.record(observation)
        except Exception:
            self._failed("ledger")
        return observation

    def judge(self, call: Finished, observation: Observation) -> None:
        """Settle and judge a recorded call. Its client needn't wait for that."""
        ctx, decision, _, usage, _, _, headers, _, _, _ = call
        if decision is not None:
            would = decision.would
            self._runtime.decisions[f"would_{would}" if would else decision.kind] += 1
            try:
                self._gate.settle(decision, observation)
            except Exception:
                self._failed("gate")
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
        key = ctx.key
        if headers and key is not None:
            provider, now = ctx.provider, observation[0]
            try:
                self._limits.note(provider, key, headers, now)
                if usage is not None and usage.retry_after_seconds:
                    self._limits.told_to_wait(provider, key, now + usage.retry_after_seconds)
            except Exception:
                self._failed("limits")

    def observation(self, call: Finished) -> Observation:
        """The observation of a call."""
        ctx, decision, status, usage, outcome, base_url, _, model_sent, ttft, latency = call
        clock, facts = self._now, ctx.facts
        now = clock()
        cost: int | None = None
        answered = usage is not None
        if usage is None:
            usage = Usage()
        # Billed: not an error that the provider answered at once.
        elif ctx.metered and (status < 400 or usage.input_tokens is not None or outcome):
            usage = estimate_usage(usage, facts)
            cost = self._cost_nano_usd(ctx, model_sent or ctx.model, base_url, usage, now)
        error = usage.error
        error_type = outcome or (error.type or error.code if error is not None else None)
        if not error_type and status >= 400 and answered:
            error_type = f"http_{status}"
        if not error_type and usage.complete is False and not any(usage.finish_reasons):
            error_type = "incomplete"
        if outcome == "cut":
            action = "cut"
        elif decision is None:
            action = "allow"
        else:
            action = f"shadow_{decision.would}" if decision.would else decision.kind
        # In the order of its fields: by name it takes four times as long.
        return _new(
            Observation,
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
                status,
                error_type or None,
                usage.input_tokens,
                usage.cached_input_tokens,
                usage.cache_write_tokens,
                usage.output_tokens,
                usage.reasoning_tokens,
                cost,
                usage.source,
                usage.finish_reasons,
                facts.fingerprint,
                facts.fingerprint_kind,
                ctx.client,
                ctx.stream,
                ttft,
                latency,
                action,
                ctx.trace,
            ),
        )

    def _cost_nano_usd(
        self, ctx: RequestContext, model: str | None, base_url: str, usage: Usage, now: float
    ) -> int | None:
        """What the call cost; a call whose price fails is recorded all the same."""
        try:
            cost, _, unpriced, _ = self._pricer.price(
                ctx.provider,
                model,
                usage,
                upstream_url=base_url,
                at=now,
                project=ctx.project,
                upstream=ctx.upstream,
            )
        except Exception:
            self._failed("pricing")
            self._runtime.unpriced[ctx.provider] += 1
            return None
        if unpriced:
            self._runtime.unpriced[ctx.provider] += 1
        return cost

    def _failed(self, part: str) -> None:
        failures = self._runtime.detector_failures[part] = self._runtime.detector_failures[part] + 1
        if failures & (failures - 1) == 0:  # told at 1, 2, 4, 8: it may fail on every call
            _log.exception("part_failed", part=part, failures=failures)
