"""Finish reasons of the last minutes, from differences of the exposition.

Owns: a ring of samples, one a minute. Must never: be on a request's path.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from prometheus_client.parser import text_string_to_metric_families

_METRIC = "tokenweir_finish_reasons"
_SAMPLE_SECONDS = 60.0
_FRESH_SECONDS = 2.0
_KEEP_SECONDS = 3700.0


class RecentFinishes:
    """How calls ended lately, over all workers that a scrape shows.

    Parameters
    ----------
    scrape
        The merged exposition.
    clock
        Epoch seconds.
    """

    def __init__(self, scrape: Callable[[], Awaitable[str]], clock: Callable[[], float]) -> None:
        self._scrape = scrape
        self._clock = clock
        self._samples: deque[tuple[float, Counter[str]]] = deque()

    async def sample(self) -> None:
        """Take a sample now."""
        found: Counter[str] = Counter()
        lines = [
            line
            for line in (await self._scrape()).split("\n")
            if line.startswith(_METRIC + "_total{")
        ]
        text = f"# TYPE {_METRIC} counter\n" + "\n".join(lines) + "\n"
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.labels["reason"]] += int(sample.value)
        now = self._clock()
        self._samples.append((now, found))
        while self._samples[0][0] < now - _KEEP_SECONDS:
            self._samples.popleft()

    async def since(self, seconds: float) -> dict[str, int] | None:
        """Calls by finish reason in about the last ``seconds``; ``None`` if unknown.

        Where the process is younger than that: since its start.
        """
        if not self._samples or self._clock() - self._samples[-1][0] > _FRESH_SECONDS:
            await self.sample()
        now, latest = self._samples[-1]
        start: Counter[str] = Counter()
        for at, counts in self._samples:
            if at <= now - seconds:
                start = counts
        return dict((latest - start).most_common(8))

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(_SAMPLE_SECONDS)
