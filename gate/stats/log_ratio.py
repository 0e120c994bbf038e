"""Timing: paired t on log ratios of interleaved blocks, and the geometric mean of one side.

Pure.  The unit is the pair of blocks; iterations inside a block are no replicates.

References:
    [1] T. Kalibera, R. Jones, Rigorous benchmarking in reasonable time, ISMM 2013.
    [2] statistics.md §6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gate.stats.quantiles import t

RESOLUTION = 1e-3
"""No interval is narrower than ±0.1 %: clocks and schedulers do not resolve less."""

_MAX_EXPONENT = 700.0  # two wildly different blocks must not overflow


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRatio:
    """Candidate over baseline, from `pairs` pairs of blocks."""

    pairs: int
    confidence: float
    standard_error_log: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometricMean:
    """Geometric mean of `blocks` block values."""

    blocks: int
    confidence: float
    standard_error_log: float
    estimate: float
    low: float
    high: float


def interval(*, baseline: Sequence[float], candidate: Sequence[float], confidence: float) -> LogRatio:
    """Both one-sided limits of candidate/baseline, t on R − 1.

    Raises:
        ValueError: fewer than two pairs, unequal lengths, or a value that is not positive.
    """
    _check((*baseline, *candidate), min(len(baseline), len(candidate)))
    logs = [math.log(c / b) for b, c in zip(baseline, candidate, strict=True)]
    error, estimate, low, high = _limits(logs, confidence)
    return LogRatio(
        pairs=len(logs),
        confidence=confidence,
        standard_error_log=error,
        estimate=estimate,
        low=low,
        high=high,
    )


def geometric_mean(*, values: Sequence[float], confidence: float) -> GeometricMean:
    """Both one-sided limits of the geometric mean, t on the logs.

    Raises:
        ValueError: fewer than two blocks, or a value that is not positive.
    """
    _check(values, len(values))
    error, estimate, low, high = _limits([math.log(v) for v in values], confidence)
    return GeometricMean(
        blocks=len(values),
        confidence=confidence,
        standard_error_log=error,
        estimate=estimate,
        low=low,
        high=high,
    )


def _check(values: Sequence[float], blocks: int) -> None:
    if blocks < 2 or not all(v > 0 for v in values):
        raise ValueError(f"found {blocks} blocks, expected at least 2 and every value positive")


def _limits(logs: Sequence[float], confidence: float) -> tuple[float, float, float, float]:
    n = len(logs)
    mean = math.fsum(logs) / n
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in logs) / (n - 1) / n)
    half = max(t(confidence, n - 1) * error, RESOLUTION)
    return error, math.exp(mean), math.exp(mean - half), math.exp(min(mean + half, _MAX_EXPONENT))
