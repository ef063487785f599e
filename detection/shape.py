"""What one call of an owner usually costs and answers, as decaying log histograms.

Owns: quantiles of price per token, cost per call and output tokens, and how often
of late a call went past its own upper bound. Must never: judge.

The price of a call is its cost over ``input + 4 * output`` tokens: nearly constant
for one model whatever the prompt's length, so that a dearer model stands out at
once where cost per call would need many.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import log2
from typing import Any

import numpy as np

INFINITE = float("inf")
BINS = 176
#: Bins per doubling: a bin is 19 % wide.
FINENESS = 4
#: A histogram is halved beyond this weight, so that old days fade.
WEIGHT = 4096.0


class Gauge:
    """One quantity per call: its histogram, its upper bound, and a CUSUM of excesses.

    ``high`` is infinite until enough is known. ``share``, ``factor`` define it:
    the value that this share of calls passes, times the factor.
    """

    # Until there are bins, ``_first`` has the bin of each sample.
    __slots__ = ("_bins", "_first", "_since_bound", "at", "factor", "high", "hits", "peak",
                 "score", "share", "since", "usual", "weight")  # fmt: skip

    def __init__(self, share: float, factor: float) -> None:
        self.share = share
        self.factor = factor
        self.high = INFINITE
        self.usual = 0.0
        self.weight = 0.0
        self._first = bytearray()
        self._bins: array[float] | None = None
        self.score = 0.0
        self.at = 0
        self.since = 0.0
        self.hits = 0
        self.peak = 0.0
        self._since_bound = 0

    def learn(self, value: float, least: int) -> None:
        """Add a sample; renew the bound now and then."""
        place = int(log2(value) * FINENESS) + 16 if value > 0.0625 else 0
        if place >= BINS:
            place = BINS - 1
        bins = self._bins
        if bins is None:
            self._first.append(place)
            if len(self._first) >= BINS:
                self.bins()
        else:
            bins[place] += 1.0
        self.weight += 1.0
        since = self._since_bound = self._since_bound + 1
        if (since >= 128 or since >= self.weight * 0.25) and self.weight >= least:
            self._since_bound = 0
            self._bound()

    def bins(self) -> array[float]:
        """How many samples fell into each bin, old ones fading."""
        bins = self._bins
        if bins is None:
            bins = self._bins = array("f", bytes(4 * BINS))
            for place in self._first:
                bins[place] += 1.0
            self._first = bytearray()
        return bins

    def _bound(self) -> None:
        bins = np.frombuffer(self.bins(), np.float32)
        if self.weight > WEIGHT:
            bins *= 0.5
            self.weight *= 0.5
        above = bins[::-1].cumsum(dtype=np.float64)
        wanted = max(2.5, self.share * self.weight)
        places = BINS - 1 - above.searchsorted((wanted, self.weight * 0.5))
        high, half = places.tolist()
        if high >= 0:
            self.high = self.factor * 2.0 ** ((high - 15) / FINENESS)
        if half >= 0:
            self.usual = 2.0 ** ((half - 15.5) / FINENESS)

    def exceed(self, value: float, calls: int, hit: float, miss: float, ts: float) -> float:
        """Count a call past the bound and return the CUSUM's score.

        Calls in between, ``calls`` now less ``calls`` then, count as misses; that
        equals adding each on its own since a CUSUM only falls between hits.
        """
        score = max(0.0, self.score + (calls - self.at - 1) * miss)
        if score == 0.0:
            self.since, self.hits, self.peak = ts, 0, 0.0
        self.hits += 1
        self.peak += log2(value)
        self.at = calls
        self.score = min(score + hit, 40.0)
        return self.score

    def level(self) -> float:
        """Geometric mean of the calls past the bound since the score last was zero."""
        return float(2.0 ** (self.peak / self.hits)) if self.hits else 0.0

    def dump(self) -> dict[str, Any]:
        """The gauge as plain values; empty bins are left out."""
        saved: dict[str, Any] = {n: getattr(self, n) for n in _PLAIN}
        saved["high"] = None if self.high == INFINITE else self.high
        bins = self._bins
        saved["bins"] = (
            [[place, float(self._first.count(place))] for place in sorted(set(self._first))]
            if bins is None
            else [[i, w] for i, w in enumerate(bins) if w]
        )
        return saved

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Gauge:
        """Undo :meth:`dump`."""
        gauge = cls(0.0, 0.0)
        for name in _PLAIN:
            setattr(gauge, name, saved[name])
        gauge.high = INFINITE if saved["high"] is None else saved["high"]
        if gauge.weight < BINS:
            for place, weight in saved["bins"]:
                gauge._first += bytes((place,)) * int(weight)
        else:
            bins = gauge.bins()
            for place, weight in saved["bins"]:
                bins[place] = weight
        return gauge


_PLAIN = tuple(name for name in Gauge.__slots__ if name not in ("_bins", "_first"))


class Shape:
    """The gauges of one owner: ``price``, ``cost`` and ``output``; ``calls`` counted so far."""

    __slots__ = ("calls", "cost", "output", "price")

    def __init__(self, ratio: float) -> None:
        self.calls = 0
        self.price = Gauge(0.002, 1.25 * ratio)
        self.cost = Gauge(0.05, ratio)
        self.output = Gauge(0.05, ratio)

    def learn(
        self, cost: int | None, input_tokens: int | None, output: int | None, least: int
    ) -> None:
        """Learn from one sampled call."""
        if cost:
            self.cost.learn(cost, least)
            tokens = (input_tokens or 0) + 4 * (output or 0)
            if tokens:
                self.price.learn(cost / tokens, least)
        if output:
            self.output.learn(output, least)

    def dump(self) -> dict[str, Any]:
        """The shape as plain values."""
        return {
            "calls": self.calls,
            "price": self.price.dump(),
            "cost": self.cost.dump(),
            "output": self.output.dump(),
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Shape:
        """Undo :meth:`dump`."""
        shape = cls(1.0)
        shape.calls = int(saved["calls"])
        shape.price, shape.cost, shape.output = (
            Gauge.load(saved[name]) for name in ("price", "cost", "output")
        )
        return shape
