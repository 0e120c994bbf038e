"""Delete-group jackknife for scores that are no mean over items: macro-F1, BLEU, chrF.

Pure.  From the score of everything and the scores without each of K groups of items.

References:
    [1] P. Kott, Journal of Official Statistics 17 (2001) 521–526: the delete-a-group jackknife, t on K − 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gate.stats import fieller
from gate.stats.quantiles import t


@dataclass(frozen=True, kw_only=True, slots=True)
class Jackknife:
    groups: int
    confidence: float
    least_half_width: float
    standard_error: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class JackknifeRatio:
    """Candidate's score over the baseline's."""

    baseline: float
    candidate: float
    groups: int
    confidence: float
    least_half_width: float
    estimate: float
    low: float
    high: float


def interval(*, full: float, deleted: Sequence[float], confidence: float, least_half_width: float) -> Jackknife:
    """Both one-sided limits; pass differences (full and per group) for a paired comparison.

    Args:
        full: score over all items.
        deleted: score without group k, for each k.
        least_half_width: what this many items cannot resolve; the interval is never narrower.

    Raises:
        ValueError: fewer than two groups, or no least half-width.
    """
    _check(len(deleted), least_half_width)
    error = math.sqrt(_variance(deleted, deleted))
    half = max(t(confidence, len(deleted) - 1) * error, least_half_width)
    return Jackknife(
        groups=len(deleted),
        confidence=confidence,
        least_half_width=least_half_width,
        standard_error=error,
        estimate=full,
        low=full - half,
        high=full + half,
    )


def retention(
    *,
    baseline: float,
    candidate: float,
    baseline_deleted: Sequence[float],
    candidate_deleted: Sequence[float],
    confidence: float,
    least_half_width: float,
) -> JackknifeRatio:
    """Both one-sided limits of candidate/baseline for scores in [0, 1]: Fieller with jackknife covariances.

    Raises:
        ValueError: fewer than two groups, unequal groups, no least half-width, or a baseline of zero.
    """
    _check(len(baseline_deleted), least_half_width)
    if baseline <= 0:
        raise ValueError("the baseline's score is 0, expected something to retain")
    low, high = fieller.limits(
        numerator=candidate,
        denominator=baseline,
        numerator_variance=_variance(candidate_deleted, candidate_deleted),
        covariance=_variance(baseline_deleted, candidate_deleted),
        denominator_variance=_variance(baseline_deleted, baseline_deleted),
        quantile=t(confidence, len(baseline_deleted) - 1),
    )
    estimate = candidate / baseline
    low, high = fieller.finite(estimate, low, high, largest=1 / baseline)
    return JackknifeRatio(
        baseline=baseline,
        candidate=candidate,
        groups=len(baseline_deleted),
        confidence=confidence,
        least_half_width=least_half_width,
        estimate=estimate,
        low=max(min(low, (candidate - least_half_width) / baseline), 0.0),
        high=max(high, (candidate + least_half_width) / baseline),
    )


def _check(groups: int, least_half_width: float) -> None:
    if groups < 2:
        raise ValueError(f"found {groups} delete-group scores, expected at least 2")
    if least_half_width <= 0:
        raise ValueError(f"found a least half-width of {least_half_width!r}, expected > 0")


def _variance(a: Sequence[float], b: Sequence[float]) -> float:
    groups = len(a)
    mean_a, mean_b = math.fsum(a) / groups, math.fsum(b) / groups
    products = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return products * (groups - 1) / groups
