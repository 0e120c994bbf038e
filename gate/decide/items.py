"""Rules on item scores: accuracy and its like, against the baseline or absolute; and ratios of item means.

Pure.  Lost items take both extremes: what is concluded must hold whatever they would have been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gate.decide.estimate import Estimate, Span, check_can_fail, hull, resolution_factor, span
from gate.decide.pairing import Pairs, check_lost, lost_text
from gate.errors import CouldNotMeasure
from gate.records import BoundKind, Rule, Scope
from gate.stats import bounded, cluster, mean_ratio, nam_blackwelder, tango, wald, wilson
from gate.stats.quantiles import small_sample, z

_NOTHING = 1e-9
"""A baseline mean below this retains nothing: ratios to it are noise."""

ABSOLUTE = frozenset({BoundKind.MAX, BoundKind.MIN})


class Row(NamedTuple):
    baseline: float
    candidate: float
    cluster: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One way the items may have come out: as measured, or with the lost ones at an extreme."""

    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    clusters: tuple[str, ...]
    binary: bool
    studentized: bool
    n: int
    both: int
    lost: int
    gained: int


def estimate(rule: Rule, pairs: Pairs, confidence: float) -> Estimate:
    """Judge-ready evidence on an item mean.

    `max_drop`: Tango, and the stricter of Tango and Wald before it is a failure; `min_retained`: Nam–Blackwelder
    likewise; `min`, `max`: Wilson.  Values that are not all 0 or 1: the wider of the bounded score interval and t.
    Population scope with several items per cluster: the wider of that and the cluster-robust interval.  A single
    cluster is one benchmark and counts as unclustered.

    Raises:
        CouldNotMeasure: too many lost, a value outside [0, 1], nothing to retain, or a bound that nothing could break.
    """
    check_lost(pairs, rule.max_lost)
    _check_range(pairs)
    kind = rule.bound.kind
    rows = [Row(p.baseline, p.candidate, p.cluster or f"item {i}") for i, p in enumerate(pairs.paired)]
    clustered = rule.scope is Scope.POPULATION and 1 < len({r.cluster for r in rows}) < len(rows)
    samples = [_sample(r, clustered) for r in (rows, *_extremes(rows, pairs, kind))]
    measured = samples[0]
    n = measured.n
    baseline, candidate = math.fsum(measured.baseline) / n, math.fsum(measured.candidate) / n
    # The least that the baseline may score: a pass must hold whatever the lost items would have been.
    least = min(math.fsum(s.baseline) / s.n for s in samples)
    check_can_fail(rule, None if kind in ABSOLUTE else least)
    if kind is BoundKind.MIN_RETAINED and baseline < _NOTHING:
        raise CouldNotMeasure(
            f"{pairs.metric.name}: the baseline scored {baseline:g} over all {n} items, so nothing can be retained and "
            "nothing can be said of the candidate: fix the template, the matcher or the task"
        )
    flips = math.fsum((c - b) ** 2 for b, c in zip(measured.baseline, measured.candidate, strict=True)) / n
    scale: float | None
    match kind:
        case BoundKind.MAX_DROP:
            value, span_of, scale = baseline - candidate, _drop, 1.0
        case BoundKind.MIN_RETAINED:
            value, span_of, scale = candidate / baseline, _retained, baseline
        case _:
            value, span_of, scale = candidate, _absolute, None

    def limits(level: float) -> Span:
        return hull((value, value), *(span_of(s, level) for s in samples))

    resolved = None if scale is None else detectable(flips, n, confidence) / scale
    if resolved is not None and clustered:
        low, high = limits(confidence)
        resolved = max(resolved, resolution_factor(confidence) / z(confidence) * (high - low) / 2)
    return Estimate(
        baseline=None if kind in ABSOLUTE else baseline,
        candidate=candidate,
        value=value,
        limits=limits,
        method=_method(kind, measured),
        counts=_counts(kind, measured, pairs, flips),
        unit="items",
        n_paired=n,
        n_lost=pairs.n_lost,
        detectable=resolved,
        best=best_rate(kind),
        undecidable=None,
        cautions=(f"{lost_text(pairs)}; the interval covers whatever they were",) if pairs.n_lost else (),
    )


def ratio_estimate(rule: Rule, pairs: Pairs, confidence: float) -> Estimate:
    """Judge-ready evidence on candidate mean over baseline mean.  Raises CouldNotMeasure as `estimate`."""
    check_lost(pairs, rule.max_lost)
    baseline, candidate = [p.baseline for p in pairs.paired], [p.candidate for p in pairs.paired]
    n = len(pairs.paired)
    if n < 2 or min(*baseline, *candidate) < 0 or math.fsum(baseline) == 0:
        raise CouldNotMeasure(
            f"{pairs.metric.name}: found {n} items with a baseline total of {math.fsum(baseline):g}, expected at "
            "least two, no negative value and a baseline above 0"
        )
    result = mean_ratio.interval(baseline=baseline, candidate=candidate, confidence=confidence)
    return Estimate(
        baseline=result.baseline_total / n,
        candidate=result.candidate_total / n,
        value=result.estimate,
        limits=lambda level: span(mean_ratio.interval(baseline=baseline, candidate=candidate, confidence=level)),
        method="mean_ratio",
        counts={
            "n": n,
            "N": pairs.n_expected,
            "baseline_total": result.baseline_total,
            "candidate_total": result.candidate_total,
        },
        unit="items",
        n_paired=n,
        n_lost=pairs.n_lost,
        detectable=None,
        best=None,
        undecidable=f"{lost_text(pairs)} and could hold any value" if pairs.n_lost else None,
        cautions=(),
    )


def best_rate(kind: BoundKind) -> float | None:
    """The rate that a `min` or `max` rule would like best."""
    return {BoundKind.MIN: 1.0, BoundKind.MAX: 0.0}.get(kind)


def _check_range(pairs: Pairs) -> None:
    for p in pairs.paired:
        for value in (p.baseline, p.candidate):
            if not 0 <= value <= 1:
                raise CouldNotMeasure(
                    f"{pairs.metric.name}: found the value {value!r} on item {p.item_id!r}, expected 0 to 1 for a "
                    "mean over items: the stage must report another estimand or rescale"
                )


def _extremes(rows: Sequence[Row], pairs: Pairs, kind: BoundKind) -> tuple[list[Row], ...]:
    """The rows with every lost item at its most and at its least harmful; none when nothing was lost."""
    if not pairs.n_lost:
        return ()
    least = 1.0 if kind is BoundKind.MAX else 0.0  # the candidate's value that does most harm
    harmful, harmless = list(rows), list(rows)
    for number, item in enumerate(pairs.one_sided):
        where = item.cluster or f"one-sided {number}"
        for extreme, worst in ((harmful, least), (harmless, 1 - least)):
            extreme.append(
                Row(
                    1 - worst if item.baseline is None else item.baseline,
                    worst if item.candidate is None else item.candidate,
                    where,
                )
            )
    for number in range(pairs.n_unseen):
        harmful.append(Row(1 - least, least, f"unseen {number}"))
        harmless.append(Row(least, 1 - least, f"unseen {number}"))
    return harmful, harmless


def _sample(rows: Sequence[Row], clustered: bool) -> Sample:
    baseline, candidate, clusters = zip(*rows, strict=True)
    binary = all(v in (0, 1) for v in (*baseline, *candidate))
    return Sample(
        baseline=baseline,
        candidate=candidate,
        # Outside a cluster-robust interval every item is its own cluster.
        clusters=clusters if clustered else tuple(f"item {i}" for i in range(len(rows))),
        binary=binary,
        studentized=clustered or not (binary or len(rows) < 2),
        n=len(rows),
        both=sum(b == 1 == c for b, c, _ in rows),
        lost=sum(b > c for b, c, _ in rows),
        gained=sum(c > b for b, c, _ in rows),
    )


def _drop(sample: Sample, confidence: float) -> Span:
    differences = [b - c for b, c in zip(sample.baseline, sample.candidate, strict=True)]
    if sample.binary:
        # Mirrored: with roles swapped, Tango's "candidate − baseline" is the drop.
        b, c, n = sample.gained, sample.lost, sample.n
        score = tango.interval(lost=b, gained=c, n=n, confidence=small_sample(confidence, n))
        low, high = min(score.low, wald.interval(lost=b, gained=c, n=n, confidence=confidence).low), score.high
    else:
        level = small_sample(confidence, sample.n)
        low, high = span(bounded.mean(values=differences, smallest=-1, largest=1, confidence=level))
    if sample.studentized:
        robust = span(cluster.mean(values=differences, clusters=sample.clusters, confidence=confidence))
        low, high = hull((low, high), robust)
    return max(low, -1.0), min(high, 1.0)


def _retained(sample: Sample, confidence: float) -> Span:
    if sample.binary:
        a, b, c, n = sample.both, sample.lost, sample.gained, sample.n
        score = nam_blackwelder.interval(both=a, lost=b, gained=c, n=n, confidence=small_sample(confidence, n))
        other = wald.retention(both=a, lost=b, gained=c, n=n, confidence=confidence)
        low, high = score.low, max(score.high, other.high)
    else:
        level = small_sample(confidence, sample.n)
        low, high = span(bounded.retention(baseline=sample.baseline, candidate=sample.candidate, confidence=level))
    if sample.studentized:
        robust = cluster.retention(
            baseline=sample.baseline, candidate=sample.candidate, clusters=sample.clusters, confidence=confidence
        )
        low, high = hull((low, high), span(robust))
    return low, high


def _absolute(sample: Sample, confidence: float) -> Span:
    if all(v in (0, 1) for v in sample.candidate):
        successes = round(math.fsum(sample.candidate))
        low, high = span(wilson.interval(successes=successes, n=sample.n, confidence=confidence))
    else:
        level = small_sample(confidence, sample.n)
        low, high = span(bounded.mean(values=sample.candidate, smallest=0, largest=1, confidence=level))
    if sample.studentized:
        robust = span(cluster.mean(values=sample.candidate, clusters=sample.clusters, confidence=confidence))
        low, high = hull((low, high), robust)
    return max(low, 0.0), min(high, 1.0)


def _method(kind: BoundKind, sample: Sample) -> str:
    match kind:
        case BoundKind.MAX_DROP:
            names = ["tango", "wald"] if sample.binary else ["bounded"]
            robust = "cluster_t"
        case BoundKind.MIN_RETAINED:
            names = ["nam_blackwelder", "wald_ratio"] if sample.binary else ["bounded_ratio"]
            robust = "cluster_ratio"
        case _:
            names, robust = ["wilson"] if sample.binary else ["bounded"], "cluster_t"
    return "+".join([*names, robust] if sample.studentized else names)


def _counts(kind: BoundKind, sample: Sample, pairs: Pairs, flips: float) -> dict[str, float]:
    counts: dict[str, float] = {"n": sample.n, "N": pairs.n_expected}
    if kind in ABSOLUTE:
        counts["candidate_total"] = math.fsum(sample.candidate)
    elif sample.binary:
        counts |= {"a": sample.both, "b": sample.lost, "c": sample.gained}
    else:
        counts |= {
            "b": sample.lost,
            "c": sample.gained,
            "baseline_total": math.fsum(sample.baseline),
            "candidate_total": math.fsum(sample.candidate),
            "mean_squared_difference": flips,
        }
    if len(set(sample.clusters)) < sample.n:
        counts["G"] = len(set(sample.clusters))
    return counts


def detectable(flips: float, n: int, confidence: float) -> float:
    """(z_conf + z_power)·√(f/n), but no less than what zero flips leave open, z²/(n + z²)."""
    q2 = z(confidence) ** 2
    return max(resolution_factor(confidence) * math.sqrt(flips / n), q2 / (n + q2))
