"""How much a measurement differs from itself: the baseline against the baseline (A/A), source by source.

Pure.  Says how large the noise is; whether a rule survives it is the judge's to say.

A bound closer to no change than the noise floor asks for more than the measurement can tell: at f = f_AA flips over n
items a true change of less than (z₀.₉₅ + z₀.₈)·√(f/n) = 2.49·√(f/n) is lost in what nothing at all would do
(docs/statistics.md, noise floor).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from gate.decide import looks
from gate.decide.estimate import resolution_factor
from gate.decide.pairing import Pair, pair
from gate.errors import CouldNotMeasure
from gate.records import Estimand, Measurement, Metric
from gate.stats import document_ratio
from gate.stats.document_ratio import MIN_UNITS

_LEAST_NATS = 1e-12
"""Two measurements that agree to the last bit still get an interval: the width of rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipNoise:
    """Noise of an item mean.

    Attributes:
        flip_rate: f_AA, the mean squared difference between the two runs: for 0/1 items the share that changed.
        n: items that both runs scored.
        lost, gained: items that scored less, and more, in the second run.
        floor: smallest drop (rate) that can be told from noise: 2.49·√(f_AA/n) at 95 % confidence.
    """

    metric: str
    flip_rate: float
    n: int
    lost: int
    gained: int
    floor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenNoise:
    """Noise of a perplexity.

    Attributes:
        token_sd_nats: standard deviation of the difference in NLL of one token, were tokens independent:
            √(Σ n_k (d̄_k − d̄)²/(G − 1)) over G documents of n_k tokens with mean difference d̄_k.
        documents, tokens: what it rests on.
        low, high: limits of second over first perplexity, each at one-sided confidence; they hold 1 unless the
            measurement drifts.
        floor: smallest relative increase that can be told from noise.
    """

    metric: str
    token_sd_nats: float
    documents: int
    tokens: int
    low: float
    high: float
    floor: float


Noise = FlipNoise | TokenNoise


def noise(baseline: Measurement, again: Measurement, confidence: float) -> tuple[Noise, ...]:
    """The noise of every metric that both runs report as a mean over items or as a perplexity.

    Of a corpus with planned looks, the last one counts.

    Args:
        again: the baseline's second measurement, in the role of the candidate.

    Raises:
        CouldNotMeasure: the two do not belong together, nothing was paired, or there are too few documents.
    """
    found: list[Noise] = []
    for metric in again.metrics:
        if metric not in baseline.metrics:
            continue
        if metric.estimand is Estimand.ITEM_MEAN:
            found.append(_flips(baseline, again, metric, confidence))
        elif metric.estimand is Estimand.PERPLEXITY:
            found.append(_tokens(*_last_look(baseline, again), metric, confidence))
    return tuple(found)


def _flips(baseline: Measurement, again: Measurement, metric: Metric, confidence: float) -> FlipNoise:
    pairs = _paired(baseline, again, metric)
    rate = math.fsum((p.candidate - p.baseline) ** 2 for p in pairs) / len(pairs)
    return FlipNoise(
        metric=metric.name,
        flip_rate=rate,
        n=len(pairs),
        lost=sum(p.candidate < p.baseline for p in pairs),
        gained=sum(p.candidate > p.baseline for p in pairs),
        floor=resolution_factor(confidence) * math.sqrt(rate / len(pairs)),
    )


def _tokens(baseline: Measurement, again: Measurement, metric: Metric, confidence: float) -> TokenNoise:
    pairs = _paired(baseline, again, metric)
    documents = [p.cluster or p.item_id for p in pairs]
    if len(set(documents)) < MIN_UNITS:
        raise CouldNotMeasure(
            f"{again.source}: found {len(set(documents))} documents, expected at least {MIN_UNITS} to know the noise"
        )
    differences, weights = [p.candidate - p.baseline for p in pairs], [p.weight for p in pairs]
    result = document_ratio.interval(
        values=differences,
        weights=weights,
        documents=documents,
        confidence=confidence,
        least_half_width=_LEAST_NATS,
    )
    tokens: dict[str, float] = defaultdict(float)
    sums: dict[str, float] = defaultdict(float)
    for document, difference, weight in zip(documents, differences, weights, strict=True):
        tokens[document] += weight
        sums[document] += weight * (difference - result.estimate)
    variance = math.fsum(sums[k] ** 2 / tokens[k] for k in tokens) / (len(tokens) - 1)
    return TokenNoise(
        metric=metric.name,
        token_sd_nats=math.sqrt(variance),
        documents=len(tokens),
        tokens=round(math.fsum(weights)),
        low=math.exp(result.low),
        high=math.exp(result.high),
        floor=math.expm1(resolution_factor(confidence) * result.standard_error),
    )


def _last_look(baseline: Measurement, again: Measurement) -> tuple[Measurement, Measurement]:
    plan = looks.planned(baseline)
    return (looks.at(baseline, plan[-1]), looks.at(again, plan[-1])) if plan else (baseline, again)


def _paired(baseline: Measurement, again: Measurement, metric: Metric) -> tuple[Pair, ...]:
    pairs = pair(baseline, again, metric).paired
    if not pairs:
        raise CouldNotMeasure(f"{again.source}: no item was scored for {metric.name} in both runs of the baseline")
    return pairs
