"""Rules on token-weighted means over documents: perplexity, KL divergence, top-1 agreement.

Pure.  Documents are the units.  A lost document could hold any value, so nothing is concluded past one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gate.decide.estimate import Estimate, Span, resolution_factor
from gate.decide.items import best_rate
from gate.decide.pairing import Pairs, check_lost, lost_text
from gate.errors import CouldNotMeasure
from gate.records import BoundKind, Estimand, Rule
from gate.stats import document_ratio
from gate.stats.document_ratio import ENOUGH_UNITS, MIN_UNITS, DocumentRatio
from gate.stats.quantiles import z

NOISE_NATS = 0.03
"""Per-token sd of numeric noise between kernels and batch sizes (statistics.md §4): what is not resolved."""

DESIGN_EFFECT = 6
"""How many tokens of a document are worth one independent token, at worst (statistics.md §4)."""

_MAX_EXPONENT = 700.0


def estimate(rule: Rule, pairs: Pairs, confidence: float) -> Estimate:
    """Judge-ready evidence on perplexity (`max_increase`, `max`) or a candidate-only token mean.

    The interval is never narrower than the resolution of the measurement: z·0.03/√tokens nats, or, for a rate,
    the share z²/(n + z²) of n = tokens/6 that could have gone unseen.

    Raises:
        CouldNotMeasure: too many lost, or fewer than 8 documents.
    """
    check_lost(pairs, rule.max_lost)
    relative = rule.bound.kind is BoundKind.MAX_INCREASE
    documents = [p.cluster or p.item_id for p in pairs.paired]
    weights = [p.weight for p in pairs.paired]
    units, tokens = len(set(documents)), math.fsum(weights)
    if units < MIN_UNITS:
        raise CouldNotMeasure(
            f"{pairs.metric.name}: found {units} documents, expected at least {MIN_UNITS}: tokens of one document "
            "stand or fall together, so spread the same number of tokens over more documents"
        )
    values = [p.candidate - p.baseline if relative else p.candidate for p in pairs.paired]
    is_rate = pairs.metric.unit == "rate"
    if is_rate and not all(0 <= v <= 1 for v in values):
        raise CouldNotMeasure(
            f"{pairs.metric.name}: found values from {min(values)!r} to {max(values)!r}, expected 0 to 1"
        )

    def mean_at(level: float) -> DocumentRatio:
        return document_ratio.interval(
            values=values,
            weights=weights,
            documents=documents,
            confidence=level,
            least_half_width=_unresolved(tokens, is_rate, level),
        )

    shown = _shown(pairs, relative, is_rate)
    result = mean_at(confidence)
    cautions: tuple[str, ...] = ()
    if units < ENOUGH_UNITS:
        cautions = (f"only {units} documents: with fewer than {ENOUGH_UNITS} the interval is rough",)

    def limits(level: float) -> Span:
        at = mean_at(level)
        return shown(at.low), shown(at.high)

    return Estimate(
        baseline=_exp(_mean([p.baseline for p in pairs.paired], weights)) if relative else None,
        candidate=_candidate(pairs, weights),
        value=shown(result.estimate),
        limits=limits,
        method="document_t",
        counts={
            "G": units,
            "tokens": tokens,
            "n": len(pairs.paired),
            "N": pairs.n_expected,
            "mean": result.estimate,
            "standard_error": result.standard_error,
        },
        unit="documents",
        n_paired=len(pairs.paired),
        n_lost=pairs.n_lost,
        detectable=_exp(resolution_factor(confidence) * result.standard_error) - 1 if relative else None,
        best=best_rate(rule.bound.kind) if is_rate else None,
        undecidable=f"{lost_text(pairs)} and could hold any value" if pairs.n_lost else None,
        cautions=cautions,
    )


def _unresolved(tokens: float, is_rate: bool, confidence: float) -> float:
    quantile = max(z(confidence), 0.1)  # p-values look at confidences down to ½, where z is 0
    if is_rate:
        return quantile**2 / (tokens / DESIGN_EFFECT + quantile**2)
    return quantile * NOISE_NATS / math.sqrt(tokens)


def _shown(pairs: Pairs, relative: bool, is_rate: bool) -> Callable[[float], float]:
    """From the mean that is estimated to the scale of the bound."""
    if relative:
        return lambda mean: _exp(mean) - 1
    if pairs.metric.estimand is Estimand.PERPLEXITY:
        return _exp
    return (lambda mean: min(max(mean, 0.0), 1.0)) if is_rate else lambda mean: mean


def _candidate(pairs: Pairs, weights: Sequence[float]) -> float:
    mean = _mean([p.candidate for p in pairs.paired], weights)
    return _exp(mean) if pairs.metric.estimand is Estimand.PERPLEXITY else mean


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)


def _exp(nats: float) -> float:
    """exp that stays finite: e^700 is beyond every bound anyway."""
    return math.exp(min(nats, _MAX_EXPONENT))
