"""Wald intervals for paired proportions: difference and ratio, candidate against baseline.

Pure.  Zero width when nothing flips: never used alone, only as the second opinion before a failure.

References:
    [1] statistics.md §1: "FAIL by the stricter of Tango and Wald".
    [2] Q. McNemar, Psychometrika 12 (1947) 153–157 (the variance of paired proportions).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gate.stats import fieller
from gate.stats.quantiles import z


@dataclass(frozen=True, kw_only=True, slots=True)
class Wald:
    """`lost` pairs only the baseline got right, `gained` only the candidate, of `n`."""

    lost: int
    gained: int
    n: int
    confidence: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WaldRatio:
    """Counts of pairs: `both` right, `lost`, `gained`, of `n`; `estimate` is candidate/baseline."""

    both: int
    lost: int
    gained: int
    n: int
    confidence: float
    estimate: float
    low: float
    high: float


def interval(*, lost: int, gained: int, n: int, confidence: float) -> Wald:
    """Limits of candidate − baseline: d ± z·√((b + c)/n − d²)/√n."""
    estimate = (gained - lost) / n
    half = z(confidence) * math.sqrt(max((lost + gained) / n - estimate**2, 0.0) / n)
    return Wald(
        lost=lost,
        gained=gained,
        n=n,
        confidence=confidence,
        estimate=estimate,
        low=max(-1.0, estimate - half),
        high=min(1.0, estimate + half),
    )


def retention(*, both: int, lost: int, gained: int, n: int, confidence: float) -> WaldRatio:
    """Limits of candidate/baseline: the r at which |mean(C − rB)| ≤ z standard errors.

    Raises:
        ValueError: the baseline is right nowhere, so there is nothing to retain.
    """
    if both + lost < 1:
        raise ValueError("the baseline is right on no item, expected at least one")
    candidate, baseline = (both + gained) / n, (both + lost) / n
    low, high = fieller.limits(
        numerator=candidate,
        denominator=baseline,
        numerator_variance=candidate * (1 - candidate) / n,
        covariance=(both / n - candidate * baseline) / n,
        denominator_variance=baseline * (1 - baseline) / n,
        quantile=z(confidence),
    )
    estimate = candidate / baseline
    low, high = fieller.finite(estimate, low, high, largest=1 / baseline)
    return WaldRatio(
        both=both,
        lost=lost,
        gained=gained,
        n=n,
        confidence=confidence,
        estimate=estimate,
        low=low,
        high=high,
    )
