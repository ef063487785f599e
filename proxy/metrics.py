"""Numbers for Prometheus, at no cost per request beyond an integer's increment.

Owns: the plain counters that the hot path touches (:class:`RuntimeMetrics`),
and the exposition made of every part's readings when someone scrapes
(:class:`Exposition`). Must never: lock, allocate labels per request, expose a
credential, or let a client's choice of names grow the exposition without bound.

A *reading* is ``(metric name, label values, value)``; parts give theirs as a
callable, asked once per scrape on the event loop. What it returns is consumed
off the loop, so a generator must run over copies.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from proxy import semconv
from proxy.metrics_catalogue import CATALOGUE, Metric
from proxy.redact import escape_controls, redact_text

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_LONGEST_LABEL = 128


class Distribution(NamedTuple):
    """A histogram's state: counts per bucket (the last is +Inf) and the sum."""

    counts: Sequence[int]
    total: float


class Reading(NamedTuple):
    """One value of one metric of the catalogue, labels in the catalogue's order."""

    name: str
    labels: tuple[str, ...]
    value: float | Distribution


Provider = Callable[[], Iterable[Reading]]


class Histogram:
    """Bucket counts that one thread increments.

    >>> h = Histogram((1.0, 2.0)); h.observe(1.0); h.observe(9.0); h.counts
    [1, 0, 1]
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count ``value``, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def read(self) -> Distribution:
        """A copy that later observations do not change."""
        return Distribution(tuple(self.counts), self.total)


class RuntimeMetrics:
    """What the running parts count directly: ``runtime.inflight += 1``.

    ``rejected``, ``upstream_failures``, ``decisions``, ``detector_failures``,
    ``config_reloads`` and ``auth_failures`` are keyed by a word of a closed
    set, ``unpriced`` by provider, ``verdicts`` by ``(signal, tier)``.
    """

    def __init__(self) -> None:
        self.inflight = 0
        self.tasks = 0
        self.streams = 0
        self.connections = 0
        self.client_aborts = 0
        self.streams_cut = 0
        self.config_loaded_at = 0.0
        self.overhead_seconds = Histogram(semconv.OVERHEAD_BUCKETS_SECONDS)
        self.rejected: defaultdict[str, int] = defaultdict(int)
        self.upstream_failures: defaultdict[str, int] = defaultdict(int)
        self.decisions: defaultdict[str, int] = defaultdict(int)
        self.unpriced: defaultdict[str, int] = defaultdict(int)
        self.verdicts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.detector_failures: defaultdict[str, int] = defaultdict(int)
        self.config_reloads: defaultdict[str, int] = defaultdict(int)
        self.auth_failures: defaultdict[str, int] = defaultdict(int)
        self.certificate_ends: dict[str, float] = {}
        self._stalls: list[tuple[float, float]] = []

    def stalled(self, seconds: float, now: float) -> None:
        """Note how late a timer of the loop came (``now``: monotonic seconds)."""
        self._stalls = [s for s in self._stalls if s[0] > now - 60.0 and s[1] > seconds]
        self._stalls.append((now, seconds))

    def worst_stall_seconds(self, now: float) -> float:
        """The longest stall of the last minute."""
        return max((s for at, s in self._stalls if at > now - 60.0), default=0.0)

    async def watch_loop(self, interval_seconds: float = 0.25) -> None:
        """Measure the loop's stalls until cancelled."""
        while True:
            due = time.monotonic() + interval_seconds
            await asyncio.sleep(interval_seconds)
            now = time.monotonic()
            self.stalled(max(0.0, now - due), now)
            self.tasks = len(asyncio.all_tasks())

    def readings(self) -> list[Reading]:
        """All of it, for a scrape."""
        return list(self._read())

    def _read(self) -> Iterator[Reading]:
        for name, value in (
            ("tokenweir_requests_in_flight", self.inflight),
            ("tokenweir_streams_in_flight", self.streams),
            ("tokenweir_connections_open", self.connections),
            ("tokenweir_client_aborts_total", self.client_aborts),
            ("tokenweir_streams_cut_total", self.streams_cut),
            ("tokenweir_config_loaded_timestamp_seconds", self.config_loaded_at),
            ("tokenweir_loop_tasks", self.tasks),
            ("tokenweir_loop_stall_seconds", self.worst_stall_seconds(time.monotonic())),
        ):
            yield Reading(name, (), value)
        yield Reading("tokenweir_overhead_seconds", (), self.overhead_seconds.read())
        for metric, counts in (
            ("tokenweir_rejected_requests_total", self.rejected),
            ("tokenweir_upstream_failures_total", self.upstream_failures),
            ("tokenweir_decisions_total", self.decisions),
            ("tokenweir_unpriced_requests_total", self.unpriced),
            ("tokenweir_detector_failures_total", self.detector_failures),
            ("tokenweir_config_reloads_total", self.config_reloads),
            ("tokenweir_admin_auth_failures_total", self.auth_failures),
            ("tokenweir_tls_certificate_expiry_timestamp_seconds", self.certificate_ends),
        ):
            for word, count in counts.items():
                yield Reading(metric, (word,), count)
        for labels, count in self.verdicts.items():
            yield Reading("tokenweir_verdicts_total", labels, count)


def process_readings(version: str) -> Provider:
    """Readings of this process: versions, CPU, memory, descriptors, start."""
    started = time.time()
    page_bytes = os.sysconf("SC_PAGE_SIZE")

    def read() -> Iterator[Reading]:
        yield Reading("tokenweir_build_info", (version, platform.python_version()), 1)
        yield Reading("tokenweir_workers", (), 1)
        yield Reading("tokenweir_process_cpu_seconds_total", (), time.process_time())
        yield Reading("tokenweir_process_start_time_seconds", (), started)
        try:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page_bytes
            descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        except (OSError, ValueError, IndexError):
            return  # no procfs here: left out rather than guessed
        yield Reading("tokenweir_process_resident_memory_bytes", (), resident)
        yield Reading("tokenweir_process_open_fds", (), descriptors)

    return read


#: Labels whose values come from the configuration or a closed set: they stay
#: when a label set is gathered under ``other``.
_CLOSED_LABELS = frozenset(
    {semconv.label(semconv.PROVIDER), semconv.label(semconv.TOKEN_TYPE), "part", "limit", "tier"}
)


class _Bound:
    """Keeps a metric's label sets within its bound, first come first served.

    Who is inside stays inside, so that no counter jumps; gauges that vanish
    free their place.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._inside: dict[tuple[str, ...], tuple[str, ...]] = {}

    def gather(
        self, readings: Sequence[Reading]
    ) -> tuple[dict[tuple[str, ...], float | Distribution], int]:
        """Values by label set, and how many label sets went under ``other``."""
        values: dict[tuple[str, ...], float | Distribution] = {}
        dropped = 0
        metric, inside = self._metric, self._inside
        if metric.kind == "gauge":
            now = {reading.labels for reading in readings}
            for gone in [raw for raw in inside if raw not in now]:
                del inside[gone]
        for _, raw, value in readings:
            labels = inside.get(raw)
            if labels is None:
                if len(inside) < metric.max_series:
                    labels = inside[raw] = tuple(map(_clean, raw))
                else:
                    dropped += 1
                    labels = tuple(
                        text if name in _CLOSED_LABELS else semconv.OTHER
                        for name, text in zip(metric.labels, raw, strict=True)
                    )
            known = values.get(labels)
            values[labels] = value if known is None else combine(metric, known, value)
        return values, dropped


def _clean(text: str) -> str:
    return escape_controls(redact_text(text[: 4 * _LONGEST_LABEL]))[:_LONGEST_LABEL]


def combine(
    metric: Metric, first: float | Distribution, second: float | Distribution
) -> float | Distribution:
    """Two values of one label set as one, by the metric's ``merge``."""
    if isinstance(first, Distribution) and isinstance(second, Distribution):
        counts = [a + b for a, b in zip(first.counts, second.counts, strict=True)]
        return Distribution(counts, first.total + second.total)
    if isinstance(first, Distribution) or isinstance(second, Distribution):
        raise TypeError(f"{metric.name}: a histogram's value mixed with a number")
    if metric.merge == "max":
        return max(first, second)
    if metric.merge == "min":
        return min(first, second)
    return first + second


class _Snapshot(Collector):
    """Families as prometheus-client wants them, from values already gathered."""

    def __init__(self, values: dict[str, dict[tuple[str, ...], float | Distribution]]) -> None:
        self._values = values

    def collect(self) -> Iterator[Family]:
        for name, metric in CATALOGUE.items():
            values = self._values.get(name)
            if values:
                yield _family(metric, values)


def _family(metric: Metric, values: dict[tuple[str, ...], float | Distribution]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        names = [*map(repr, metric.buckets), "+Inf"]
        for labels, value in values.items():
            if isinstance(value, Distribution):
                running = 0
                buckets: list[tuple[str, float]] = []
                for bound, count in zip(names, value.counts, strict=True):
                    running += count
                    buckets.append((bound, running))
                histogram.add_metric(labels, buckets, value.total)
        return histogram
    plain: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == "counter":
        plain = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    else:
        plain = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        if not isinstance(value, Distribution):
            plain.add_metric(labels, value)
    return plain


class Exposition:
    """One process's metrics as text.

    Parameters
    ----------
    providers
        Asked in order on every scrape; one that raises is left out and counted
        in no one's way: the scrape goes on with the others.
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = tuple(providers)
        self._bounds = {name: _Bound(metric) for name, metric in CATALOGUE.items()}
        self.failures = 0

    def snapshot(self) -> list[Iterable[Reading]]:
        """Ask every provider; to be called on the event loop."""
        found = []
        for provider in self._providers:
            try:
                found.append(provider())
            except Exception:
                self.failures += 1
        return found

    def render(self, snapshot: Sequence[Iterable[Reading]]) -> str:
        """The text of the readings. Slow for many label sets: call it off the loop."""
        readings: dict[str, list[Reading]] = {}
        for part in snapshot:
            try:
                for reading in part:
                    readings.setdefault(reading.name, []).append(reading)
            except Exception:
                self.failures += 1
        values: dict[str, dict[tuple[str, ...], float | Distribution]] = {}
        dropped: dict[tuple[str, ...], float | Distribution] = {}
        for name, found in readings.items():
            if name in CATALOGUE:
                values[name], left_out = self._bounds[name].gather(found)
                if left_out:
                    dropped[(name,)] = float(left_out)
        if dropped:
            values["tokenweir_label_sets_dropped"] = dropped
        return generate_latest(_Snapshot(values)).decode()

    async def scrape(self) -> str:
        """Read on the loop, render in a thread."""
        return await asyncio.to_thread(self.render, self.snapshot())
