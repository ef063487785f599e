"""A past for a store: hourly traffic of named agents, keys and models, counted
through the store's own batches."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from detection.engine import Engine
from detection.types import TOTAL, Observation, Series, pair
from proxy.store.counters import Batch, Delta
from proxy.store.store import Store

_NANO = 1_000_000_000


@dataclass(frozen=True)
class Caller:
    """One agent's habits: calls per hour at noon, and what each is like."""

    agent: str
    key: str
    model: str
    provider: str
    project: str
    calls_per_hour: float
    input_tokens: int
    output_tokens: int
    usd_per_call: float

    def series(self) -> Iterator[Series]:
        yield TOTAL
        yield Series("provider", self.provider)
        yield Series("model", self.model)
        yield Series("key", self.key)
        yield Series("agent", self.agent)
        yield Series("project", self.project)
        yield Series("key_model", pair(self.key, self.model))
        yield Series("agent_model", pair(self.agent, self.model))


_SUPPORT, _PLATFORM, _SEARCH = "key_4f1c09a2be77", "key_a81d33fe0c12", "key_77b0e2c91d55"

CALLERS = (
    Caller("support-triage", _SUPPORT, "gpt-4o", "openai", "support", 140, 2100, 350, 0.0088),
    Caller("invoice-parser", _SUPPORT, "gpt-4o-mini", "openai", "billing", 420, 3200, 180, 0.0006),
    Caller(
        "code-review", _PLATFORM, "claude-sonnet-4", "anthropic", "platform", 36, 18000, 1400, 0.075
    ),
    Caller(
        "nightly-report",
        _PLATFORM,
        "claude-haiku-4",
        "anthropic",
        "platform",
        12,
        9000,
        900,
        0.0135,
    ),
    Caller("search-rerank", _SEARCH, "gemini-2.5-flash", "gemini", "search", 900, 800, 40, 0.00034),
    Caller(
        "<img src=x onerror=alert(1)>",
        _SEARCH,
        "gpt-4o-mini",
        "openai",
        "search",
        4,
        500,
        80,
        0.0001,
    ),
)


def counts_of(caller: Caller, calls: int, errors: int = 0, refused: int = 0) -> list[int]:
    tokens_in = calls * caller.input_tokens
    return [
        calls,
        round(calls * caller.usd_per_call * _NANO),
        tokens_in,
        calls * caller.output_tokens,
        tokens_in // 3,
        errors,
        0,
        0,
        refused,
    ]


def ordinary(caller: Caller, at: float, dice: random.Random) -> int:
    """Calls of one hour: a day's swell, quieter weekends, some noise."""
    hour = at / 3600 % 24
    weekend = int(at // 86_400) % 7 in (2, 3)
    swell = 0.35 + 0.65 * max(0.0, math.sin((hour - 6) / 14 * math.pi)) if 6 <= hour < 20 else 0.25
    mean = caller.calls_per_hour * swell * (0.4 if weekend else 1.0)
    return max(0, round(dice.gauss(mean, 0.3 * mean**0.75)))


def _step(age: float) -> int:
    """Seconds between deltas of an hour so old: as fine as the store keeps it."""
    return 10 if age < 2 * 3600 else 300 if age < 50 * 3600 else 3600


class Filler:
    """Counts deltas as one replica would, in order."""

    def __init__(self, store: Store, replica: str = "past") -> None:
        self._counters = store.counters
        self._replica = replica
        self._sent = dict.fromkeys(range(store.counters.shards), 0)

    async def send(self, deltas: Sequence[Delta]) -> None:
        for shard in range(self._counters.shards):
            mine = tuple(d for d in deltas if self._counters.shard_of(d.place.series[0]) == shard)
            after = self._sent[shard]
            for start in range(0, len(mine), 400):
                piece = mine[start : start + 400]
                batch = Batch(shard, self._replica, after, after + 1, piece, fresh=after == 0)
                assert (await self._counters.apply(batch)).applied
                after += 1
            self._sent[shard] = after

    async def past(
        self, now: float, days: int, callers: Sequence[Caller] = CALLERS, seed: int = 7
    ) -> None:
        """Hourly traffic from ``days`` ago until the last hour, then by 10 s."""
        dice = random.Random(seed)
        deltas: list[Delta] = []
        for hour in range(int(now // 3600) - 24 * days, int(now // 3600)):
            deltas += self._spread(callers, hour * 3600, 3600, _step(now - hour * 3600), dice)
        hour = int(now // 3600)
        deltas += self._spread(callers, hour * 3600, now - hour * 3600, 10, dice)
        await self.send(deltas)

    def _spread(
        self, callers: Sequence[Caller], start: float, span: float, step: int, dice: random.Random
    ) -> Iterator[Delta]:
        for caller in callers:
            calls_per_second = ordinary(caller, start, dice) / 3600
            due = 0.0
            for offset in range(0, int(span), step):
                due += calls_per_second * step * dice.uniform(0.6, 1.4)
                calls = int(due)
                due -= calls
                if calls:
                    errors = sum(dice.random() < 0.01 for _ in range(min(calls, 200)))
                    row = counts_of(caller, calls, errors)
                    for series in caller.series():
                        yield Delta.of(series, int(start + offset) // 10, row)


def learned(now: float, days: int, callers: Sequence[Caller] = CALLERS, seed: int = 7) -> Engine:
    """An engine that has watched these callers for days, until the last whole hour."""
    engine, dice, number = Engine(), random.Random(seed), 0
    for hour in range(int(now // 3600) - 24 * days, int(now // 3600)):
        due = []
        for caller in callers:
            calls = ordinary(caller, hour * 3600, dice)
            due += [(3600 * (hour + (n + dice.random()) / calls), caller) for n in range(calls)]
        for at, caller in sorted(due, key=lambda pair: pair[0]):
            number += 1
            engine.observe(_call(caller, at, number))
        engine.sweep(3600.0 * (hour + 1))
    return engine


def _call(caller: Caller, at: float, number: int) -> Observation:
    return Observation(
        ts=at,
        id=f"past-{number}",
        key=caller.key,
        agent=caller.agent,
        project=caller.project,
        provider=caller.provider,
        upstream=caller.provider,
        endpoint="chat_completions",
        model=caller.model,
        status=200,
        input_tokens=caller.input_tokens,
        output_tokens=caller.output_tokens,
        cost_nano_usd=round(caller.usd_per_call * _NANO),
        usage_source="reported",
        finish_reasons=("stop",),
        latency_seconds=0.5,
        action="allow",
    )
