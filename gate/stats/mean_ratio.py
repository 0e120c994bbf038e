"""Ratio of two means over the same items: mean output length, candidate over baseline.

Pure.  Linearised t, never narrower than what an unseen share z²/(n + z²) of items could hide.

References:
    [1] W. G. Cochran, Sampling Techniques, 3rd ed. (1977), section 6.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gate.stats.quantiles import t, z


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanRatio:
    n: int
    baseline_total: float
    candidate_total: float
    confidence: float
    standard_error: float
    estimate: float
    low: float
    high: float


def interval(*, baseline: Sequence[float], candidate: Sequence[float], confidence: float) -> MeanRatio:
    """Both one-sided limits of Σcandidate/Σbaseline, t on n − 1, for values ≥ 0.

    The floor of the half-width takes each unseen item to differ by the largest value seen:
    z²/(n + z²)·max/mean(baseline), the analogue of Tango's width without flips.

    Raises:
        ValueError: fewer than two pairs, a negative value, or a baseline of zero everywhere.
    """
    n = len(baseline)
    b, c = math.fsum(baseline), math.fsum(candidate)
    if n < 2 or len(candidate) != n or min(*baseline, *candidate) < 0:
        raise ValueError(f"found {n} and {len(candidate)} values, expected as many of each, at least 2, none negative")
    if b <= 0:
        raise ValueError("the baseline is 0 on every item, expected a mean to compare with")
    ratio = c / b
    squares = math.fsum((y - ratio * x) ** 2 for x, y in zip(baseline, candidate, strict=True))
    error = math.sqrt(squares * n / (n - 1)) / b
    q2 = z(confidence) ** 2
    half = max(t(confidence, n - 1) * error, q2 / (n + q2) * max(*baseline, *candidate) * n / b)
    return MeanRatio(
        n=n,
        baseline_total=b,
        candidate_total=c,
        confidence=confidence,
        standard_error=error,
        estimate=ratio,
        low=max(ratio - half, 0.0),
        high=ratio + half,
    )
