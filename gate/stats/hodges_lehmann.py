"""Hodges–Lehmann estimate and exact Wilcoxon signed-rank limits of the ratio of paired timings.

Pure.  Reported next to the paired t of `log_ratio`: one wild block moves it little.  Assumes symmetric log ratios.

References:
    [1] J. Hodges, E. Lehmann, Annals of Mathematical Statistics 34 (1963) 598–611.
    [2] M. Hollander, D. Wolfe, Nonparametric Statistical Methods, 2nd ed. (1999), sections 3.1–3.3: Tukey's limits.
    [3] R, wilcox.test(conf.int = TRUE, exact = TRUE).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from gate.stats.log_ratio import RESOLUTION

_MAX_EXPONENT = 700.0  # two wildly different blocks must not overflow


@dataclass(frozen=True, kw_only=True, slots=True)
class HodgesLehmann:
    """Candidate over baseline, from `pairs` pairs of blocks; each limit holds with at least `confidence`."""

    pairs: int
    confidence: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """Centre of symmetry of `n` differences."""

    n: int
    confidence: float
    estimate: float
    low: float
    high: float


def interval(*, baseline: Sequence[float], candidate: Sequence[float], confidence: float) -> HodgesLehmann:
    """Both one-sided limits of candidate/baseline, no narrower than ±0.1 % (`log_ratio.RESOLUTION`).

    Raises:
        ValueError: unequal lengths, a value that is not positive, or too few pairs for `confidence`: 5 for 0.95.
    """
    if len(baseline) != len(candidate) or not all(0 < v < math.inf for v in (*baseline, *candidate)):
        raise ValueError(
            f"found {len(baseline)} and {len(candidate)} blocks, expected as many of each and every value positive"
        )
    found = shift(
        differences=[math.log(c) - math.log(b) for b, c in zip(baseline, candidate, strict=True)],
        confidence=confidence,
    )
    low = min(found.low, found.estimate - RESOLUTION)
    high = max(found.high, found.estimate + RESOLUTION)
    return HodgesLehmann(
        pairs=found.n,
        confidence=confidence,
        estimate=math.exp(min(found.estimate, _MAX_EXPONENT)),
        low=math.exp(min(low, _MAX_EXPONENT)),
        high=math.exp(min(high, _MAX_EXPONENT)),
    )


def shift(*, differences: Sequence[float], confidence: float) -> Shift:
    """Median of the Walsh averages (dᵢ + dⱼ)/2, i ≤ j, and their k-th smallest and largest as limits.

    k is the smallest rank sum that V, the signed-rank statistic, stays at or below with probability ≥ 1 − `confidence`
    (R's qsignrank), so that P(V < k) is smaller.  Equal differences make the limits wider, never narrower.

    Raises:
        ValueError: so few differences that no limit holds with `confidence`.
    """
    n = len(differences)
    rank = _critical_rank(n, 1 - confidence)
    if rank < 1:
        least = math.floor(-math.log2(1 - confidence)) + 1
        raise ValueError(f"found {n} pairs, expected at least {least} for an exact limit at confidence {confidence:g}")
    walsh = sorted((differences[i] + differences[j]) / 2 for i in range(n) for j in range(i, n))
    return Shift(n=n, confidence=confidence, estimate=median(walsh), low=walsh[rank - 1], high=walsh[-rank])


def _critical_rank(n: int, alpha: float) -> int:
    """Smallest k with P(V ≤ k) ≥ `alpha`, V the sum of a random subset of 1..n; 0 if already V = 0 is that likely."""
    ways = [1]  # number of subsets with sum k
    for rank in range(1, n + 1):
        longer = ways + [0] * rank
        for k, count in enumerate(ways):
            longer[k + rank] += count
        ways = longer
    seen, wanted = 0, alpha * 2**n
    for k, count in enumerate(ways):
        seen += count
        if seen >= wanted:
            return k
    return len(ways)
