"""The quality score: the mean over tasks and data sets of the share of the baseline's accuracy that is kept.

Pure.  Decides nothing: an average hides what happens to single tasks, so it is only ever shown beside their rows.

Two kinds of interval, never mixed:

* Some source was stopped early: the score that the run over *all* items of every source would find (benchmark scope),
  from the confidence sequence of each stopped source at 1 − α/S, S sources, by the union bound.  The baseline is known
  on all items, so retention is linear in the mean difference, 1 + N·d̄/A, and so is the score; a source that was
  completed contributes its exact value.  It holds whenever the items stop.
* Every source was completed: then that score is known, and the interval is for tasks like these (population scope), at
  fixed n: the limits of each source, put together by the squares of their distances from the estimates [1, 2].
  Sources are independent of each other: they share no item.

References:
    [1] G. Zou, A. Donner, Statistics in Medicine 27 (2008) 1693–1702.
    [2] A. Donner, G. Zou, Statistical Methods in Medical Research 21 (2012) 347–359, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gate.decide.estimate import Span, hull, span
from gate.decide.reported import flip_counts, pooled_p_value
from gate.errors import CouldNotMeasure
from gate.records import Interval, Quality, Scope
from gate.stats import betting, bounded, cluster, confidence_sequence, nam_blackwelder
from gate.stats.quantiles import small_sample

BETS_SIZED_FOR = Fraction(3, 100)
"""The drop that the bets behind a confidence sequence are sized for; its validity does not depend on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceScores:
    """The scores of one metric (higher is better, each in [0, 1]) on one source; None for an item that was lost.

    Attributes:
        source: task or data set.
        baseline: (N,) on all items of the sample, in the order in which the candidate meets them.
        candidate: (t,) on the first t of them; t = N when it was asked all.
        clusters: (N,) what statistically depends on each other (subject, document), or None where nothing does.
    """

    source: str
    baseline: Sequence[float | None]
    candidate: Sequence[float | None]
    clusters: Sequence[str] | None

    @property
    def is_complete(self) -> bool:
        return len(self.candidate) == len(self.baseline)


def quality(sources: Sequence[SourceScores], confidence: float) -> Quality | None:
    """The score with each limit at one-sided `confidence`; None when there is no source to speak of.

    A lost item takes both extremes: the limits are those of the worst and of the best it could have been, the
    estimate leaves it out.

    Raises:
        CouldNotMeasure: a source without any item that both roles were scored on, with a baseline of zero (nothing to
            retain, and leaving it out would flatter), with more candidate than baseline scores, with clusters that do
            not fit, or with a score outside [0, 1].
    """
    if not sources:
        return None
    for source in sources:
        _check(source)
    worst, best = [_filled(s, worst=True) for s in sources], [_filled(s, worst=False) for s in sources]
    estimate = math.fsum(_retained(s) for s in map(_measured, sources)) / len(sources)
    complete = all(s.is_complete for s in sources)
    limits = _fixed if complete else _anytime
    low, high = hull((estimate, estimate), *(limits(filled, confidence) for filled in (worst, best)))
    return Quality(
        estimate=estimate,
        interval=Interval(
            low=max(low, 0.0),
            high=high,
            confidence=confidence,
            fail_confidence=confidence,
            method="mean_retained_fixed" if complete else "mean_retained_sequence",
            scope=Scope.POPULATION if complete else Scope.BENCHMARK,
            valid="fixed_n" if complete else "anytime",
        ),
        sources=tuple(s.source for s in sources),
        pooled_p_value=_pooled(sources),
    )


def _pooled(sources: Sequence[SourceScores]) -> float | None:
    counted = [flip_counts(s.baseline, s.candidate) for s in sources]
    flips = [c for c in counted if c is not None]
    return pooled_p_value(flips) if len(flips) == len(counted) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scores:
    """As `SourceScores`, nothing lost."""

    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    clusters: tuple[str, ...] | None

    @property
    def differences(self) -> list[float]:
        """(t,) candidate − baseline."""
        return [c - b for b, c in zip(self.baseline, self.candidate, strict=False)]


def _check(source: SourceScores) -> None:
    n, reached = len(source.baseline), len(source.candidate)
    if reached > n or (source.clusters is not None and len(source.clusters) != n):
        clusters = "no" if source.clusters is None else str(len(source.clusters))
        raise CouldNotMeasure(
            f"{source.source}: found {n} scores of the baseline, {reached} of the candidate and {clusters} clusters, "
            "expected the candidate's on the first of the baseline's items and a cluster for each, if any"
        )
    values = [v for v in (*source.baseline, *source.candidate) if v is not None]
    outside = [v for v in values if not 0 <= v <= 1]
    if outside:
        raise CouldNotMeasure(f"{source.source}: found the score {outside[0]!r}, expected 0 to 1 for the quality score")
    if not any(b is not None and c is not None for b, c in zip(source.baseline, source.candidate, strict=False)):
        raise CouldNotMeasure(f"{source.source}: found no item that both roles were scored on: no quality score")
    for scores in (_measured(source), _filled(source, worst=True), _filled(source, worst=False)):
        if math.fsum(scores.baseline) <= 0:
            raise CouldNotMeasure(
                f"{source.source}: the baseline scored 0 on its {n} items, so no share of it can be retained and there "
                "is no quality score: fix the template, the matcher or the task"
            )


def _measured(source: SourceScores) -> _Scores:
    """Without the lost items."""
    reached = len(source.candidate)
    pairs = [(b, c) for b, c in zip(source.baseline, source.candidate, strict=False)]
    paired = [(b, c) for b, c in pairs if b is not None and c is not None]
    later = [b for b in source.baseline[reached:] if b is not None]
    return _Scores(baseline=(*(b for b, _ in paired), *later), candidate=tuple(c for _, c in paired), clusters=None)


def _filled(source: SourceScores, *, worst: bool) -> _Scores:
    """Every lost score at its most, or at its least, harmful; items that the candidate has not reached are not lost."""
    b, c = (1.0, 0.0) if worst else (0.0, 1.0)
    return _Scores(
        baseline=tuple(b if v is None else float(v) for v in source.baseline),
        candidate=tuple(c if v is None else float(v) for v in source.candidate),
        clusters=None if source.clusters is None else tuple(source.clusters),
    )


def _retained(scores: _Scores) -> float:
    """1 + N·d̄/A, d̄ over the items reached, as far as that is possible: C/A once they are all."""
    return _possible(scores, math.fsum(scores.differences) / len(scores.candidate))


def _possible(scores: _Scores, mean: float) -> float:
    """1 + N·`mean`/A, between what the candidate keeps if it fails, or gets right, all that it has not reached."""
    n, total, kept = len(scores.baseline), math.fsum(scores.baseline), math.fsum(scores.candidate)
    return min(max(1 + n * mean / total, kept / total), (kept + n - len(scores.candidate)) / total)


def _anytime(sources: Sequence[_Scores], confidence: float) -> Span:
    """The union bound over all sources, also over those that were completed: which are is known only afterwards."""
    each = 1 - (1 - confidence) / len(sources)
    spans = [_sequence(s, each) for s in sources]
    return math.fsum(low for low, _ in spans) / len(spans), math.fsum(high for _, high in spans) / len(spans)


def _sequence(scores: _Scores, confidence: float) -> Span:
    n = len(scores.baseline)
    differences = np.array(scores.differences)
    if len(differences) == n:
        exact = _retained(scores)
        return exact, exact
    found = confidence_sequence.interval(
        test=betting.drop(scope=Scope.BENCHMARK, n=n, bound=BETS_SIZED_FOR, integral=_binary(scores)),
        differences=differences,
        low_confidence=confidence,
        high_confidence=confidence,
    )
    return _possible(scores, found.low), _possible(scores, found.high)


def _fixed(sources: Sequence[_Scores], confidence: float) -> Span:
    estimates = [_retained(s) for s in sources]
    spans = [_one_fixed(s, confidence) for s in sources]
    below = math.hypot(*(e - low for e, (low, _) in zip(estimates, spans, strict=True)))
    above = math.hypot(*(high - e for e, (_, high) in zip(estimates, spans, strict=True)))
    centre = math.fsum(estimates)
    return (centre - below) / len(sources), (centre + above) / len(sources)


def _one_fixed(scores: _Scores, confidence: float) -> Span:
    """As a `min_retained` rule in population scope: Nam–Blackwelder or its analogue for partial credit.

    With clusters, or with partial credit, the wider of it and the (cluster-)robust interval.
    """
    b, c, n = scores.baseline, scores.candidate, len(scores.baseline)
    level = small_sample(confidence, n)
    binary = _binary(scores)
    if binary:
        lost, gained = sum(x > y for x, y in zip(b, c, strict=True)), sum(y > x for x, y in zip(b, c, strict=True))
        both = round(math.fsum(b)) - lost
        limits = span(nam_blackwelder.interval(both=both, lost=lost, gained=gained, n=n, confidence=level))
    else:
        limits = span(bounded.retention(baseline=b, candidate=c, confidence=level))
    clusters = scores.clusters or ()
    if 1 < len(set(clusters)) < n:
        robust = cluster.retention(baseline=b, candidate=c, clusters=clusters, confidence=confidence)
    elif not binary and n > 1:
        robust = cluster.retention(baseline=b, candidate=c, clusters=range(n), confidence=confidence)
    else:
        return limits
    return hull(limits, span(robust))


def _binary(scores: _Scores) -> bool:
    return all(v in (0, 1) for v in (*scores.baseline, *scores.candidate))
