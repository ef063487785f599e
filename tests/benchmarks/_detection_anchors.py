"""Textbook detectors on the same counts, as anchors for the table.

Owns: hourly z-score, mean + kσ and MAD of 10-minute buckets over 24 h. Must never:
see the future.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.benchmarks._detection_traces import DAY, WEEK, WINDOW, Key

HOUR = 3600


@dataclass(frozen=True, slots=True)
class Anchor:
    """Alarms of one textbook detector on one key."""

    name: str
    episodes: int
    blocked: bool
    found: bool


def _series(key: Key, step: int) -> np.ndarray:
    values = np.zeros(2 * WEEK // step)
    for t, window in key.windows.items():
        if t < 2 * WEEK:
            values[t // step] += window[0]
    return values


def _alarm(name: str, values: np.ndarray, i: int) -> bool:
    if name == "hourly z-score > 4":
        past = values[max(0, i - 168) : i]
        return bool(values[i] > past.mean() + 4 * max(past.std(), 1.0))
    past = values[max(0, i - DAY // WINDOW) : i]
    if name == "mean + 3σ, 24 h of 10 min":
        return bool(values[i] > past.mean() + 3 * max(past.std(), 1.0))
    middle = np.median(past)
    spread = 1.4826 * np.median(np.abs(past - middle))
    return bool(values[i] > middle + 3.5 * max(spread, 1.0))


STEPS = {
    "hourly z-score > 4": HOUR,
    "mean + 3σ, 24 h of 10 min": WINDOW,
    "MAD × 3.5, 24 h of 10 min": WINDOW,
}


def judge(key: Key, start: int, rate: float) -> list[Anchor]:
    """Each anchor's false episodes in the test week, and whether 15 min at ``rate`` show in time.

    An anchor can only speak at the end of its bucket; it has found the surge if a
    bucket that ends within 900 s of ``start`` alarms with it and not without.
    """
    anchors = []
    for name, step in STEPS.items():
        values = _series(key, step)
        first = WEEK // step
        alarms = [i for i in range(first, len(values)) if _alarm(name, values, i)]
        episodes = sum(
            1 for place, i in enumerate(alarms) if place == 0 or alarms[place - 1] < i - 1
        )
        found = False
        i = start // step
        while (i + 1) * step <= start + 900 and i < len(values):
            share = min((i + 1) * step, start + 900) - max(i * step, start)
            with_it = values.copy()
            with_it[i] += rate * share
            found = found or (_alarm(name, with_it, i) and not _alarm(name, values, i))
            i += 1
        anchors.append(Anchor(name, episodes, bool(alarms), found))
    return anchors
