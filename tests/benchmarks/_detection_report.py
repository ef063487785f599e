"""The detection benchmark's numbers: rates with their intervals, tables, JSON.

Owns: exact Poisson intervals, bootstrap over keys, printing. Must never: leave a
target out because it was missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from detection.types import Tier

if TYPE_CHECKING:
    from tests.benchmarks.detection import Results

TIERS = ("info", "warning", "critical", "emergency")
BOOTSTRAPS = 1000


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """The exact (Garwood 1936) interval of a Poisson mean, by bisection of its tails.

    >>> [round(x, 2) for x in poisson_interval(0)]
    [0.0, 3.69]
    """
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else _solve(lambda m: 1 - _cdf(count - 1, m) < tail, count)
    return low, _solve(lambda m: _cdf(count, m) > tail, count)


def _cdf(count: int, mean: float) -> float:
    return sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))


def _solve(below: Callable[[float], bool], count: int) -> float:
    low, high = 1e-9, 10.0 + 5.0 * count
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def bootstrap(keys: Sequence[str], values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the mean, drawing keys (not weeks) with replacement."""
    names = sorted(set(keys))
    sums = {n: [0.0, 0] for n in names}
    for name, value in zip(keys, values, strict=True):
        sums[name][0] += value
        sums[name][1] += 1
    totals = np.array([sums[n] for n in names])
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(names), size=(BOOTSTRAPS, len(names)))
    means = totals[drawn, 0].sum(axis=1) / totals[drawn, 1].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def incident_rows(out: Results) -> list[dict[str, Any]]:
    """One row per incident and strength; medians are over those that were found."""
    rows = []
    for (name, strength, stop), trials in out.incidents.items():
        found = [f.by(stop) for _, f in trials]
        first = [f.critical for _, f in trials]
        hits = [f for f in found if f is not None]
        row: dict[str, Any] = {"incident": name, "strength": strength, "counts": stop}
        for seconds in (60, 300, 900):
            share = [float(f is not None and f[0] <= seconds) for f in found]
            row[f"recall_{seconds}s"] = round(sum(share) / len(share), 4)
            if seconds == 300:
                row["recall_300s_interval"] = bootstrap([k for k, _ in trials], share)
        middle = np.median(np.array(hits), axis=0) if hits else [None] * 3
        for place, word in enumerate(("seconds", "requests", "dollars")):
            row[f"median_{word}"] = None if middle[place] is None else float(middle[place])
        early = [f for f in first if f is not None]
        row["median_requests_to_critical"] = (
            float(np.median([f[1] for f in early])) if early else None
        )
        row["trials"] = len(trials)
        rows.append(row)
    for name, found_drift in out.drift.items():
        if name != "no_drift":
            rows.append(
                {
                    "incident": name,
                    "strength": "+5%/week",
                    "counts": "warning within 7 weeks",
                    **{f"recall_{s}s": 0.0 for s in (60, 300, 900)},
                    **{f"median_{w}": None for w in ("seconds", "requests", "dollars")},
                    "recall_7_weeks": sum(found_drift) / len(found_drift),
                    "trials": len(found_drift),
                }
            )
    return rows


def summary(out: Results) -> dict[str, Any]:
    """The JSON of the benchmark."""
    weeks = len(out.weeks)
    emergencies = sum(w.episodes.get("emergency", 0) for w in out.weeks)
    low, high = poisson_interval(emergencies)
    calls = sum(w.calls for w in out.weeks)
    return {
        "key_weeks": weeks,
        "false_emergencies_per_1000_key_weeks": 1000 * emergencies / weeks,
        "false_emergencies_interval": [1000 * low / weeks, 1000 * high / weeks],
        "false_episodes_per_key_week": {
            tier: sum(w.episodes.get(tier, 0) for w in out.weeks) / weeks for tier in TIERS
        },
        "false_episodes_interval": {
            tier: bootstrap(
                [w.key for w in out.weeks], [float(w.episodes.get(tier, 0)) for w in out.weeks]
            )
            for tier in TIERS
        },
        "share_of_keys_ever_blocked": sum(w.blocked for w in out.weeks) / weeks,
        "share_of_requests_delayed": sum(w.delayed for w in out.weeks) / max(1, calls),
        "incidents": incident_rows(out),
        "lookalikes": [
            {
                "name": name,
                "emergency_share": sum(t >= Tier.EMERGENCY for t in tiers) / len(tiers),
                "critical_share": sum(t >= Tier.CRITICAL for t in tiers) / len(tiers),
                "trials": len(tiers),
            }
            for name, tiers in out.lookalikes.items()
        ],
        "anchors": [
            {
                "name": name,
                "false_emergencies_per_key_week": sum(a.episodes for a in found) / len(found),
                "share_of_keys_ever_blocked": sum(a.blocked for a in found) / len(found),
                "surge_20x_recall_900s": sum(a.found for a in found) / len(found),
            }
            for name, found in out.anchors.items()
        ],
        "drift_false_share": _share(out.drift.get("no_drift", [])),
        "microseconds_per_observation": out.microseconds,
        "bytes_per_series": out.bytes_per_series,
        "detector_faults": out.faults,
    }


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def show(out: Results) -> None:
    """Print all tables."""
    s = summary(out)
    low, high = s["false_emergencies_interval"]
    print(f"\nUntouched traffic, {s['key_weeks']} key-weeks (the same keys at each seed)")
    print(
        f"  false emergencies per 1,000 key-weeks: "
        f"{s['false_emergencies_per_1000_key_weeks']:.1f} "
        f"(exact Poisson 95 %: {low:.1f} to {high:.1f}; target 10)"
    )
    for tier in TIERS:
        a, b = s["false_episodes_interval"][tier]
        print(
            f"  {tier:9} episodes per key-week: {s['false_episodes_per_key_week'][tier]:.3f}"
            f"  (bootstrap over keys {a:.3f} to {b:.3f})"
        )
    print(f"  keys ever blocked: {s['share_of_keys_ever_blocked']:.4f}")
    print(f"  legitimate requests delayed: {s['share_of_requests_delayed']:.6f}")
    print("\nIncidents (found = block for loops, first critical for the rest)")
    print(f"  {'incident':22}{'strength':>9}{'60 s':>7}{'5 min':>7}{'15 min':>7}"
          f"{'med s':>9}{'med req':>9}{'med $':>9}{'to crit':>9}{'n':>5}")  # fmt: skip
    for row in s["incidents"]:
        numbers = [row["median_seconds"], row["median_requests"], row["median_dollars"],
                   row.get("median_requests_to_critical")]  # fmt: skip
        told = "".join(f"{'-' if x is None else f'{x:.2f}':>9}" for x in numbers)
        print(
            f"  {row['incident']:22}{row['strength']:>9}{row['recall_60s']:7.3f}"
            f"{row['recall_300s']:7.3f}{row['recall_900s']:7.3f}{told}{row['trials']:5}"
        )
        if "recall_7_weeks" in row:
            print(f"    found within seven weeks: {row['recall_7_weeks']:.3f}")
    print(f"  no drift at all, yet called so: {s['drift_false_share']}")
    print("\nLook-alikes (share of trials that alarm beyond the untouched traffic)")
    for row in s["lookalikes"]:
        print(
            f"  {row['name']:28} emergency {row['emergency_share']:.3f}  "
            f"critical {row['critical_share']:.3f}  n {row['trials']}"
        )
    print("\nAnchors on the same data")
    for row in s["anchors"]:
        print(
            f"  {row['name']:28} false emergencies per key-week "
            f"{row['false_emergencies_per_key_week']:.2f}, keys ever blocked "
            f"{row['share_of_keys_ever_blocked']:.2f}, surge 20x within 15 min "
            f"{row['surge_20x_recall_900s']:.2f}"
        )
    print(f"\n{s['microseconds_per_observation']:.2f} µs per observation and set of 11 series; "
          f"{s['bytes_per_series']:,} bytes per series")  # fmt: skip
    if s["detector_faults"]:
        print(f"  FAULTS: {s['detector_faults']}")
