"""Quantiles of the normal and of Student's t distribution, for one-sided confidences.

Pure.  scipy is imported on use: reading a report must not cost a scipy import.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

SMALL_SAMPLE = 400


@lru_cache(maxsize=4096)
def z(confidence: float) -> float:
    """Normal quantile: z(0.95) = 1.6449."""
    return NormalDist().inv_cdf(confidence)


@lru_cache(maxsize=4096)
def t(confidence: float, degrees_of_freedom: float) -> float:
    """Student's t quantile: t(0.95, 7) = 1.8946.

    Raises:
        ValueError: no degrees of freedom.
    """
    if degrees_of_freedom < 1:
        raise ValueError(f"found {degrees_of_freedom} degrees of freedom, expected at least 1")
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, confidence))


def small_sample(confidence: float, n: int) -> float:
    """Confidence at which to compute a score interval so that `confidence` holds at this n.

    Score intervals reach an error of 1.06 α below some 400 pairs: there they are computed at 0.95 α
    (enumeration; docs/statistics.md).
    """
    return 1 - 0.95 * (1 - confidence) if n < SMALL_SAMPLE else confidence
