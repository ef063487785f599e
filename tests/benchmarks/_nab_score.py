"""Our own reading of the published NAB score.

Owns: the standard profile of Lavin & Ahmad 2015, *Evaluating Real-time Anomaly
Detection Algorithms* (arXiv 1510.03336, section II-B). Must never: see values, only
scores and windows.

Within a window the first detection earns 2σ(-5y) - 1, y running from -1 at its start
to 0 at its end, scaled so that the start earns 1. A false detection costs 0.11 times
the same curve at its distance past the last window, in windows' lengths; a missed
window costs 1. The sum is scaled so that silence is 0 and perfection 100. One
threshold serves all files; the first 15 % of a file (750 rows at most) are free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

FALSE_COST = 0.11
PROBATION_SHARE, PROBATION_MOST = 0.15, 750
Windows = Sequence[tuple[int, int]]


def probation(rows: int) -> int:
    """Rows at the start of a file that are not scored.

    >>> probation(4032), probation(20000)
    (604, 750)
    """
    return int(min(PROBATION_SHARE * rows, PROBATION_MOST))


def curve(y: float) -> float:
    """The scaled sigmoid 2σ(-5y) - 1, -1 beyond three windows' lengths.

    >>> round(curve(-1.0), 4), curve(0.0), curve(3.5)
    (0.9866, 0.0, -1.0)
    """
    return -1.0 if y > 3.0 else 2.0 / (1.0 + math.exp(5.0 * y)) - 1.0


def file_score(scores: Sequence[float], windows: Windows, threshold: float) -> float:
    """The raw score of one file at a threshold.

    >>> file_score([0, 0, 1, 0, 0, 0, 0, 0, 0, 0], [(2, 6)], 0.5)
    1.0
    >>> file_score([0] * 10, [(2, 6)], 0.5)
    -1.0
    """
    start = probation(len(scores))
    total = 0.0
    hit: set[int] = set()
    for i in range(start, len(scores)):
        if scores[i] < threshold:
            continue
        inside = next((w for w, (a, b) in enumerate(windows) if a <= i <= b), None)
        if inside is not None:
            if inside not in hit:
                hit.add(inside)
                a, b = windows[inside]
                total += curve(-(b - i + 1) / (b - a + 1)) / curve(-1.0)
            continue
        before = [(a, b) for a, b in windows if b < i]
        if not before:
            total -= FALSE_COST
        else:
            a, b = before[-1]
            total += FALSE_COST * curve((i - b) / max(1, b - a))
    return total - sum(1 for w, (_, b) in enumerate(windows) if w not in hit and b >= start)


def standard(
    scores: Mapping[str, Sequence[float]], windows: Mapping[str, Windows]
) -> tuple[float, float]:
    """The best threshold over all files and the score there, 0 for silence, 100 for perfection."""
    most = sum(1 for name, w in windows.items() for _, b in w if b >= probation(len(scores[name])))
    levels = sorted({round(s, 3) for row in scores.values() for s in row if s > 0})
    step = max(1, len(levels) // 200)
    best = (0.0, 1.01)
    for threshold in [*levels[::step], 1.01]:
        raw = sum(file_score(scores[n], windows[n], threshold) for n in scores)
        best = max(best, (100.0 * (raw + most) / (2.0 * most), threshold))
    return best
