"""One group of a guard rail under the sequential rule, in population scope: an e-value that holds at every look.

Pure.  A group never decides when its stage stops, so its evidence ends wherever the stage's own rules let it end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gate.decide.estimate import Span
from gate.decide.guard_rail import Judged
from gate.decide.lineup import Entry, Lineup
from gate.decide.stoppable import bound_of
from gate.decide.terms import Terms
from gate.errors import CouldNotMeasure
from gate.records import BoundKind, Interval, Rule, Scope
from gate.stats import betting, confidence_sequence
from gate.stats.betting import SMALLEST_GAP, Floats, Test


def judged(rule: Rule, found: Lineup, terms: Terms, group: str) -> Judged:
    """What the items of `group` reached so far say; lost ones take both extremes.

    Raises:
        CouldNotMeasure: none of them was measured, or there is nothing to retain.
    """
    everyone = [e for e in found.entries if _may_belong(e, group)]
    reached = [e for e in found.entries[: found.reached] if _may_belong(e, group)]
    paired = [(e.baseline, e.candidate) for e in reached if e.baseline is not None and e.candidate is not None]
    if not paired:
        raise CouldNotMeasure(f"no item of {group} was measured")
    known = [e.baseline for e in everyone if e.baseline is not None]
    mean = math.fsum(known) / len(known)
    test, weight, shift, sign = _test(rule, len(everyone), mean)
    worst = 0.0 if sign > 0 else 1.0
    low = _differences(reached, sign, weight, candidate=worst, baseline=1.0)
    high = _differences(reached, sign, weight, candidate=1 - worst, baseline=0.0)
    b = math.fsum(x for x, _ in paired) / len(paired)
    c = math.fsum(y for _, y in paired) / len(paired)
    d_low = confidence_sequence.low(test=test, differences=low, confidence=terms.confidence)
    d_high = confidence_sequence.high(test=test, differences=high, confidence=terms.fail_confidence)
    middle = math.fsum(sign * (y - weight * x) for x, y in paired) / len(paired)
    d_low, d_high = confidence_sequence.ordered(test=test, low=d_low, high=d_high, estimate=middle)
    scale = mean if rule.bound.kind is BoundKind.MIN_RETAINED else 1.0
    ends: Span = (shift + sign * d_low / scale, shift + sign * d_high / scale)
    if rule.bound.kind is BoundKind.MAX_DROP:
        ends = (-d_high, -d_low)
    value = {
        BoundKind.MAX_DROP: b - c,
        BoundKind.MIN_RETAINED: c / b if b else 0.0,
    }.get(rule.bound.kind, c)
    return Judged(
        baseline=None if rule.bound.kind in (BoundKind.MIN, BoundKind.MAX) else b,
        candidate=c,
        value=value,
        interval=Interval(
            low=min(*ends, value),
            high=max(*ends, value),
            confidence=terms.confidence,
            fail_confidence=terms.fail_confidence,
            method="betting",
            scope=Scope.POPULATION,
            valid="anytime",
        ),
        p_value=betting.p_fail(betting.advance(betting.start(), test, high), test),
        counts={
            "n": len(reached),
            "N": len(everyone),
            "b": sum(y < x for x, y in paired),
            "c": sum(y > x for x, y in paired),
        },
        n_paired=len(paired),
        detectable=None,
    )


def _may_belong(entry: Entry, group: str) -> bool:
    """An item that neither role measured may belong to any group, so each group gets it."""
    return entry.group == group or (entry.baseline is None and entry.candidate is None)


def _test(rule: Rule, n: int, mean: float) -> tuple[Test, float, float, float]:
    """(test, weight of the baseline, what to add to d for the value, its sign)."""
    bound = bound_of(rule)
    match rule.bound.kind:
        case BoundKind.MAX_DROP:
            return betting.drop(scope=Scope.POPULATION, n=n, bound=bound, integral=False), 1.0, 0.0, 1.0
        case BoundKind.MIN_RETAINED:
            if mean <= 0 or bound > 1:
                raise CouldNotMeasure(
                    f"found a baseline of {mean:g} and a bound of {rule.bound.text}: nothing to retain"
                )
            test = betting.population_retention(n=n, bound=bound, baseline_mean=mean)
            return test, rule.bound.value, rule.bound.value, 1.0
    sign = -1.0 if rule.bound.kind is BoundKind.MAX else 1.0
    gap = max(min(rule.bound.value, 1 - rule.bound.value), SMALLEST_GAP)
    limit = int(sign) * bound * n
    test = Test(
        scope=Scope.POPULATION,
        n=n,
        fail_total=limit,
        pass_total=limit,
        mean=sign * rule.bound.value,
        gap=gap,
        integral=False,
    )
    return test, 0.0, 0.0, sign


def _differences(entries: Sequence[Entry], sign: float, weight: float, *, candidate: float, baseline: float) -> Floats:
    """d of each item, lost values at the given extremes."""
    values = [
        (candidate if e.candidate is None else e.candidate) - weight * (baseline if e.baseline is None else e.baseline)
        for e in entries
    ]
    return sign * np.array(values, dtype=np.float64)
