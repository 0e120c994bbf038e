"""Wilson's score interval for one proportion: the absolute rate of the candidate.

Pure.  Keeps its width at 0 and at n successes: the limits are then 0 to z²/(n + z²), or its mirror.

References:
    [1] E. B. Wilson, Journal of the American Statistical Association 22 (1927) 209–212.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gate.stats.quantiles import z


@dataclass(frozen=True, kw_only=True, slots=True)
class Wilson:
    successes: int
    n: int
    confidence: float
    estimate: float
    low: float
    high: float


def interval(*, successes: int, n: int, confidence: float) -> Wilson:
    """Both one-sided limits of the rate, each at `confidence`.

    Raises:
        ValueError: `successes` is no count out of `n` ≥ 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"found {successes} of {n}, expected a count out of at least one")
    q2 = z(confidence) ** 2
    rate = successes / n
    centre = (successes + q2 / 2) / (n + q2)
    half = math.sqrt(q2 * (n * rate * (1 - rate) + q2 / 4)) / (n + q2)
    return Wilson(
        successes=successes,
        n=n,
        confidence=confidence,
        estimate=rate,
        low=0.0 if successes == 0 else min(max(centre - half, 0.0), rate),
        high=1.0 if successes == n else max(min(centre + half, 1.0), rate),
    )
