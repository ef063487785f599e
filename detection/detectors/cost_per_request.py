"""Calls that suddenly cost more, or answer longer, than this owner's ever did.

Owns: CUSUMs of calls past the owner's own upper bounds: price per token (a model
swap), cost per call (a bloated prompt), output tokens (an inflated answer). Must
never: judge an owner whose usual shape is not yet known.

Each is a Bernoulli CUSUM of "this call is past the bound": whatever the
distribution's shape, the chance of that under the null is what defined the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.detectors.base import Detector, Occasion
from detection.settings import DetectionSettings
from detection.shape import Gauge
from detection.state import View
from detection.stats import bernoulli_weights
from detection.types import Family, Observation, Score, Signal, Tier

#: Null and alternative share of calls past the bound.
PRICE = bernoulli_weights(0.001, 0.05)
LENGTH = bernoulli_weights(0.03, 0.4)
#: Times the usual length, and calls past the bound, that make a length critical.
FAR = 5.0
FAR_CALLS = 12


class Excess:
    """The calls past one owner's bounds for one signal."""

    family = Family.SHAPE
    occasion = Occasion.EXCESS
    dimensions: frozenset[str] = frozenset()

    def __init__(self, signal: Signal, settings: DetectionSettings) -> None:
        self.signal = signal
        self._threshold = settings.shape.threshold

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Judge the call at hand by each bound that it passed."""
        if observation is None or view.owner is None:
            return None
        shape, o = view.owner.shape, observation
        if self.signal is Signal.OUTPUT_TOKENS:
            output = o.output_tokens or 0
            if output <= shape.output.high:
                return None
            return self._judge(view, shape.output, float(output), "output_tokens", LENGTH)
        cost = o.cost_nano_usd or 0
        tokens = (o.input_tokens or 0) + 4 * (o.output_tokens or 0)
        scores = []
        if tokens > 0 and cost > tokens * shape.price.high:
            scores.append(
                self._judge(view, shape.price, cost / tokens, "nano_usd_per_token", PRICE)
            )
        if cost > shape.cost.high:
            scores.append(self._judge(view, shape.cost, float(cost), "nano_usd_per_call", LENGTH))
        found = [s for s in scores if s is not None]
        return max(found, key=lambda s: s.tier) if found else None

    def _judge(
        self, view: View, gauge: Gauge, value: float, unit: str, weights: tuple[float, float]
    ) -> Score | None:
        calls = view.owner.shape.calls if view.owner is not None else 0
        score = gauge.exceed(value, calls, *weights, view.now)
        if score < 0.7 * self._threshold or gauge.hits < 3:
            return None
        level = gauge.level()
        ratio = level / gauge.usual if gauge.usual else 1.0
        # Long answers and prompts come in legitimate batches: only a price, or a
        # length that goes on far past the usual, is critical by itself.
        far = weights is PRICE or (ratio >= FAR and gauge.hits >= FAR_CALLS)
        # Real keys change the length of their answers thirtyfold between jobs.
        if self.signal is Signal.OUTPUT_TOKENS:
            far = False
        tier = Tier.CRITICAL if far and score >= self._threshold else Tier.WARNING
        return Score(
            self.signal,
            self.family,
            tier,
            level,
            baseline=gauge.usual,
            ratio=ratio,
            e_value=2.718281828**score,
            since=gauge.since,
            ceiling=Tier.CRITICAL,
            detail={
                "unit": unit,
                "bound": gauge.high,
                "calls": gauge.hits,
                "soft_cap_per_second": round(
                    view.state.window.calls_in(30) / 300.0 / max(1.0, ratio), 4
                ),
            },
        )


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The judges of cost per request and of output tokens."""
    return (Excess(Signal.COST_PER_REQUEST, settings), Excess(Signal.OUTPUT_TOKENS, settings))
