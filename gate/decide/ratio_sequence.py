"""Limits of the share retained that hold at every look, in population scope: the ratios the wealth has not refuted.

Pure.  Every ratio r has a test of its own, on d = candidate − r·baseline with null mean 0 and bets sized for r.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from gate.decide.lineup import Entry
from gate.decide.walk import Plan
from gate.stats import betting

_STEPS = 40
_SMALLEST = 1e-9


def limits(plan: Plan, evidence: Sequence[Entry]) -> tuple[float, float]:
    """The lower limit with lost items at their most harmful, the upper one with lost items at their least harmful.

    Ratios above 1 are not tested: an upper limit that is not below 1 is 1 over the baseline's mean.
    """
    worst, best = _arrays(evidence, candidate=0.0, baseline=1.0), _arrays(evidence, candidate=1.0, baseline=0.0)
    means = [max(total / plan.n, _SMALLEST) for total in plan.totals]

    def verdict(values: tuple[betting.Floats, betting.Floats], mean: float, ratio: float) -> str | None:
        bound = Fraction(ratio).limit_denominator(10**9)
        test = betting.population_retention(n=plan.n, bound=bound, baseline_mean=mean)
        wealth = betting.advance(betting.start(), test, values[1] - ratio * values[0])
        return betting.verdict(wealth, test, pass_alpha=plan.pass_alpha, fail_alpha=plan.fail_alpha)

    low = _boundary(lambda r: verdict(worst, means[0], r) == "pass", 0.0, 1.0)
    if verdict(best, means[1], 1.0) != "fail":
        return low, max(1 / means[1], low)
    high = 1 - _boundary(lambda r: verdict(best, means[1], 1 - r) == "fail", 0.0, 1.0)
    return min(low, high), max(low, high)


def _arrays(evidence: Sequence[Entry], *, candidate: float, baseline: float) -> tuple[betting.Floats, betting.Floats]:
    """(baseline, candidate) with lost values at the given extremes."""
    return (
        np.array([baseline if e.baseline is None else e.baseline for e in evidence]),
        np.array([candidate if e.candidate is None else e.candidate for e in evidence]),
    )


def _boundary(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest value up to which `holds`, approached from below; `low` where it holds nowhere."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
