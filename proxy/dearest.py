"""The dearest a call's tokens can be, for what admission sets aside.

Owns: upper bounds of a model's rates, found by asking the pricer itself. Must
never: know a price of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from detection.types import Usage
from proxy.gate_estimate import Rates
from proxy.pricing import Pricer

_MANY = 1_000_000
_TIERS = (None, "priority")
_HOUR_SECONDS = 3600.0
_MOST = 4096


class DearestRates:
    """Nano-USD per token, as dear as cache writes, long context and service tier can make it."""

    def __init__(self, pricer: Pricer, now: Callable[[], float]) -> None:
        self._pricer = pricer
        self._now = now
        self._revision = pricer.revision
        self._known: dict[tuple[str, str | None, str | None], tuple[float, Rates]] = {}

    def of(self, provider: str, model: str | None, project: str | None) -> Rates:
        """The rates that a call can't exceed."""
        if self._pricer.revision != self._revision:
            self._revision = self._pricer.revision
            self._known.clear()
        key = (provider, model, project)
        known = self._known.get(key)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        found = self._find(provider, model, project, self._now())
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = (now + _HOUR_SECONDS, found)
        return found

    def _find(self, provider: str, model: str | None, project: str | None, now: float) -> Rates:
        def dearest(*usages: Usage) -> int:
            costs = [
                self._pricer.price(
                    provider, model, replace(usage, service_tier=tier), at=now, project=project
                ).cost_nano_usd
                for usage in usages
                for tier in _TIERS
            ]
            return -(-max(costs) // _MANY)

        many = Usage(source="estimated", input_tokens=_MANY)
        prompts = (
            many,
            replace(many, cache_write_tokens=_MANY, cache_write_5m_tokens=_MANY),
            replace(many, cache_write_tokens=_MANY, cache_write_1h_tokens=_MANY),
        )
        answers = (
            Usage(source="estimated", output_tokens=_MANY),
            Usage(source="estimated", output_tokens=_MANY, reasoning_tokens=_MANY),
        )
        # A long prompt can make the answer's tokens dearer too: the difference it makes.
        long_answers = dearest(*(replace(a, input_tokens=_MANY) for a in answers))
        return Rates(
            input=dearest(*prompts),
            output=max(dearest(*answers), long_answers - dearest(many)),
        )
