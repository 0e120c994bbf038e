"""Which rules can be settled before the last item, known before the candidate's first.

Pure.  Imports no numpy: plans ask it too.
"""

from __future__ import annotations

import math
from fractions import Fraction

from gate.decide import power
from gate.decide.terms import Terms
from gate.order import BLOCK_ITEMS
from gate.records import BoundKind, Estimand, Measurement, Metric, Rule, Scope
from gate.stats.quantiles import small_sample

FLIP_RATES = {"choice": 0.06, "generate": 0.10, "sampled": 0.28}
"""Share of items whose answer changes from right to wrong or back, by kind of task, where nothing was measured."""

WORTH_LOOKING_EARLY = 0.9
"""Planned power of the fixed-n test above which population scope may stop early (statistics.md §2)."""

_LARGEST_DENOMINATOR = 10**9
_SIDES = (BoundKind.MAX_DROP, BoundKind.MIN_RETAINED)


def applies(rule: Rule, metric: Metric, baseline: Measurement | None, terms: Terms) -> bool:
    """Whether this rule is judged block by block, known before the candidate's first item.

    Benchmark scope is, unless its bound is finer than one item: such a bound cannot be expressed in whole items, and
    would be passed by ten items without a flip.  Population scope is where items are not tied together in clusters and
    a lossless candidate would pass the fixed-n test with probability .9 or more: else all items are needed anyway.
    """
    if metric.estimand is not Estimand.ITEM_MEAN or rule.by is not None or baseline is None:
        return False
    if metric not in baseline.metrics:
        return False
    found = [o for o in baseline.observations if o.metric == metric.observed]
    if rule.scope is Scope.BENCHMARK:
        return room(rule, baseline.n_expected, math.fsum(o.value for o in found)) >= 1
    if terms.order_seed is None or rule.bound.kind not in _SIDES or rule.bound.value > 1:
        return False
    n = baseline.n_expected
    if n <= BLOCK_ITEMS:
        return False  # there is nothing to stop early
    clusters = {o.cluster for o in found}
    if 1 < len(clusters) < len(found) or not found:
        return False
    mean = math.fsum(o.value for o in found) / len(found)
    allowed = rule.bound.value if rule.bound.kind is BoundKind.MAX_DROP else (1 - rule.bound.value) * mean
    odds = power.lossless_pass(
        n=n,
        flip_rate=FLIP_RATES["generate" if baseline.chance is None else "choice"],
        drop=allowed,
        confidence=small_sample(1 - (1 - terms.confidence) / 2, n),
    )
    return allowed > 0 and odds >= WORTH_LOOKING_EARLY


def bound_of(rule: Rule) -> Fraction:
    """The bound as the policy wrote it: 0.027 is 27/1000, whatever the float."""
    return Fraction(rule.bound.value).limit_denominator(_LARGEST_DENOMINATOR)


def room(rule: Rule, n: int, total: float) -> Fraction:
    """How many items' worth of harm the bound allows, on a sample with this total of the baseline's."""
    bound = bound_of(rule)
    match rule.bound.kind:
        case BoundKind.MAX_DROP:
            return bound * n
        case BoundKind.MIN_RETAINED:
            return (1 - bound) * Fraction(total)
        case BoundKind.MIN:
            return (1 - bound) * n
        case _:
            return bound * n
