"""Mean and retention of real-valued items in a known range (partial credit, ROUGE): the score test without a model.

Pure.  The distribution closest to the data that has the hypothesised mean may put mass at the ends of the range, so
unseen values count.  For 0/1 items this *is* Tango's, Nam and Blackwelder's, and Wilson's interval.

References:
    [1] J. Honda, A. Takemura, JMLR 16 (2015) 3721–3756, section 4 (the constrained likelihood, there called KL-inf).
    [2] A. Owen, Empirical Likelihood (2001), chapter 2 (its dual).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gate.stats.bisection import boundary
from gate.stats.quantiles import z


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundedMean:
    """Mean of `n` values in [`smallest`, `largest`]."""

    n: int
    smallest: float
    largest: float
    confidence: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundedRatio:
    """Candidate mean over baseline mean of `n` pairs in [0, 1] with the given sums."""

    n: int
    baseline_total: float
    candidate_total: float
    confidence: float
    estimate: float
    low: float
    high: float


def z_score(
    values: NDArray[np.float64], counts: NDArray[np.float64], *, smallest: float, largest: float, mean: float
) -> float:
    """Score statistic of H0: the mean is `mean`; large speaks for more.  `counts` says how often each value was seen.

    Z = (observed mean − `mean`)·√n / σ₀, with σ₀² the variance under the maximum-likelihood distribution on the
    values seen and both ends of the range that has this mean.
    """
    n = float(counts.sum())
    surplus = float(counts @ (values - mean))
    if surplus == 0:
        return 0.0
    # Mirror so that the data lie above H0: mass then has to move down, at most to the lower end.
    sign, end = (1.0, mean - smallest) if surplus > 0 else (-1.0, largest - mean)
    if end < np.finfo(np.float64).tiny:  # no room, or so little that 1/end overflows
        return math.copysign(math.inf, surplus)
    deviations = sign * (values - mean)
    weights = counts / n / (1 + _tilt(deviations, counts, end) * deviations)
    unseen = max(1 - float(weights.sum()), 0.0)
    variance = float(weights @ deviations**2) + unseen * end**2
    return surplus / math.sqrt(n * variance) if variance > 0 else math.copysign(math.inf, surplus)


def _tilt(deviations: NDArray[np.float64], counts: NDArray[np.float64], end: float) -> float:
    """λ in [0, 1/end] with Σ k·v/(1 + λv) = 0, or 1/end when the sum stays positive: then mass sits at the end."""
    from scipy.optimize import brentq

    def slope(tilt: float) -> float:
        return float((counts * deviations / (1 + tilt * deviations)).sum())

    # A value at the very end keeps the root inside, where the sum falls to minus infinity: stop just before.
    largest = (1 - 1e-13) / end
    if slope(0.0) <= 0:
        return 0.0  # the data agree with H0 but for rounding
    return largest if slope(largest) >= 0 else float(brentq(slope, 0.0, largest, xtol=1e-15 / end))


def mean(*, values: Sequence[float], smallest: float, largest: float, confidence: float) -> BoundedMean:
    """Both one-sided limits of the mean; pass differences with the range −1..1 for a paired comparison.

    Raises:
        ValueError: no values, or one outside the range.
    """
    n = len(values)
    if n < 1 or not all(smallest <= v <= largest for v in values):
        raise ValueError(f"found {n} values, expected at least one and all in [{smallest}, {largest}]")
    seen, times = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    counts = times.astype(np.float64)
    quantile = z(confidence)
    estimate = min(max(math.fsum(values) / n, smallest), largest)

    def above(at: float) -> bool:
        return z_score(seen, counts, smallest=smallest, largest=largest, mean=at) > quantile

    def below(at: float) -> bool:
        return z_score(seen, counts, smallest=smallest, largest=largest, mean=at) < -quantile

    return BoundedMean(
        n=n,
        smallest=smallest,
        largest=largest,
        confidence=confidence,
        estimate=estimate,
        low=boundary(above, rejected=float(smallest), accepted=estimate),
        high=boundary(below, rejected=float(largest), accepted=estimate),
    )


def retention(*, baseline: Sequence[float], candidate: Sequence[float], confidence: float) -> BoundedRatio:
    """Both one-sided limits of mean(candidate)/mean(baseline), pairs in [0, 1].

    The test of mean(C − rB) = 0 on the range −r..1, inverted in r.

    Raises:
        ValueError: no pairs, unequal lengths, a value outside [0, 1], or a baseline of zero everywhere.
    """
    n = len(baseline)
    if n < 1 or len(candidate) != n or not all(0 <= v <= 1 for v in (*baseline, *candidate)):
        raise ValueError(f"found {n} and {len(candidate)} values, expected as many of each, at least one, in [0, 1]")
    b, c = math.fsum(baseline), math.fsum(candidate)
    if b <= 0:
        raise ValueError("the baseline is 0 on every item, expected something to retain")
    pairs, times = np.unique(np.array([baseline, candidate], dtype=np.float64).T, axis=0, return_counts=True)
    counts = times.astype(np.float64)
    quantile = z(confidence)

    def score(ratio: float) -> float:
        return z_score(pairs[:, 1] - ratio * pairs[:, 0], counts, smallest=-ratio, largest=1.0, mean=0.0)

    outside = 2 * c / b + 2
    while score(outside) >= -quantile:
        outside *= 2
    return BoundedRatio(
        n=n,
        baseline_total=b,
        candidate_total=c,
        confidence=confidence,
        estimate=c / b,
        low=boundary(lambda r: score(r) > quantile, rejected=0.0, accepted=c / b),
        high=boundary(lambda r: score(r) < -quantile, rejected=outside, accepted=c / b),
    )
