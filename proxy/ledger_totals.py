"""Cumulative totals in memory, for a scrape.

Owns: sums since the start per label set, histograms per provider and model,
and their bound. Must never: grow with the names that clients choose, or be
counted from anything but the ledger.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from detection.types import Observation, failed
from proxy.semconv import DURATION_BUCKETS_SECONDS, TTFT_BUCKETS_SECONDS
from proxy.store.series import OTHER, REFUSALS, Counts


class Labels(NamedTuple):
    """Who called what, at whose expense; the empty string where not known."""

    provider: str
    model: str
    key: str
    agent: str
    project: str


def summed(calls: Iterable[Observation]) -> tuple[int, ...]:
    """The columns of the store (:class:`Counts`) for calls of one identity."""
    requests = errors = refused = cost = tokens_in = tokens_out = 0
    cached = reasoning = written = 0
    for o in calls:
        # Unpacked from a plain tuple: a field by its name takes as long as four of these.
        (status, error_type, given, read, wrote, made, thought, charged, _, _, _, _, _, _, _, _,
         action) = o[13:30]  # fmt: skip
        if action in REFUSALS:
            refused += 1
            continue
        requests += 1
        if failed(status, error_type):
            errors += 1
        cost += charged or 0
        tokens_in += given or 0
        tokens_out += made or 0
        cached += read or 0
        reasoning += thought or 0
        written += wrote or 0
    return (requests, cost, tokens_in, tokens_out, cached, errors, reasoning, written, refused)


class Spread:
    """A histogram: counts per bucket, the last one above all bounds, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Count values, in the unit of the bounds."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)


@dataclass(slots=True)
class Timing:
    """How long the calls of one provider's model took, in seconds."""

    duration: Spread = field(default_factory=lambda: Spread(DURATION_BUCKETS_SECONDS))
    ttft: Spread = field(default_factory=lambda: Spread(TTFT_BUCKETS_SECONDS))


class Totals:
    """Everything counted since the start.

    ``usage`` is bounded to ``limit`` label sets and ``timing`` to a quarter of
    that; what comes later counts under the model, key, agent and project
    ``other`` of its provider.
    """

    def __init__(self, limit: int = 2000) -> None:
        self._limit = limit
        self.usage: dict[Labels, list[int]] = {}
        self.timing: dict[tuple[str, str], Timing] = {}
        self.error_types: Counter[tuple[str, str]] = Counter()
        self.finish_reasons: Counter[tuple[str, str]] = Counter()
        self.usage_sources: Counter[str] = Counter()

    def row_of(self, o: Observation) -> list[int]:
        """Where calls like this one are summed, in the columns of :class:`Counts`."""
        # A plain tuple is found where labels are, and made in a fraction of their time.
        _, _, key, agent, project, _, _, _, provider, _, _, model = o[:12]
        labels = (provider or "", model or "", key or "", agent or "", project or "")
        usage: dict[Any, list[int]] = self.usage
        row = usage.get(labels)
        if row is None and len(usage) >= self._limit:
            labels = (labels[0], OTHER, OTHER, OTHER, OTHER)
            row = usage.get(labels)
        if row is None:
            row = usage[Labels(*labels)] = [0] * len(Counts._fields)
        return row

    def detail(self, calls: Iterable[Observation]) -> None:
        """Take in how long calls took, how they ended, and whence their usage is known."""
        groups: dict[tuple[str | None, str | None], list[Observation]] = {}
        for o in calls:
            name = (o[8], o[11])
            same = groups.get(name)
            if same is None:
                groups[name] = [o]
            else:
                same.append(o)
        for (provider, model), same in groups.items():
            self._details(provider or "", model or "", same)

    def _details(self, provider: str, model: str, calls: Iterable[Observation]) -> None:
        timing = self.timing.get((provider, model))
        if timing is None:
            full = len(self.timing) >= self._limit // 4
            timing = self.timing.setdefault((provider, OTHER if full else model), Timing())
        took: list[float] = []
        began: list[float] = []
        sources: list[str] = []
        ends: list[str] = []
        errors: list[str] = []
        for o in calls:
            (error_type, _, _, _, _, _, _, source, reasons, _, _, _, _, ttft,
             latency) = o[14:29]  # fmt: skip
            if latency is not None:
                took.append(latency)
            if ttft is not None:
                began.append(ttft)
            sources.append(source)
            ends += reasons
            if error_type is not None:
                errors.append(error_type)
        timing.duration.observe(took)
        timing.ttft.observe(began)
        # Few words, many times: a Counter made of them takes longer where calls are few.
        for source in set(sources):
            self.usage_sources[source] += sources.count(source)
        self._bounded(self.finish_reasons, provider, ends)
        if errors:
            self._bounded(self.error_types, provider, errors)

    def _bounded(self, counter: Counter[tuple[str, str]], provider: str, words: list[str]) -> None:
        for word in set(words):
            count = words.count(word)
            if (provider, word) not in counter and len(counter) >= self._limit // 4:
                word = OTHER
            counter[provider, word] += count
