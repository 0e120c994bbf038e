"""A percentile of single times by order statistics: distribution-free limits, and their ratio between two sides.

Pure.  The k-th smallest of n independent values lies above the quantile ξ_p exactly when fewer than k of them lie below
it, so its rank follows the binomial distribution whatever the values look like [1, 2].  Times of one run are not quite
independent: rules on percentiles are advisory.

References:
    [1] W. Q. Meeker, G. J. Hahn, L. A. Escobar, Statistical Intervals, 2nd ed. (2017), section 5.2.
    [2] H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

RESOLUTION = 1e-3
"""No interval is narrower than ±0.1 %: equal times come from a clock that does not resolve less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Percentile:
    """The quantile `share` of `n` times; the limits are the times of ranks `lower` and `upper` (1 is the smallest)."""

    n: int
    share: float
    lower: int
    upper: int
    confidence: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PercentileRatio:
    """Candidate's quantile over the baseline's; each of the four limits behind it errs by half of what a side may."""

    n_baseline: int
    n_candidate: int
    share: float
    confidence: float
    estimate: float
    low: float
    high: float


def value(*, times: Sequence[float], share: float, confidence: float) -> Percentile:
    """Both one-sided limits of the quantile; its estimate is the smallest time with `share` of all at or below it.

    Raises:
        ValueError: too few times for a finite limit on either side (see `needed`), or one that is not positive.
    """
    n = len(times)
    if n < 1 or min(times) <= 0:
        raise ValueError(f"found {n} times, expected at least 1 and every one positive")
    lower, upper = ranks(n=n, share=share, confidence=confidence)
    ascending = sorted(times)
    estimate = ascending[estimate_rank(n=n, share=share) - 1]
    return Percentile(
        n=n,
        share=share,
        lower=lower,
        upper=upper,
        confidence=confidence,
        estimate=estimate,
        low=min(ascending[lower - 1], (1 - RESOLUTION) * estimate),
        high=max(ascending[upper - 1], (1 + RESOLUTION) * estimate),
    )


def ratio(*, baseline: Sequence[float], candidate: Sequence[float], share: float, confidence: float) -> PercentileRatio:
    """Both one-sided limits of candidate over baseline: conservative, since both sides must err at once (Bonferroni).

    Raises:
        ValueError: as `value`, at the confidence of `split`.
    """
    b, c = (value(times=t, share=share, confidence=split(confidence)) for t in (baseline, candidate))
    return PercentileRatio(
        n_baseline=b.n,
        n_candidate=c.n,
        share=share,
        confidence=confidence,
        estimate=c.estimate / b.estimate,
        low=c.low / b.high,
        high=c.high / b.low,
    )


def split(confidence: float) -> float:
    """Confidence of each of two limits that hold together with `confidence`."""
    return 1 - (1 - confidence) / 2


def estimate_rank(*, n: int, share: float) -> int:
    """Rank of the sample quantile: ⌈n·share⌉ (the inverse of the empirical distribution; R's type 1)."""
    return min(n, max(1, math.ceil(n * share - 1e-9)))


def ranks(*, n: int, share: float, confidence: float) -> tuple[int, int]:
    """Ranks of the lower and of the upper limit, each with one-sided `confidence`.

    Upper: the smallest u with P(X ≤ u − 1) ≥ confidence, X binomial (n, share); lower: the largest l with
    P(X ≥ l) ≥ confidence.

    Raises:
        ValueError: there is none among n.
    """
    from scipy.special import bdtr

    def below(rank: int) -> float:
        """P(X ≤ rank − 1)."""
        return float(bdtr(rank - 1, n, share)) if rank else 0.0

    upper = bisect_left(range(n + 1), confidence, key=below)
    lower = bisect_right(range(1, n + 1), 1 - confidence, key=below)
    if upper > n or lower < 1:
        least = needed(share=share, confidence=confidence)
        raise ValueError(f"found {n} times, expected at least {least} for limits of the quantile {share:g}")
    return lower, upper


def needed(*, share: float, confidence: float) -> int:
    """Fewest times with a finite limit on both sides: share^n ≤ 1 − confidence, and (1 − share)^n too."""
    return math.ceil(math.log(1 - confidence) / math.log(max(share, 1 - share)) - 1e-9)
