"""Nam–Blackwelder score interval for the ratio of two paired proportions, candidate/baseline.

Pure.  Keeps its width when no item flips: then the limits are A/(A + φz²) and 1 + φz²/A, A = right items.

References:
    [1] J. Nam, W. Blackwelder, Statistics in Medicine 21 (2002) 689–699.
    [2] W. G. Cochran, Sampling Techniques, 3rd ed. (1977), section 3.3 (φ, the finite-population factor, else 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gate.stats.bisection import boundary
from gate.stats.finite_population import variance_factor
from gate.stats.quantiles import z


@dataclass(frozen=True, kw_only=True, slots=True)
class NamBlackwelder:
    """Counts of pairs: `both` right, `lost` (only the baseline), `gained` (only the candidate), of `n`.

    `population` is how many items the `n` were drawn from, None for tasks like these.
    """

    both: int
    lost: int
    gained: int
    n: int
    population: int | None
    confidence: float
    estimate: float
    low: float
    high: float


def z_score(*, both: int, lost: int, gained: int, n: int, ratio: float, population: int | None = None) -> float:
    """Score statistic of H0: P(candidate right) = `ratio`·P(baseline right); large speaks for more.

    With a, b, c = `both`, `lost`, `gained` and r = `ratio` > 0, q₀₁ = P(lost) under H0 is the larger root of
    n(1+r)q² + [(a+b)r² − (a+c+2b)]q + b(1−r)(a+b+c)/n.  Where the variance under H0 is zero, Z is 0 if
    the data agree with H0 exactly, else infinite.  With a `population` of N > n items the variance is
    multiplied by (N − n)/(N − 1): `ratio` is then that of the N items.

    Raises:
        ValueError: counts that do not fit, or a population that is not larger than `n`.
    """
    _check(both, lost, gained, n)
    factor = variance_factor(n=n, population=population)
    surplus = ((both + gained) - ratio * (both + lost)) / n
    seen = (both + lost + gained) / n
    a = n * (1 + ratio)
    b = (both + lost) * ratio**2 - (both + gained + 2 * lost)
    c = lost * (1 - ratio) * seen
    only_baseline = max((math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a), 0.0)
    both_right = (seen - only_baseline) / ratio - only_baseline
    only_candidate = max(seen - both_right - only_baseline, 0.0)
    variance = factor * ratio * (only_candidate + only_baseline) / n
    if variance <= 0:
        return 0.0 if surplus == 0 else math.copysign(math.inf, surplus)
    return surplus / math.sqrt(variance)


def interval(
    *, both: int, lost: int, gained: int, n: int, confidence: float, population: int | None = None
) -> NamBlackwelder:
    """Both one-sided limits of candidate/baseline, each at `confidence`.

    Raises:
        ValueError: counts that do not fit, a population that is not larger than `n`, or a baseline that is right
            nowhere: nothing to retain.
    """
    _check(both, lost, gained, n)
    if both + lost < 1:
        raise ValueError("the baseline is right on no item, expected at least one")
    quantile = z(confidence) * math.sqrt(variance_factor(n=n, population=population))
    estimate = (both + gained) / (both + lost)

    def above(ratio: float) -> bool:
        return z_score(both=both, lost=lost, gained=gained, n=n, ratio=ratio) > quantile

    def below(ratio: float) -> bool:
        return z_score(both=both, lost=lost, gained=gained, n=n, ratio=ratio) < -quantile

    # Z falls like −√r once r is large, because the baseline is right somewhere: the search ends.
    outside = 2 * estimate + 2
    while not below(outside):
        outside *= 2
    return NamBlackwelder(
        both=both,
        lost=lost,
        gained=gained,
        n=n,
        population=population,
        confidence=confidence,
        estimate=estimate,
        low=boundary(above, rejected=0.0, accepted=estimate),
        high=boundary(below, rejected=outside, accepted=estimate),
    )


def _check(both: int, lost: int, gained: int, n: int) -> None:
    if n < 1 or min(both, lost, gained) < 0 or both + lost + gained > n:
        raise ValueError(
            f"found {both} both right, {lost} lost, {gained} gained of {n} pairs, expected counts that fit"
        )
