"""The formulas of detection, each tied to where it was published.

Owns: pure functions of numbers. Must never: hold state or know of series.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def bernoulli_weights(null_rate: float, bad_rate: float) -> tuple[float, float]:
    """Log-likelihood weights of one event and one non-event.

    A Bernoulli CUSUM adds the first for each event and the second (negative)
    for each non-event, never falling below zero (Reynolds & Stoumbos 1999,
    *A CUSUM Chart for Monitoring a Proportion When Inspecting Continuously*,
    J. Quality Technology 31(1), equation 3).

    >>> hit, miss = bernoulli_weights(0.1, 0.5)
    >>> round(hit, 3), round(miss, 3)
    (1.609, -0.588)
    """
    return math.log(bad_rate / null_rate), math.log((1 - bad_rate) / (1 - null_rate))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b).

    By its continued fraction (NIST DLMF 8.17.22), evaluated with Lentz's method.

    >>> round(incomplete_beta(2.0, 3.0, 0.5), 6)
    0.6875
    """
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    result = d
    for m in range(1, 400):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + step * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + step / c
            c = c if abs(c) > tiny else tiny
            result *= c * d
        if abs(c * d - 1.0) < 1e-12:
            break
    return min(1.0, front * result / a)


def negative_binomial_tail(count: float, mean: float, dispersion: float) -> float:
    """P(X >= count) of a negative binomial with variance mean + mean**2 / dispersion.

    With size r and success share p = r / (r + mean), the tail is I_{1-p}(count, r)
    (NIST DLMF 8.17.24). A large dispersion approaches the Poisson law.

    >>> round(negative_binomial_tail(3, 2.0, 1.0), 6)  # geometric: (2/3)**3
    0.296296
    >>> negative_binomial_tail(0, 2.0, 1.0)
    1.0
    """
    if count <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    return incomplete_beta(count, dispersion, mean / (mean + dispersion))


def moment_dispersion(mean: float, variance: float) -> float:
    """The negative binomial's size by moments, kept within 0.05 and 1e6.

    >>> moment_dispersion(10.0, 30.0)
    5.0
    """
    if variance <= mean or mean <= 0:
        return 1e6
    return min(1e6, max(0.05, mean * mean / (variance - mean)))


def shiryaev_roberts(counts: Sequence[float], null_mean: float, ratio: float) -> float:
    """The Shiryaev–Roberts e-detector for counts whose conditional mean is at most ``null_mean``.

    M_t = (1 + M_{t-1}) * L_t with L_t = ratio**x * exp(-null_mean * (ratio - 1)), the
    Poisson likelihood ratio, an e-value for every such count (Shin, Ramdas & Rinaldo,
    arXiv 2203.03532, definition 2.2 and section 3). Returned is M after the last count;
    alarms at M >= c come at most once in c steps on average.

    >>> round(shiryaev_roberts([0, 0], 1.0, 2.0), 4)  # e**-1 + e**-2
    0.5032
    >>> shiryaev_roberts([9, 9], 1.0, 2.0) > 1e4
    True
    """
    log_ratio, cost = math.log(ratio), null_mean * (ratio - 1.0)
    total = 0.0
    for x in counts:
        total = (1.0 + total) * math.exp(min(500.0, x * log_ratio - cost))
        if total > 1e100:
            return 1e100
    return total


def chi_square_tail(statistic: float, degrees: int) -> float:
    """P(χ² >= statistic), by the incomplete gamma function (NIST DLMF 8.7.3 and 8.9.2).

    >>> round(chi_square_tail(3.841459, 1), 4)
    0.05
    """
    a, x = degrees / 2.0, statistic / 2.0
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        for k in range(1, 500):
            term *= x / (a + k)
            total += term
            if term < total * 1e-14:
                break
        return max(0.0, 1.0 - front * total)
    b = x + 1.0 - a
    c, d = 1e300, 1.0 / b
    result = d
    for k in range(1, 500):
        step = -k * (k - a)
        b += 2.0
        d = 1.0 / (step * d + b)
        c = b + step / c
        result *= c * d
        if abs(c * d - 1.0) < 1e-12:
            break
    return front * result


def theil_sen(values: Sequence[float]) -> float:
    """The median slope over all pairs of equally spaced values (Theil 1950; Sen 1968).

    >>> theil_sen([1.0, 2.0, 3.0, 40.0, 5.0])
    1.0
    """
    slopes = sorted(
        (values[j] - values[i]) / (j - i)
        for i in range(len(values))
        for j in range(i + 1, len(values))
    )
    return median(slopes)


def median(ordered: Sequence[float]) -> float:
    """The median of values already in order; the values must not be empty.

    >>> median([1.0, 2.0, 10.0, 11.0])
    6.0
    """
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2.0


def median_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Median, and the median absolute deviation scaled by 1.4826 to a normal's σ (Hampel 1974).

    >>> median_deviation([1.0, 2.0, 3.0, 4.0, 100.0])
    (3.0, 1.4826)
    """
    centre = median(sorted(values))
    return centre, 1.4826 * median(sorted(abs(v - centre) for v in values))
