"""A small vocabulary for detection tests: calls, streams of calls, and what was told.

Owns: making observations. Must never: reach into the engine.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from detection.engine import Engine
from detection.settings import DetectionSettings
from detection.types import Observation, Series, Signal, Tier, Verdict

#: A Thursday, midnight UTC.
START = 1_767_225_600.0
MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
KEY = Series("key", "k")
AGENT = Series("agent", "a")


def call(ts: float, **changes: object) -> Observation:
    """One healthy call of key ``k`` and agent ``a`` at $0.001."""
    values: dict[str, object] = {
        "ts": ts,
        "id": f"{ts:.6f}",
        "key": "k",
        "agent": "a",
        "provider": "openai",
        "endpoint": "chat_completions",
        "model": "m",
        "status": 200,
        "input_tokens": 1000,
        "output_tokens": 100,
        "cost_nano_usd": 1_000_000,
        "finish_reasons": ("stop",),
        "client": "net_1",
    }
    values.update(changes)
    return Observation(**values)  # type: ignore[arg-type]


def steady(
    start: float, seconds: float, per_minute: float, seed: int = 1, **changes: object
) -> Iterator[Observation]:
    """Calls at random moments of a constant rate, each with a fingerprint of its own."""
    chance = random.Random(seed)
    now = start
    while (now := now + chance.expovariate(per_minute / MINUTE)) < start + seconds:
        yield call(now, fingerprint=f"{chance.getrandbits(60):016x}", fingerprint_kind="text",
                   **changes)  # fmt: skip


def every(start: float, seconds: float, step: float, **changes: object) -> Iterator[Observation]:
    """Calls at even steps."""
    for number in range(int(seconds / step)):
        yield call(start + number * step, **changes)


def live(engine: Engine, calls: Iterable[Observation]) -> list[Verdict]:
    """Feed calls in order and sweep each minute, silences included, as a proxy does."""
    told: list[Verdict] = []
    swept: float | None = None
    for one in calls:
        swept = swept or max(engine.now, one.ts - DAY)
        while one.ts - swept >= MINUTE:
            swept += MINUTE
            told += engine.sweep(swept)
        told += engine.observe(one)
    return told


def known(settings: DetectionSettings | None = None, *, days: float = 2.0, per_minute: float = 4.0,
          **changes: object) -> tuple[Engine, float]:  # fmt: skip
    """An engine that knows key ``k`` and agent ``a`` from a steady past, and the time now."""
    engine = Engine(settings)
    live(engine, steady(START, days * DAY, per_minute, **changes))
    engine.finish_learning()
    now = START + days * DAY
    live(engine, [])
    return engine, now


def worst(told: Iterable[Verdict], signal: Signal, series: Series | None = None) -> Tier:
    """The worst tier told of a signal, of one series or of any."""
    return max(
        (v.tier for v in told if v.signal is signal and series in (None, v.series)),
        default=Tier.NONE,
    )


def signals(told: Iterable[Verdict], least: Tier = Tier.INFO) -> set[Signal]:
    """The signals that were told at a tier or above."""
    return {v.signal for v in told if v.tier >= least}
