"""The share of failing calls, by a Bernoulli CUSUM.

Owns: the score of each series' failures. Must never: blame one caller for an
outage of its provider: unless most failures are the caller's own (its requests are
refused as wrong), the rate stays at critical. One failing request that is sent again
and again is the retry storm's.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.detectors.base import Detector, Occasion
from detection.settings import DetectionSettings
from detection.state import WIDE, SeriesState, View
from detection.stats import bernoulli_weights
from detection.types import Dimension, Family, Observation, Score, Signal, Tier

#: A CUSUM is capped so that it falls again soon after the storm.
CAP = 2.0
#: Share of failures for which the caller is to blame, above which it may be blocked.
OWN_SHARE = 0.5


def outage(view: View, threshold: float) -> bool:
    """Whether the provider fails others too: then no caller is to blame."""
    provider, state = view.provider, view.state
    if provider is None or provider is state or provider.error_score < threshold:
        return False
    minute = view.bucket // 6
    return state.failures(minute) < 0.5 * provider.failures(minute)


def usual_errors(state: SeriesState) -> float:
    """The share of failures over all calls before the last minutes, 0 where unknown."""
    calls = state.window.calls - state.window.calls_in(90)
    recent = state.fails[1] + state.fails[2]
    return max(0, state.errors - recent) / calls if calls >= 200 else 0.0


class ErrorRate:
    """The error rate of a series against a null of 10 %, or its own usual rate and a half."""

    signal = Signal.ERROR_RATE
    family = Family.ERRORS
    occasion = Occasion.FAILURE

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings.errors
        self._weights = bernoulli_weights(settings.errors.null_rate, settings.errors.bad_rate)
        self.dimensions = frozenset(
            settings.rule(self.signal).dimensions
            or (Dimension.AGENT, Dimension.KEY, Dimension.MODEL, Dimension.PROVIDER)
        )

    def observe(self, observation: Observation | None, view: View) -> Score | None:
        """Count one failure; the calls since the last one count as successes."""
        state, settings = view.state, self._settings
        null, (hit, miss) = settings.null_rate, self._weights
        usual = 2.0 * usual_errors(state)
        if usual > null:
            null = min(usual, 0.8)
            hit, miss = bernoulli_weights(null, max(settings.bad_rate, (1.0 + null) / 2))
        calls = state.window.calls
        score = max(0.0, state.error_score + max(0, calls - state.error_calls - 1) * miss)
        if score == 0.0:
            state.error_since = view.now
        score = state.error_score = min(score + hit, CAP * settings.threshold)
        state.error_calls = calls
        if score < 0.8 * settings.threshold:
            return None
        tier = Tier.CRITICAL if score >= settings.threshold else Tier.WARNING
        lasting = max(6, min(90, int(view.now - state.error_since) // 10 + 1))
        observed = min(1.0, state.failures(view.bucket // 6) / max(1, state.window.calls_in(12)))
        blameless = (
            state.series.dimension in WIDE
            or state.errors_own < OWN_SHARE
            or outage(view, settings.threshold)
        )
        return Score(
            self.signal,
            self.family,
            tier,
            observed,
            baseline=null,
            ratio=observed / null,
            e_value=2.718281828**score,
            window_seconds=lasting * 10.0,
            since=state.error_since,
            ceiling=Tier.CRITICAL if blameless else Tier.EMERGENCY,
            detail={
                "errors": state.failures(view.bucket // 6),
                "soft_cap_per_second": round(state.window.calls_in(6) / 120.0, 4),
            },
        )


def detectors(settings: DetectionSettings) -> Sequence[Detector]:
    """The judge of error rates."""
    return (ErrorRate(settings),)
