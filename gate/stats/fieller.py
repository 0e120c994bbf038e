"""Fieller's limits: which ratios r are compatible with numerator − r·denominator having mean zero.

Pure.  A quadratic in r; the shape shared by all retention intervals that have a closed form.

References:
    [1] E. Fieller, Journal of the Royal Statistical Society B 16 (1954) 175–185.
"""

from __future__ import annotations

import math


def region(*, square: float, half_linear: float, constant: float) -> tuple[float, float]:
    """Ends of {r ≥ 0 : square·r² − 2·half_linear·r + constant ≤ 0} around the estimate.

    The upper end is infinite when the denominator cannot be told from zero (`square` ≤ 0).
    """
    root = math.sqrt(max(half_linear * half_linear - square * constant, 0.0))
    largest = half_linear + root
    low = constant / largest if constant > 0 and largest > 0 else 0.0
    high = largest / square if square > 0 else math.inf
    return low, high


def limits(
    *,
    numerator: float,
    denominator: float,
    numerator_variance: float,
    covariance: float,
    denominator_variance: float,
    quantile: float,
) -> tuple[float, float]:
    """Limits of numerator/denominator, from the variances of the two means and a normal or t quantile."""
    q2 = quantile * quantile
    return region(
        square=denominator**2 - q2 * denominator_variance,
        half_linear=numerator * denominator - q2 * covariance,
        constant=numerator**2 - q2 * numerator_variance,
    )


def finite(estimate: float, low: float, high: float, largest: float) -> tuple[float, float]:
    """The limits around the estimate, and no higher than `largest`.

    `largest` is the ratio of a candidate that is right everywhere, so no bound that anybody could meet is failed
    where the data give no upper limit.
    """
    return min(low, estimate), max(estimate, min(high, largest))
