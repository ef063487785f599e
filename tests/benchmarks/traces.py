"""Public traces of real keys as a history that any command can read.

Run as ``python -m tests.benchmarks.traces FOLDER OUT.jsonl [--keys 24] [--most 60000]``, then

    tokenweir import OUT.jsonl && tokenweir backtest --report backtest.html && tokenweir tune

Counts are those of the trace, arrivals within ten minutes follow its fitted law, tokens its
quantiles. The two weeks end yesterday, so that imports and reports see them as recent.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks._detection_traces import DAY, WEEK, Key, buckets, load


def calls(
    key: Key, number: int, begin: float, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """The single calls of a key's two weeks."""
    family = key.name.rpartition("-")[0]
    for window in key.active(0, 2 * WEEK):
        law = key.law(window)
        counts = buckets(key, window, rng)
        for place in np.repeat(np.arange(len(counts)), counts):
            into = int(min(rng.lognormal(*law.input), 1e6)) + 1
            out = int(min(rng.lognormal(*law.output), 1e5)) + 1
            price = key.prices
            yield {
                "ts": round(begin + window + 10 * int(place) + 10 * float(rng.random()), 3),
                "id": f"{key.name}-{rng.integers(1 << 62):x}",
                "provider": "openai",
                "model": family,
                "endpoint": "chat_completions",
                "key": f"key_{number:012x}",
                "agent": key.name,
                "status": 200,
                "input_tokens": into,
                "output_tokens": out,
                "cost_nano_usd": int(1000 * (into * price[0] + out * price[1])),
                "usage_source": "reported",
            }


def main() -> None:
    """Write the calls of some keys, in order of time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keys", type=int, default=24, help="as many keys, evenly by size")
    parser.add_argument("--most", type=int, default=60_000, help="calls of the largest key")
    given = parser.parse_args()
    known, _, absent = load(given.folder)
    for name in absent:
        print(f"{name} is not in {given.folder}")
    fit = sorted(
        (k for k in known if k.calls(0, 2 * WEEK) <= given.most),
        key=lambda k: k.calls(0, 2 * WEEK),
    )
    if not fit:
        raise SystemExit("no key is so small")
    places = np.unique(np.linspace(0, len(fit) - 1, given.keys).astype(int))
    begin = (time.time() // DAY - 15) * DAY
    rng = np.random.default_rng(1)
    rows = [row for n, place in enumerate(places) for row in calls(fit[place], n, begin, rng)]
    rows.sort(key=lambda row: row["ts"])
    with given.out.open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    print(f"{len(rows):,} calls of {len(places)} keys in {given.out}")


if __name__ == "__main__":
    main()
