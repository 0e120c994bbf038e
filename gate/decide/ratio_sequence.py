"""Limits of the share retained that hold at every look, in population scope: the ratios the wealth has not refuted.

Pure.  Every ratio r has a test of its own, on d = candidate − r·baseline with null mean 0 and bets sized for r.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from gate.decide.walk import Plan
from gate.stats import betting
from gate.stats.betting import Floats, Side

_STEPS = 24
_SMALLEST = 1e-9


def limits(plan: Plan, baseline: Floats, candidate: Floats, total: float) -> tuple[float, float]:
    """Both limits from these items, (t,) and (t,) in their order; `total` is that of the baseline over the sample.

    Ratios above 1 are not tested: an upper limit that is not below 1 is 1 over the baseline's mean.
    """
    mean = max(total / plan.n, _SMALLEST)

    def refuted(side: Side, ratio: float, alpha: float) -> bool:
        bound = Fraction(ratio).limit_denominator(10**9)
        test = betting.population_retention(n=plan.n, bound=bound, baseline_mean=mean)
        return betting.reaches(test, candidate - ratio * baseline, side=side, null=0.0, alpha=alpha)

    low = _boundary(lambda ratio: refuted("pass", ratio, plan.pass_alpha))
    if not refuted("fail", 1.0, plan.fail_alpha):
        return low, max(1 / mean, low)
    high = 1 - _boundary(lambda below: refuted("fail", 1 - below, plan.fail_alpha))
    return min(low, high), max(low, high)


def _boundary(holds: Callable[[float], bool]) -> float:
    """The largest value from 0 to 1 up to which it `holds`, approached from below; 0 where it holds nowhere."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
