"""Cluster-robust mean and retention: items of one subject or document stand or fall together.

Pure.  Zero width when all clusters agree: used only together with an item-level interval, the wider of both.

References:
    [1] K.-Y. Liang, S. Zeger, Biometrika 73 (1986) 13–22; the factor G/(G−1) makes equal clusters an exact t.
    [2] E. Miller, arXiv 2411.00640, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from gate.stats import fieller
from gate.stats.quantiles import t


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterMean:
    """Mean over `n` items in `clusters` clusters."""

    n: int
    clusters: int
    confidence: float
    standard_error: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterRatio:
    """Candidate mean over baseline mean of `n` pairs in `clusters` clusters, values in [0, 1]."""

    n: int
    clusters: int
    confidence: float
    estimate: float
    low: float
    high: float


def mean(*, values: Sequence[float], clusters: Sequence[Hashable], confidence: float) -> ClusterMean:
    """Both one-sided limits, t on G − 1; pass differences for a paired comparison.

    Raises:
        ValueError: fewer than two clusters.
    """
    n, estimate = len(values), math.fsum(values) / max(len(values), 1)
    sums = totals(values, clusters, estimate)
    error = math.sqrt(_product(sums, sums)) / n
    half = t(confidence, len(sums) - 1) * error
    return ClusterMean(
        n=n,
        clusters=len(sums),
        confidence=confidence,
        standard_error=error,
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
    )


def retention(
    *, baseline: Sequence[float], candidate: Sequence[float], clusters: Sequence[Hashable], confidence: float
) -> ClusterRatio:
    """Both one-sided limits of mean(candidate)/mean(baseline): Fieller with cluster covariances, t on G − 1.

    Raises:
        ValueError: fewer than two clusters, or a baseline of zero everywhere.
    """
    n = len(baseline)
    b, c = math.fsum(baseline) / max(n, 1), math.fsum(candidate) / max(n, 1)
    if b <= 0:
        raise ValueError("the baseline is 0 on every item, expected something to retain")
    of_baseline, of_candidate = totals(baseline, clusters, b), totals(candidate, clusters, c)
    low, high = fieller.limits(
        numerator=c,
        denominator=b,
        numerator_variance=_product(of_candidate, of_candidate) / n**2,
        covariance=_product(of_baseline, of_candidate) / n**2,
        denominator_variance=_product(of_baseline, of_baseline) / n**2,
        quantile=t(confidence, len(of_baseline) - 1),
    )
    low, high = fieller.finite(c / b, low, high, largest=1 / b)
    return ClusterRatio(n=n, clusters=len(of_baseline), confidence=confidence, estimate=c / b, low=low, high=high)


def totals(values: Sequence[float], clusters: Sequence[Hashable], centre: float) -> dict[Hashable, float]:
    """Σ(value − centre) of every cluster.  Raises ValueError unless there are two clusters at least."""
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value - centre)
    if len(members) < 2:
        raise ValueError(f"found {len(members)} clusters, expected at least 2")
    return {cluster: math.fsum(deviations) for cluster, deviations in members.items()}


def _product(a: dict[Hashable, float], b: dict[Hashable, float]) -> float:
    return math.fsum(a[k] * b[k] for k in a) * len(a) / (len(a) - 1)
