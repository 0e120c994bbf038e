"""How much a measurement differs from itself: the baseline against the baseline (A/A), source by source.

Pure.  Says how large the noise is; whether a rule survives it is the judge's to say.

A bound closer to no change than the noise floor asks for more than the measurement can tell: at f = f_AA flips over n
items a true change of less than (z₀.₉₅ + z₀.₈)·√(f/n) = 2.49·√(f/n) is lost in what nothing at all would do
(docs/statistics.md, noise floor).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, variance

from gate.decide import conditions, looks
from gate.decide.estimate import resolution_factor
from gate.decide.pairing import Pair, pair
from gate.errors import CouldNotMeasure
from gate.records import Estimand, Measurement, Metric, Observation
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TimingNoise:
    """Noise of a timing: how much the log ratio of two processes of one model differs from start to start.

    Attributes:
        metric: as it is observed.
        group: the batch size or load (`batch=8`, `load=open:4`).
        between_log_sd: σ_b of the log ratio between pairs of fresh processes; 0 where the pairs of blocks inside a
            process differ as much: σ_b² = max(0, Var(x̄_p) − mean(s_p²/R_p)) [1].
        within_log_sd: of one pair of blocks inside a pair of processes, √mean(s_p²).
        processes, pairs: pairs of processes, and of blocks in all of them.
        floor: smallest relative change that as many pairs of blocks as a run plans can tell from noise:
            exp((z₀.₉₅ + z₀.₈)·√(σ_b² + σ_w²/R)) − 1.

    References:
        [1] T. Kalibera, R. Jones, Rigorous benchmarking in reasonable time, ISMM 2013, section 6.
    """

    metric: str
    group: str
    between_log_sd: float
    within_log_sd: float
    processes: int
    pairs: int
    floor: float


Noise = FlipNoise | TokenNoise | TimingNoise

MIN_PROCESSES = 3
"""Pairs of processes: the variance of fewer says nothing."""


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


def timing_noise(
    processes: Sequence[tuple[Measurement, Measurement]], pairs: int, confidence: float
) -> tuple[TimingNoise, ...]:
    """The noise of every timing metric, by batch size and load.

    Of single times, the median of a block is looked at.  What fewer than `MIN_PROCESSES` pairs of processes measured
    in two pairs of blocks or more is left out; so are blocks that stayed disturbed, and values of 0 (no request was
    good).

    Args:
        processes: both roles' blocks of one pair of processes each; both roles are the same model.
        pairs: of blocks that a run plans.

    Raises:
        CouldNotMeasure: nothing was timed often enough.
    """
    ratios: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for baseline, again in processes:
        left, right = _blocks(baseline), _blocks(again)
        for key in sorted(left.keys() & right.keys()):
            shared = sorted(left[key].keys() & right[key].keys())
            if len(shared) > 1:
                ratios[key].append([math.log(right[key][i] / left[key][i]) for i in shared])
    found = [
        _between(metric, group, logs, pairs, confidence)
        for (metric, group), logs in ratios.items()
        if len(logs) >= MIN_PROCESSES
    ]
    if not found:
        raise CouldNotMeasure(
            f"found {len(processes)} pairs of processes and no metric that {MIN_PROCESSES} of them timed in "
            "2 undisturbed pairs of blocks, which it takes to know how much processes differ: calibrate on a quiet "
            "machine"
        )
    return tuple(found)


def observed(noises: Sequence[Noise]) -> tuple[Observation, ...]:
    """The noise of timings as a measurement of the baseline carries it, for those who judge it."""
    return tuple(
        Observation(
            metric="between_process_log_sd",
            item_id=f"calibrated/{noise.metric}",
            value=noise.between_log_sd,
            weight=float(noise.processes),
            cluster=None,
            group=noise.group,
        )
        for noise in noises
        if isinstance(noise, TimingNoise)
    )


_TIMED = (Estimand.TIMING, Estimand.QUANTILE)


def _blocks(measurement: Measurement) -> dict[tuple[str, str], dict[str, float]]:
    """(observed metric, group) → undisturbed block → its value, or the median of its single times; positive alone."""
    timed = {m.observed for m in measurement.metrics if m.estimand in _TIMED}
    seen = conditions.of_blocks(measurement)
    disturbed = {item_id for item_id, found in seen.items() if conditions.disturbance(found) is not None}
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for o in measurement.observations:
        block = "/".join(o.item_id.split("/")[:2])
        counts = o.metric in timed and o.group is not None and o.value > 0
        if counts and block.startswith("block/") and block not in disturbed:
            values[o.metric, o.group or ""][block].append(o.value)
    return {key: {block: median(some) for block, some in blocks.items()} for key, blocks in values.items()}


def _between(metric: str, group: str, logs: Sequence[Sequence[float]], pairs: int, confidence: float) -> TimingNoise:
    means = [math.fsum(some) / len(some) for some in logs]
    variances = [variance(some) for some in logs]
    within = math.fsum(variances) / len(variances)
    of_means = math.fsum(v / len(some) for v, some in zip(variances, logs, strict=True)) / len(logs)
    between = max(0.0, variance(means) - of_means)
    return TimingNoise(
        metric=metric,
        group=group,
        between_log_sd=math.sqrt(between),
        within_log_sd=math.sqrt(within),
        processes=len(logs),
        pairs=sum(map(len, logs)),
        floor=math.expm1(resolution_factor(confidence) * math.sqrt(between + within / pairs)),
    )


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
    of_one = math.fsum(sums[k] ** 2 / tokens[k] for k in tokens) / (len(tokens) - 1)
    return TokenNoise(
        metric=metric.name,
        token_sd_nats=math.sqrt(of_one),
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
