"""What can't be tried in fifteen minutes: drift over weeks, and the engine's speed.

Owns: six weeks of one key with and without a creeping cost per call, and the time
per observation. Must never: time anything but the engine.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from time import process_time

import numpy as np

from detection.engine import Engine
from detection.types import FleetBucket, Observation, Series, Signal, Tier
from tests.benchmarks._detection_play import EPOCH, SETTINGS, Caller, Player
from tests.benchmarks._detection_traces import DAY, WEEK, Key, buckets

WEEKS = 7
HALF_HOUR = 1800


def drifts(key: Key, weekly: float, seed: int) -> bool:
    """Whether seven weeks of the key, cost per call growing by ``weekly``, are called drift."""
    rng = np.random.default_rng([seed, 77])
    engine = Engine(SETTINGS)
    series = Series("key", f"key_{key.name}")
    calls: dict[int, int] = {}
    for t, window in key.windows.items():
        if t < 2 * WEEK:
            calls[t // HALF_HOUR] = calls.get(t // HALF_HOUR, 0) + window[0]
    half_hours = 2 * WEEK // HALF_HOUR
    told = []
    for place in range(WEEKS * WEEK // HALF_HOUR):
        count = calls.get(place % half_hours, 0)
        now = EPOCH + (place + 1) * HALF_HOUR - 1.0
        if count:
            growth = (1.0 + weekly) ** (place * HALF_HOUR / WEEK)
            noise = rng.lognormal(0.0, 0.3 / max(1.0, count**0.5))
            cost = int(1e6 * growth * noise) * count
            told += engine.merge_fleet(
                series, (FleetBucket(int(now) // 10, count, cost_nano_usd=cost),), now
            )
        if place % 12 == 0:
            told += engine.sweep(now)
    return any(v.signal is Signal.DRIFT and v.tier >= Tier.WARNING for v in told)


def stream(keys: Sequence[Key], runs: Sequence[Sequence[str]], most: int) -> list[Observation]:
    """The calls of many keys in order, each in the full set of eleven series."""
    streams = []
    for place, key in enumerate(keys):
        rng = np.random.default_rng(place)
        caller = Caller(key, runs, rng)
        calls: list[Observation] = []
        for t in key.active(0, DAY):
            counts = buckets(key, t, rng)
            given, made = caller.tokens(t, int(counts.sum()))
            times = np.repeat(np.arange(60), counts) * 10 + np.sort(rng.random(len(given))) * 10
            calls += [
                caller.call(
                    float(EPOCH + t + ts), int(given[i]), int(made[i]),
                    project=f"p{place % 5}", user=f"u{place % 50}", tags={"team": f"t{place % 7}"},
                )
                for i, ts in enumerate(np.sort(times))
            ]  # fmt: skip
            if len(calls) >= most:
                break
        streams.append(calls[:most])
    return list(heapq.merge(*streams, key=lambda o: o.ts))


def microseconds(calls: Sequence[Observation]) -> tuple[float, dict[str, object]]:
    """Processor time per observation, the best of three runs, and the engine's health."""
    best, health = float("inf"), {}
    for _ in range(3):
        engine = Engine()
        observe = engine.observe
        started = process_time()
        for o in calls:
            observe(o)
        best = min(best, (process_time() - started) / max(1, len(calls)))
        health = engine.health()
    return best * 1e6, health


def trial_marks(player: Player, seed: int) -> tuple[int, int]:
    """A random active window of the test week, and a quiet one at three in the morning."""
    rng = np.random.default_rng([seed, 3, len(player.key.windows)])
    active = player.key.active(WEEK, 2 * WEEK - 3 * 3600) or player.key.active(WEEK, 2 * WEEK)
    night = [t for t in active if t % DAY // 3600 == 3] or active
    return int(rng.choice(active)), int(rng.choice(night))
