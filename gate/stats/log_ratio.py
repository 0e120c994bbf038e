"""Timing: paired t on log ratios of interleaved blocks, and the geometric mean of one side.

Pure.  The unit is the pair of blocks; iterations inside a block are no replicates.

Blocks of one run share their processes, and a process keeps its own speed (memory layout, thread placement).  What
pairs of fresh processes differ by is added to the variance of the mean, se² = s²/R + σ_b², with the degrees of freedom
of Welch and Satterthwaite [3]; the interval is never narrower than without.  σ_b is that of a log *ratio*, of two
processes; one process alone has half of its variance, where both are alike.

References:
    [1] T. Kalibera, R. Jones, Rigorous benchmarking in reasonable time, ISMM 2013.
    [2] statistics.md §6.
    [3] F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110–114; B. L. Welch, Biometrika 34 (1947) 28–35.
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
class BetweenProcesses:
    """Standard deviation of the log ratio from one pair of fresh processes to the next, found with so many `pairs`.

    Raises:
        ValueError: fewer than two pairs, or a deviation that is negative or not finite.
    """

    sd_log: float
    pairs: int

    def __post_init__(self) -> None:
        if self.pairs < 2 or not 0 <= self.sd_log < math.inf:
            raise ValueError(
                f"found a deviation of {self.sd_log!r} from {self.pairs} pairs of processes, expected at least 0 from "
                "at least 2 pairs"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRatio:
    """Candidate over baseline, from `pairs` pairs of blocks."""

    pairs: int
    between: BetweenProcesses | None
    confidence: float
    standard_error_log: float
    degrees_of_freedom: float
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometricMean:
    """Geometric mean of `blocks` block values."""

    blocks: int
    between: BetweenProcesses | None
    confidence: float
    standard_error_log: float
    degrees_of_freedom: float
    estimate: float
    low: float
    high: float


def interval(
    *,
    baseline: Sequence[float],
    candidate: Sequence[float],
    confidence: float,
    between: BetweenProcesses | None = None,
) -> LogRatio:
    """Both one-sided limits of candidate/baseline; without `between` for these two processes, t on R − 1.

    Raises:
        ValueError: fewer than two pairs, unequal lengths, or a value that is not positive.
    """
    _check((*baseline, *candidate), min(len(baseline), len(candidate)))
    logs = [math.log(c / b) for b, c in zip(baseline, candidate, strict=True)]
    found = _limits(logs, confidence, between, 1.0)
    return LogRatio(
        pairs=len(logs),
        between=between,
        confidence=confidence,
        standard_error_log=found.error,
        degrees_of_freedom=found.degrees_of_freedom,
        estimate=found.estimate,
        low=found.low,
        high=found.high,
    )


def geometric_mean(
    *, values: Sequence[float], confidence: float, between: BetweenProcesses | None = None
) -> GeometricMean:
    """Both one-sided limits of the geometric mean, t on the logs; half of the variance of `between` is one process's.

    Raises:
        ValueError: fewer than two blocks, or a value that is not positive.
    """
    _check(values, len(values))
    found = _limits([math.log(v) for v in values], confidence, between, 0.5)
    return GeometricMean(
        blocks=len(values),
        between=between,
        confidence=confidence,
        standard_error_log=found.error,
        degrees_of_freedom=found.degrees_of_freedom,
        estimate=found.estimate,
        low=found.low,
        high=found.high,
    )


def satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variance estimates: (Σv)²/Σ(v²/ν), for parts (v, ν).

    Never fewer than the fewest of the parts, which is also the answer where nothing varies.
    """
    fewest = min(freedom for _, freedom in parts)
    spread = math.fsum(v * v / freedom for v, freedom in parts)
    return max(math.fsum(v for v, _ in parts) ** 2 / spread, fewest) if spread > 0 else fewest


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limits:
    error: float
    degrees_of_freedom: float
    estimate: float
    low: float
    high: float


def _check(values: Sequence[float], blocks: int) -> None:
    if blocks < 2 or not all(v > 0 for v in values):
        raise ValueError(f"found {blocks} blocks, expected at least 2 and every value positive")


def _limits(logs: Sequence[float], confidence: float, between: BetweenProcesses | None, share: float) -> _Limits:
    """`share` of the variance between pairs of processes is added to that of the mean."""
    n = len(logs)
    mean = math.fsum(logs) / n
    within = math.fsum((v - mean) ** 2 for v in logs) / (n - 1) / n
    parts = [(within, n - 1.0)]
    if between is not None:
        parts.append((share * between.sd_log**2, between.pairs - 1.0))
    error = math.sqrt(math.fsum(v for v, _ in parts))
    freedom = satterthwaite(parts)
    # more degrees of freedom must not make it narrower than these blocks alone do
    half = max(t(confidence, freedom) * error, t(confidence, n - 1) * math.sqrt(within), RESOLUTION)
    return _Limits(
        error=error,
        degrees_of_freedom=freedom,
        estimate=math.exp(mean),
        low=math.exp(mean - half),
        high=math.exp(min(mean + half, _MAX_EXPONENT)),
    )
