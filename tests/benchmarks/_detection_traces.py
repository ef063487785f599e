"""Real keys as normal traffic: counts exact, arrivals by the fitted law.

Owns: reading a folder laid out as the shared traces, and turning each client into
10 s buckets. Must never: copy or write any of it.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WINDOW = 600
BUCKETS = WINDOW // 10
DAY = 86400
WEEK = 7 * DAY
#: Above so many calls in ten minutes their buckets are drawn by the renewal law's limit.
MANY = 6000
#: Dollars per million tokens, in and out, by the size of the model that served the trace.
PRICES = {
    "large": (2.5, 10.0),
    "mid": (0.4, 1.6),
    "small": (0.1, 0.4),
    "deepseek": (0.55, 2.19),
    "image": (2.5, 10.0),
}


@dataclass(slots=True)
class Tokens:
    """Log-normal laws of tokens per call in one six-hour window: (mu, sigma) in and out."""

    input: tuple[float, float]
    output: tuple[float, float]


@dataclass(slots=True)
class Key:
    """One client: ten-minute windows ``{t: (calls, law, p1, p2, cv)}``, tokens, and prices."""

    name: str
    windows: dict[int, tuple[int, str, float, float, float]]
    tokens: dict[int, Tokens]
    prices: tuple[float, float]

    def calls(self, start: int, end: int) -> int:
        """Calls from ``start`` to before ``end``, in seconds of the trace."""
        return sum(w[0] for t, w in self.windows.items() if start <= t < end)

    def active(self, start: int, end: int) -> list[int]:
        """Non-empty windows in a span."""
        return sorted(t for t in self.windows if start <= t < end)

    def rate(self, start: int, end: int) -> float:
        """Mean calls a second over the non-empty windows of a span."""
        seen = [w[0] for t, w in self.windows.items() if start <= t < end]
        return sum(seen) / (WINDOW * len(seen)) if seen else 0.0

    def law(self, t: int) -> Tokens:
        """The tokens' law at a time: that of its six hours, else the nearest before or after."""
        if not self.tokens:
            return Tokens((5.5, 0.6), (4.6, 0.7))
        place = t - t % 21600
        return self.tokens.get(place) or self.tokens[min(self.tokens, key=lambda x: abs(x - place))]


def buckets(key: Key, t: int, rng: np.random.Generator) -> np.ndarray:
    """Calls per 10 s of one window, summing to its exact count."""
    window = key.windows.get(t)
    counts = np.zeros(BUCKETS, dtype=np.int64)
    if window is None or window[0] <= 0:
        return counts
    calls, law, p1, _, cv = window
    if calls > MANY:
        mean = calls / BUCKETS
        variance = max(mean, min(cv, 30.0) ** 2 * mean)
        shares = rng.gamma(mean * mean / variance, size=BUCKETS)
        return rng.multinomial(calls, shares / shares.sum())
    if law == "Gamma":
        gaps = rng.gamma(max(p1, 1e-3), size=calls + 1)
    else:
        gaps = rng.weibull(max(p1, 0.1), size=calls + 1)
    times = np.cumsum(gaps)
    if times[-1] <= 0:
        return rng.multinomial(calls, np.full(BUCKETS, 1 / BUCKETS))
    places = np.minimum((times[:-1] / times[-1] * BUCKETS).astype(int), BUCKETS - 1)
    np.add.at(counts, places, 1)
    return counts


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        yield from csv.DictReader(file)


def _log_normal(row: dict[str, str], kind: str) -> tuple[float, float] | None:
    try:
        middle, high = float(row[f"{kind}_p50"]), float(row[f"{kind}_p95"])
    except (ValueError, KeyError):
        return None
    if middle <= 0:
        return None
    return float(np.log(middle)), min(
        1.5, max(0.02, float(np.log(max(high, middle) / middle)) / 1.645)
    )


def _tokens(path: Path) -> dict[str, dict[int, Tokens]]:
    found: dict[str, dict[int, Tokens]] = {}
    if not path.exists():
        return found
    for row in _rows(path):
        law_in = _log_normal(row, "in") or (6.0, 0.5)
        law_out = _log_normal(row, "out") or (3.5, 0.5)
        found.setdefault(row["client"], {})[int(float(row["t"]))] = Tokens(law_in, law_out)
    return found


def servegen(folder: Path) -> list[Key]:
    """All clients of ``servegen/``."""
    keys = []
    for path in sorted(folder.glob("servegen/*_trace.csv.gz")):
        name = path.name.removesuffix("_trace.csv.gz")
        prices = next((p for word, p in PRICES.items() if word in name), PRICES["mid"])
        tokens = _tokens(path.with_name(f"{name}_tokens.csv.gz"))
        found: dict[str, dict[int, tuple[int, str, float, float, float]]] = {}
        for row in _rows(path):
            calls = round(float(row["rate"]) * WINDOW)
            found.setdefault(row["client"], {})[int(float(row["t"]))] = (
                calls,
                row["pat"],
                float(row["p1"] or 1),
                float(row["p2"] or 1),
                float(row["cv"] or 1),
            )
        keys += [
            Key(f"{name}-{client}", windows, tokens.get(client, {}), prices)
            for client, windows in sorted(found.items())
        ]
    return keys


def burstgpt(folder: Path) -> list[Key]:
    """The deployment of ``burstgpt/``: hourly counts, spread over the hour's windows."""
    path = folder / "burstgpt" / "requests_per_hour.csv.gz"
    if not path.exists():
        return []
    windows = {}
    rng = np.random.default_rng(0)
    for row in _rows(path):
        start, calls = int(row["second_from_start"]), int(row["requests"])
        for place, count in enumerate(rng.multinomial(calls, np.full(6, 1 / 6))):
            if count:
                windows[start + place * WINDOW] = (int(count), "Gamma", 0.3, 1.0, 1.8)
    return [Key("burstgpt", windows, {}, PRICES["large"])]


def worldcup(folder: Path) -> list[Key]:
    """The web site of ``worldcup98/``, a tenth of its calls, as one key of strong seasons."""
    path = folder / "worldcup98" / "requests_per_minute.csv.gz"
    if not path.exists():
        return []
    totals: dict[int, int] = {}
    first = None
    for row in _rows(path):
        minute = int(np.datetime64(row["minute_start"].replace(" ", "T"), "s").astype(int))
        first = minute - minute % DAY if first is None else first
        place = (minute - first) // WINDOW * WINDOW
        totals[place] = totals.get(place, 0) + int(row["requests"])
    windows = {t: (max(1, n // 10), "Gamma", 1.0, 1.0, 1.0) for t, n in totals.items()}
    return [Key("worldcup98", windows, {}, PRICES["small"])]


def tool_runs(folder: Path) -> list[list[str]]:
    """The tool calls of each recorded healthy run, as text; empty where absent."""
    runs = []
    for path in sorted(folder.glob("tau_bench/*.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            for line in file:
                calls = json.loads(line)["tool_calls"]
                runs.append([f"{c['name']}|{c['arguments']}" for c in calls])
    return runs


def load(folder: Path) -> tuple[list[Key], list[list[str]], list[str]]:
    """All keys with two weeks of traffic, the healthy runs, and what is absent."""
    absent = []
    keys: list[Key] = []
    for name, read in (("servegen", servegen), ("burstgpt", burstgpt), ("worldcup98", worldcup)):
        found = read(folder)
        if not found:
            absent.append(name)
        keys += found
    runs = tool_runs(folder)
    if not runs:
        absent.append("tau_bench")
    weeks = [
        k
        for k in keys
        if k.calls(0, WEEK) >= 100
        and len({t // DAY for t in k.active(0, WEEK)}) >= 2
        and k.calls(WEEK, 2 * WEEK) > 0
    ]
    return weeks, runs, absent
