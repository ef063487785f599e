"""Since when: the one point that best parts a series into before and after.

Owns: a weighted two-mean split. Must never: read a clock or guess where there
is too little data (``None`` then).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LEAST_SIDE = 1


def change_point(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    rising: bool = True,
) -> int | None:
    """Index of the first value after the change; ``None`` where nothing changed that way.

    The split that leaves the smallest weighted sum of squares about two means,
    which is the maximum-likelihood estimate under normal noise (Hinkley,
    "Inference about the change-point in a sequence of random variables",
    Biometrika 57, 1970). Counts should come square-rooted, ratios as logs, so
    that their noise is about even.

    Examples
    --------
    >>> change_point([1, 1, 2, 1, 9, 8, 9])
    4
    >>> change_point([9, 9, 1, 1], rising=True) is None
    True
    >>> change_point([1.0]) is None
    True
    """
    y = np.asarray(values, dtype=float)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=float)
    if len(y) < 2 * _LEAST_SIDE:
        return None
    left_weight = np.cumsum(w)[:-1]
    left_sum = np.cumsum(w * y)[:-1]
    right_weight = w.sum() - left_weight
    right_sum = (w * y).sum() - left_sum
    with np.errstate(divide="ignore", invalid="ignore"):
        step = right_sum / right_weight - left_sum / left_weight
        gain = left_weight * right_weight / (left_weight + right_weight) * step**2
    good = (left_weight > 0) & (right_weight > 0) & ((step > 0) if rising else (step < 0))
    gain = np.where(good, gain, -1.0)
    best = int(np.argmax(gain))
    return None if gain[best] <= 0 else best + 1
