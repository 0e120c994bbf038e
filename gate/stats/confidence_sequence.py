"""Limits of the mean difference that hold at all looks together: what the wealth of `betting` has not refuted.

Pure: no I/O, no clock, no randomness, no verdict.

A limit is the last boundary that the wealth, with its bets sized as for the test, ever refuted; the wealth is monotone
in the boundary, so a bisection finds it.  In benchmark scope, what the items still to come cannot change is refuted as
well, and limits of 0/1 items are possible totals over N.  The test's own boundary is always among those tried: the
limits keep the bound, or break it, exactly when the wealth's verdict says so.

References:
    [1] I. Waudby-Smith, A. Ramdas, JRSS B 86 (2024) 1–27, sections 4 and 5 (arXiv 2010.09686).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gate.records import Scope
from gate.stats.betting import Floats, Side, Test, Wealth, advance, possible_totals, reaches, start

_RESOLUTION = 2.0**-23
"""Limits that are on no lattice (real-valued items, population scope) are found to this, on the wide side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfidenceSequence:
    """Mean difference (candidate − baseline) of all `n` items (population scope: of all items like them), after `t`.

    `low` holds with (one-sided) `low_confidence` at all looks together, `high` with `high_confidence`.
    """

    scope: Scope
    n: int
    t: int
    low_confidence: float
    high_confidence: float
    estimate: float
    low: float
    high: float

    @property
    def confidence(self) -> float:
        return self.low_confidence


def interval(*, test: Test, differences: Floats, low_confidence: float, high_confidence: float) -> ConfidenceSequence:
    """Both limits after these items.

    Args:
        differences: (t,) all items so far in their order, t ≥ 1.
        low_confidence: 1 − α of PASS, for the lower limit.
        high_confidence: 1 − α of FAIL, for the upper limit.

    Raises:
        ValueError: no items; otherwise as `betting.advance`.
    """
    wealth = _wealth(test, differences)
    estimate = (wealth.total + wealth.rest) / wealth.t
    lower, upper = ordered(
        test=test,
        low=_limit("pass", test, differences, wealth, 1 - low_confidence),
        high=_limit("fail", test, differences, wealth, 1 - high_confidence),
        estimate=estimate,
    )
    return ConfidenceSequence(
        scope=test.scope,
        n=test.n,
        t=wealth.t,
        low_confidence=low_confidence,
        high_confidence=high_confidence,
        estimate=estimate,
        low=lower,
        high=upper,
    )


def low(*, test: Test, differences: Floats, confidence: float) -> float:
    """The lower limit alone.  It never falls with further items, unless they make it impossible (benchmark scope).

    Raises:
        ValueError: as `interval`.
    """
    return _limit("pass", test, differences, _wealth(test, differences), 1 - confidence)


def high(*, test: Test, differences: Floats, confidence: float) -> float:
    """The upper limit alone, the mirror of `low`.

    Raises:
        ValueError: as `interval`.
    """
    return _limit("fail", test, differences, _wealth(test, differences), 1 - confidence)


def ordered(*, test: Test, low: float, high: float, estimate: float) -> tuple[float, float]:
    """The two limits, the smaller one first.

    Limits that contradict each other (one of them is wrong, which has at most probability α) are swapped; where they
    stand on both sides of the bound, the estimate decides, as in `betting.verdict`.
    """
    if low <= high:
        return low, high
    if not high < test.mean <= low:
        return high, low
    return (test.mean, low) if estimate >= test.mean else (high, _below(test.mean))


def _wealth(test: Test, differences: Floats) -> Wealth:
    if len(differences) == 0:
        raise ValueError("found no items, expected at least one: without any there is no estimate")
    return advance(start(), test, differences)


def _limit(side: Side, test: Test, differences: Floats, wealth: Wealth, alpha: float) -> float:
    """An upper limit is sought mirrored: on both sides small nulls are refuted, and the limit is the last of them."""
    sign = 1.0 if side == "pass" else -1.0
    lattice = test.integral and test.scope is Scope.BENCHMARK

    def refuted(mirrored: float) -> bool:
        return reaches(test, differences, side=side, null=sign * mirrored, alpha=alpha)

    if test.scope is Scope.POPULATION:
        unit, boundary, least, most = 1, sign * test.mean, -1.0, 1.0
    else:
        unit, boundary = test.n, sign * float(test.pass_total if side == "pass" else test.fail_total)
        least, most = sorted(sign * float(total) for total in possible_totals(wealth, test))
    near, far = least - lattice, float(unit)
    struck = near <= boundary < far and refuted(boundary)
    if struck:
        near = boundary
    elif near <= boundary:
        far = min(far, boundary)
    while far - near > (1 if lattice else _RESOLUTION * unit):
        middle = near + (far - near) / 2
        middle = math.floor(middle) if lattice else middle
        near, far = (middle, far) if refuted(middle) else (near, middle)
    limit = sign * min(near + lattice, most) / unit
    # What divisions round away at the bound must not tell another story than the wealth.
    if side == "pass":
        keeps = wealth.pass_certain or (struck and not wealth.fail_certain)
    else:
        keeps = wealth.pass_certain or not (struck or wealth.fail_certain)
    return max(limit, test.mean) if keeps else min(limit, _below(test.mean))


def _below(value: float) -> float:
    return math.nextafter(value, -math.inf)
