"""One rule and two measurements → one finding.  The only place where a number becomes a status.

Pure.  Never raises for bad evidence: what is missing, empty or does not fit is an ERROR finding with its reason.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from gate.decide import (
    documents,
    fixed_n,
    group_sequence,
    guard_rail,
    items,
    looks,
    prefix,
    runs,
    scores,
    sequential,
    stoppable,
    timing_judge,
)
from gate.decide.combine import REACHED
from gate.decide.estimate import (
    check_above_chance,
    points_against,
)
from gate.decide.lineup import lineup
from gate.decide.pairing import LostItems, Pairs, alone, pair
from gate.decide.terms import Terms
from gate.decide.unjudged import error, skipped
from gate.errors import CouldNotMeasure
from gate.metrics import BOUNDS
from gate.records import (
    Estimand,
    Finding,
    Measurement,
    Metric,
    Role,
    Rule,
    Scope,
    Status,
)


def judge(rule: Rule, baseline: Measurement | None, candidate: Measurement | None, terms: Terms) -> Finding:
    """What the measurements say of the rule.

    `min` and `max` look at the candidate alone; every other bound needs both roles.
    """
    terms = terms.of(rule)
    try:
        found = _judge(rule, baseline, candidate, terms)
        if found.baseline is None and rule.bound.kind in items.ABSOLUTE and not found.members:
            return replace(found, baseline=_for_comparison(rule, baseline, terms))
        return found
    except LostItems as problem:
        return error(rule, str(problem), n_paired=problem.n_paired, n_lost=problem.n_lost)
    except CouldNotMeasure as problem:
        return error(rule, str(problem))


def _for_comparison(rule: Rule, baseline: Measurement | None, terms: Terms) -> float | None:
    """The baseline's own value beside a candidate-only rule, where it was measured; it decides nothing."""
    if baseline is None:
        return None
    try:
        return _judge(rule, None, replace(baseline, role=Role.CANDIDATE), terms).candidate
    except CouldNotMeasure:
        return None


def _judge(rule: Rule, baseline: Measurement | None, candidate: Measurement | None, terms: Terms) -> Finding:
    if candidate is None:
        raise CouldNotMeasure(f"{rule.source}: the candidate was not measured")
    if rule.bound.kind not in items.ABSOLUTE and baseline is None:
        raise CouldNotMeasure(f"{rule.source}: the baseline was not measured")
    for measurement in (baseline, candidate):
        if measurement is not None and (measurement.stage, measurement.source) != (rule.stage, rule.source):
            raise CouldNotMeasure(
                f"found a measurement of {measurement.stage}/{measurement.source}, expected {rule.stage}/{rule.source}"
            )
    plan = looks.planned(candidate if baseline is None else baseline)
    if plan or looks.planned(candidate):
        return _at_looks(rule, baseline, candidate, plan, terms)
    metric = metric_of(rule, candidate)
    if baseline is not None and stoppable.applies(rule, metric, baseline, terms):
        check_guessing(rule, baseline, metric)
        return sequential.judge(rule, baseline, candidate, metric, terms)
    if metric.estimand in (Estimand.TIMING, Estimand.QUANTILE):
        return timing_judge.judge(rule, baseline, candidate, metric, terms)
    if candidate.n_reached < candidate.n_expected and not runs.read_once(metric):
        return _of_those_reached(rule, baseline, candidate, metric, terms)
    return _whole(rule, baseline, candidate, metric, terms)


def _whole(rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric, terms: Terms) -> Finding:
    """Judged once, on everything that was expected."""
    if rule.by is not None and metric.estimand is not Estimand.ITEM_MEAN:
        raise CouldNotMeasure(f"{metric.name} is no mean over items, so it cannot be judged by {rule.by}: remove `by`")
    if metric.estimand is Estimand.SCALAR:
        return fixed_n.finding(rule, runs.scalar(rule, baseline, candidate, metric, terms.confidence), terms)
    if metric.estimand is Estimand.CORPUS:
        beside = None if rule.bound.kind in items.ABSOLUTE else baseline
        return fixed_n.finding(rule, scores.estimate(rule, beside, candidate, metric, terms.confidence), terms)
    pairs = _pairs(rule, baseline, candidate, metric)
    match metric.estimand:
        case Estimand.PERPLEXITY | Estimand.TOKEN_MEAN:
            return fixed_n.finding(rule, documents.estimate(rule, pairs, terms.confidence), terms)
        case Estimand.MEAN_RATIO:
            return fixed_n.finding(rule, items.ratio_estimate(rule, pairs, terms.confidence), terms)
        case _ if rule.by is not None:
            return _by_group(rule, baseline, candidate, metric, pairs, terms)
    if baseline is not None:
        check_guessing(rule, baseline, metric)
    found = fixed_n.finding(rule, items.estimate(rule, pairs, terms.confidence), terms)
    if found.n_paired < 2 and found.status is Status.PASS:
        return replace(found, status=Status.INCONCLUSIVE, reason=f"one item shows nothing: {found.reason}")
    finer = rule.scope is Scope.BENCHMARK and rule.bound.kind not in items.ABSOLUTE
    return replace(found, reason=f"{found.reason}; {_FINER}") if finer else found


_FINER = "the bound is finer than one item of this sample, so it is judged as for tasks like these (population scope)"


def check_guessing(rule: Rule, baseline: Measurement, metric: Metric) -> None:
    """Raises CouldNotMeasure where a candidate that guesses would pass (`estimate.check_above_chance`)."""
    values = [o.value for o in baseline.observations if o.metric == metric.observed]
    if baseline.chance is not None and values and metric.name.partition(",")[0] in _GUESSED:
        check_above_chance(rule, math.fsum(values) / len(values), baseline.chance)


_GUESSED = frozenset({"acc", "acc_norm", "accuracy"})
"""The metrics whose value for random answers is the measurement's `chance`."""


def _of_those_reached(
    rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric, terms: Terms
) -> Finding:
    """A rule that needs all items, when measuring was stopped before: told, and never decided by those reached."""
    if metric.estimand is Estimand.CORPUS:
        said = f"measured {candidate.n_reached} of {candidate.n_expected} items, and {metric.name} needs all of them"
        return skipped(rule, said)
    beside, reached = prefix.cut(baseline, candidate)
    if rule.by is not None and terms.order_seed is not None:
        return _whole(rule, beside, reached, metric, terms)  # valid at every look
    return prefix.undecided(_whole(rule, beside, reached, metric, terms), candidate)


def _at_looks(
    rule: Rule, baseline: Measurement | None, candidate: Measurement, plan: tuple[int, ...], terms: Terms
) -> Finding:
    """Judged at each planned look in turn, at a K-th of the error each, until one decides."""
    looks.check(looks.planned(candidate), plan)
    sizes = looks.looks(candidate)
    looks.check(sizes, plan)
    if not sizes:
        raise CouldNotMeasure(f"{rule.source}: not even the first planned look ({plan[0]:,} tokens) was completed")
    k = len(plan)
    each = replace(
        terms,
        confidence=looks.level(terms.confidence, k),
        fail_confidence=looks.level(terms.fail_confidence, k),
    )
    p: float | None = None
    for size in sizes:
        metric = metric_of(rule, candidate)
        beside = None if baseline is None else looks.at(baseline, size)
        found = _whole(rule, beside, looks.at(candidate, size), metric, each)
        if found.p_value is not None:
            p = min(1.0, k * found.p_value, 1.0 if p is None else p)
        if found.status is not Status.INCONCLUSIVE:
            break
    number = sizes.index(size) + 1
    counts = {**found.counts, "look": number, "looks": k}
    if number < k and found.status is Status.INCONCLUSIVE:
        counts[REACHED] = found.n_paired
    interval = found.interval
    return replace(
        found,
        interval=None if interval is None else replace(interval, valid="planned_looks"),
        p_value=p,
        counts=counts,
        reason=f"at look {number} of {k} ({size:,} tokens): {found.reason}",
    )


_NOTES_LIMIT = 600
"""Characters of a stage's notes that the reason of a missing metric carries."""


def metric_of(rule: Rule, candidate: Measurement) -> Metric:
    """The metric that the rule is about, as the candidate reported it.

    Raises:
        CouldNotMeasure: it did not, or the bound does not fit the metric.
    """
    metric = next((m for m in candidate.metrics if m.name == rule.metric), None)
    if metric is None:
        runs.check_visible(rule.metric, candidate)
        runs.check_on_device(rule.metric, candidate)
        known = ", ".join(m.name for m in candidate.metrics if m.estimand is not Estimand.DESCRIPTION) or "nothing"
        said = "".join(f"; {note.rstrip('.')}" for note in candidate.notes)
        if len(said) > _NOTES_LIMIT:
            said = said[: _NOTES_LIMIT - 1] + "…"
        raise CouldNotMeasure(f"{rule.source} did not report {rule.metric!r}, it reported {known}{said}")
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


# -- several groups ---------------------------------------------------------------------------------------


def _by_group(
    rule: Rule,
    baseline: Measurement | None,
    candidate: Measurement,
    metric: Metric,
    pairs: Pairs,
    terms: Terms,
) -> Finding:
    """Families of groups: by e-values where items came one after the other and could be stopped, else by p-values."""

    def fixed(group: str) -> guard_rail.Judged:
        lenient = replace(rule, max_lost=guard_rail.ANY_NUMBER)
        e = items.estimate(lenient, guard_rail.only(pairs, group), terms.confidence)
        return guard_rail.Judged(
            baseline=e.baseline,
            candidate=e.candidate,
            value=e.value,
            interval=fixed_n.interval_of(rule, e, terms),
            p_value=fixed_n.p_of(rule, e),
            counts=e.counts,
            n_paired=e.n_paired,
            detectable=e.detectable,
        )

    judged_of = fixed
    if terms.order_seed is not None and baseline is not None:
        line = lineup(baseline, candidate, metric, terms.order_seed)
        judged_of = partial(group_sequence.judged, rule, line, terms)
    found = guard_rail.family(rule, pairs, judged_of, terms)
    if found.status is Status.ERROR:
        failed = error(rule, found.reason, n_paired=len(pairs.paired), n_lost=pairs.n_lost)
        return replace(failed, members=found.members)
    worst = found.worst
    return Finding(
        rule=rule,
        status=found.status,
        baseline=worst.baseline,
        candidate=worst.candidate,
        estimate=worst.value,
        interval=worst.interval,
        p_value=found.p_value,
        counts=worst.counts,
        n_paired=len(pairs.paired),
        n_lost=pairs.n_lost,
        n_needed=None,
        detectable=worst.detectable,
        members=found.members,
        reason=found.reason,
    )
