"""Token-weighted mean over documents: log perplexity ratio, KL divergence, top-1 agreement.

Pure.  The unit is the document: tokens of one document are not independent (design effect 3–6).

References:
    [1] W. G. Cochran, Sampling Techniques, 3rd ed. (1977), section 6.3: the ratio estimator.
    [2] statistics.md §4.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from gate.stats.cluster import totals
from gate.stats.quantiles import t

MIN_UNITS = 8
"""Below this many documents there is no interval."""

ENOUGH_UNITS = 30
"""Below this many documents the interval is only roughly right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentRatio:
    """Σ weight·value / Σ weight over `units` documents with `tokens` in all."""

    units: int
    tokens: float
    confidence: float
    least_half_width: float
    standard_error: float
    estimate: float
    low: float
    high: float


def interval(
    *,
    values: Sequence[float],
    weights: Sequence[float],
    documents: Sequence[Hashable],
    confidence: float,
    least_half_width: float,
) -> DocumentRatio:
    """Both one-sided limits, t on G − 1 documents.

    Args:
        values: per-token means of each scored piece.
        weights: tokens of each piece, > 0.
        documents: which document each piece belongs to.
        least_half_width: what the measurement cannot resolve; the interval is never narrower.

    Raises:
        ValueError: fewer than `MIN_UNITS` documents, or no least half-width.
    """
    units = len(set(documents))
    if units < MIN_UNITS:
        raise ValueError(f"found {units} documents, expected at least {MIN_UNITS} for an interval")
    if least_half_width <= 0:
        raise ValueError(f"found a least half-width of {least_half_width!r}, expected > 0")
    tokens = math.fsum(weights)
    estimate = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / tokens
    residuals = [w * (v - estimate) for w, v in zip(weights, values, strict=True)]
    squares = math.fsum(s * s for s in totals(residuals, documents, 0.0).values())
    error = math.sqrt(squares * units / (units - 1)) / tokens
    half = max(t(confidence, units - 1) * error, least_half_width)
    return DocumentRatio(
        units=units,
        tokens=tokens,
        confidence=confidence,
        least_half_width=least_half_width,
        standard_error=error,
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
    )
