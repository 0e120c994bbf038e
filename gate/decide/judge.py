"""One rule and two measurements → one finding.  The only place where a number becomes a status.

Pure.  Never raises for bad evidence: what is missing, empty or does not fit is an ERROR finding with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gate.decide import documents, guard_rail, items, runs, scores
from gate.decide.estimate import NOUN, Estimate, decide, harm, margin, n_needed, points_against
from gate.decide.pairing import LostItems, Pairs, alone, pair
from gate.errors import CouldNotMeasure
from gate.metrics import BOUNDS
from gate.records import (
    Estimand,
    Finding,
    Interval,
    Measurement,
    Member,
    Metric,
    Role,
    Rule,
    Scope,
    Status,
)

_WORST_FIRST = (Status.ERROR, Status.REGRESSION, Status.INCONCLUSIVE, Status.PASS)


def judge(rule: Rule, baseline: Measurement | None, candidate: Measurement | None, confidence: float) -> Finding:
    """What the measurements say of the rule, each side of the interval at one-sided `confidence`.

    `min` and `max` look at the candidate alone; every other bound needs both roles.
    """
    try:
        found = _judge(rule, baseline, candidate, confidence)
        if found.baseline is None and rule.bound.kind in items.ABSOLUTE and not found.members:
            return replace(found, baseline=_for_comparison(rule, baseline, confidence))
        return found
    except LostItems as problem:
        return _error(rule, str(problem), n_paired=problem.n_paired, n_lost=problem.n_lost)
    except CouldNotMeasure as problem:
        return _error(rule, str(problem))


def _for_comparison(rule: Rule, baseline: Measurement | None, confidence: float) -> float | None:
    """The baseline's own value beside a candidate-only rule, where it was measured; it decides nothing."""
    if baseline is None:
        return None
    try:
        return _judge(rule, None, replace(baseline, role=Role.CANDIDATE), confidence).candidate
    except CouldNotMeasure:
        return None


def could_not_measure(rule: Rule, reason: str) -> Finding:
    """The ERROR finding of a rule whose evidence never came to be."""
    return _error(rule, reason)


def skipped(rule: Rule, reason: str) -> Finding:
    """The SKIPPED finding of a rule that an earlier rule of its stage made pointless to measure."""
    return _without_evidence(rule, Status.SKIPPED, reason, 0, 0)


def _judge(rule: Rule, baseline: Measurement | None, candidate: Measurement | None, confidence: float) -> Finding:
    if candidate is None:
        raise CouldNotMeasure(f"{rule.source}: the candidate was not measured")
    if rule.bound.kind not in items.ABSOLUTE and baseline is None:
        raise CouldNotMeasure(f"{rule.source}: the baseline was not measured")
    metric = _metric(rule, candidate)
    for measurement in (baseline, candidate):
        if measurement is not None and (measurement.stage, measurement.source) != (rule.stage, rule.source):
            raise CouldNotMeasure(
                f"found a measurement of {measurement.stage}/{measurement.source}, expected {rule.stage}/{rule.source}"
            )
    if rule.by is not None and metric.estimand is not Estimand.ITEM_MEAN:
        raise CouldNotMeasure(f"{metric.name} is no mean over items, so it cannot be judged by {rule.by}: remove `by`")
    if metric.estimand in (Estimand.TIMING, Estimand.SCALAR):
        return _by_batch(rule, baseline, candidate, metric, confidence)
    if metric.estimand is Estimand.CORPUS:
        beside = None if rule.bound.kind in items.ABSOLUTE else baseline
        return _finding(rule, scores.estimate(rule, beside, candidate, metric, confidence), confidence)
    pairs = _pairs(rule, baseline, candidate, metric)
    match metric.estimand:
        case Estimand.PERPLEXITY | Estimand.TOKEN_MEAN:
            return _finding(rule, documents.estimate(rule, pairs, confidence), confidence)
        case Estimand.MEAN_RATIO:
            return _finding(rule, items.ratio_estimate(rule, pairs, confidence), confidence)
        case _ if rule.by is None:
            return _finding(rule, items.estimate(rule, pairs, confidence), confidence)
        case _:
            return _by_group(rule, pairs, confidence)


def _metric(rule: Rule, candidate: Measurement) -> Metric:
    metric = next((m for m in candidate.metrics if m.name == rule.metric), None)
    if metric is None:
        known = ", ".join(m.name for m in candidate.metrics) or "nothing"
        raise CouldNotMeasure(
            f"{rule.source} did not report {rule.metric!r}, it reported {known}"
            + "".join(f"; {note}" for note in candidate.notes)
        )
    if rule.bound.kind not in BOUNDS[metric.estimand]:
        fitting = ", ".join(sorted(BOUNDS[metric.estimand]))
        raise CouldNotMeasure(f"{rule.bound.kind} does not fit {metric.name}, expected one of {fitting}")
    problem = points_against(metric, rule.bound.kind)
    if problem is not None:
        raise CouldNotMeasure(problem)
    return metric


def _pairs(rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric) -> Pairs:
    needs_both = rule.bound.kind not in items.ABSOLUTE or metric.estimand is Estimand.MEAN_RATIO
    if not needs_both:
        return alone(candidate, metric)
    if baseline is None:
        raise CouldNotMeasure(f"{rule.source}: the baseline was not measured")
    if metric not in baseline.metrics:
        raise CouldNotMeasure(f"{rule.source}: the baseline did not report {metric.name} as the candidate did")
    return pair(baseline, candidate, metric)


# -- one estimate -----------------------------------------------------------------------------------------


def _finding(rule: Rule, e: Estimate, confidence: float) -> Finding:
    interval = _interval(e, confidence)
    limits = (interval.low, interval.high)
    status = Status.INCONCLUSIVE if e.undecidable else decide(limits, rule.bound)
    needed = n_needed(e, limits, rule.bound, confidence) if status is Status.INCONCLUSIVE else None
    return Finding(
        rule=rule,
        status=status,
        baseline=e.baseline,
        candidate=e.candidate,
        estimate=e.value,
        interval=interval,
        counts=e.counts,
        n_paired=e.n_paired,
        n_lost=e.n_lost,
        n_needed=needed,
        detectable=e.detectable,
        members=(),
        reason="; ".join((_reason(rule, status, e, confidence), *e.cautions)),
    )


def _interval(e: Estimate, confidence: float) -> Interval:
    low, high = e.limits(confidence)
    return Interval(low=low, high=high, confidence=confidence, method=e.method, scope=Scope.POPULATION, valid="fixed_n")


def _reason(rule: Rule, status: Status, e: Estimate, confidence: float) -> str:
    noun, bound = NOUN[rule.bound.kind], rule.bound.text
    if e.undecidable:
        return f"nothing can be concluded: {e.undecidable}"
    if status is Status.PASS:
        return f"the {noun} keeps the bound {bound} over its whole interval ({100 * confidence:g}% on each side)"
    if status is Status.REGRESSION:
        return f"the {noun} is beyond the bound {bound} over its whole interval ({100 * confidence:g}% on each side)"
    text = f"the interval of the {noun} holds values on both sides of the bound {bound}"
    if e.best is not None and harm(rule.bound.kind, rule.bound.value) <= harm(rule.bound.kind, e.best):
        return f"{text}; no finite sample can show that a bound of {bound} is kept: give it some room"
    return text


# -- several groups ---------------------------------------------------------------------------------------


def _by_group(rule: Rule, pairs: Pairs, confidence: float) -> Finding:
    found = guard_rail.family(rule, pairs, items.estimate, lambda e: _interval(e, confidence), confidence)
    if found.status is Status.ERROR:
        error = _error(rule, found.reason, n_paired=len(pairs.paired), n_lost=pairs.n_lost)
        return replace(error, members=found.members)
    worst = found.worst
    return Finding(
        rule=rule,
        status=found.status,
        baseline=worst.baseline,
        candidate=worst.candidate,
        estimate=worst.value,
        interval=_interval(worst, confidence),
        counts=worst.counts,
        n_paired=len(pairs.paired),
        n_lost=pairs.n_lost,
        n_needed=None,
        detectable=worst.detectable,
        members=found.members,
        reason=found.reason,
    )


def _by_batch(
    rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric, confidence: float
) -> Finding:
    """The worst batch size decides; the others are its members."""
    estimate_of = runs.timing if metric.estimand is Estimand.TIMING else runs.scalar
    beside = None if rule.bound.kind in items.ABSOLUTE else baseline
    if beside is not None and metric not in beside.metrics:
        raise CouldNotMeasure(f"{rule.source}: the baseline did not report {metric.name} as the candidate did")
    judged: list[_Batch] = []
    for group in runs.batches(rule, beside, candidate, metric):
        try:
            e = estimate_of(rule, beside, candidate, metric, group, confidence)
            judged.append(_Batch(group=group or "", finding=_finding(rule, e, confidence)))
        except LostItems as problem:
            found = _error(rule, str(problem), n_paired=problem.n_paired, n_lost=problem.n_lost)
            judged.append(_Batch(group=group or "", finding=found))
        except CouldNotMeasure as problem:
            judged.append(_Batch(group=group or "", finding=_error(rule, str(problem))))
    return _worst(judged)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    group: str
    finding: Finding


def _worst(judged: Sequence[_Batch]) -> Finding:
    ranked = sorted(judged, key=_badness)
    worst = ranked[0].finding
    if len(ranked) == 1:
        return worst
    members = tuple(
        Member(
            group=b.group,
            baseline=b.finding.baseline,
            candidate=b.finding.candidate,
            estimate=b.finding.estimate,
            interval=b.finding.interval,
            n_paired=b.finding.n_paired,
            status=b.finding.status,
        )
        for b in ranked
    )
    return replace(worst, members=members, reason=f"{ranked[0].group}, the worst of {len(ranked)}: {worst.reason}")


def _badness(batch: _Batch) -> tuple[int, float]:
    f = batch.finding
    if f.estimate is None or f.interval is None:
        return _WORST_FIRST.index(f.status), 0.0
    return _WORST_FIRST.index(f.status), -margin(f.estimate, (f.interval.low, f.interval.high), f.rule.bound)


# -- no evidence ------------------------------------------------------------------------------------------


def _error(rule: Rule, reason: str, *, n_paired: int = 0, n_lost: int = 0) -> Finding:
    return _without_evidence(rule, Status.ERROR, reason, n_paired, n_lost)


def _without_evidence(rule: Rule, status: Status, reason: str, n_paired: int, n_lost: int) -> Finding:
    return Finding(
        rule=rule,
        status=status,
        baseline=None,
        candidate=None,
        estimate=None,
        interval=None,
        counts={},
        n_paired=n_paired,
        n_lost=n_lost,
        n_needed=None,
        detectable=None,
        members=(),
        reason=reason,
    )
