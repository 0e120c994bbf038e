"""The sequential rule: a wealth that grows while items speak against "the bound is broken", another against "kept".

Pure: no I/O, no clock, no randomness.  The order of the items is the caller's, drawn before they are scored.

Four bettors a side bet on every item before it is seen, against the boundary of a null hypothesis.  Under that
hypothesis their average is a non-negative martingale that starts at 1, so it ever reaches 1/α with probability at most
α, however often one looks [3].  Benchmark scope: the items come without replacement from the N of the sample; if their
total is T, the next item after t of them with total S has mean (T − S)/(N − t) [1, 2].  Nothing is assumed about the
items.  Population scope: the mean stays where it is.

References:
    [1] I. Waudby-Smith, A. Ramdas, JRSS B 86 (2024) 1–27, sections 4 and 5 (arXiv 2010.09686).
    [2] P. Stark, ALPHA: audit that learns from previously hand-audited ballots, Ann. Appl. Stat. 17 (2023) 641–679.
    [3] J. Ville, Étude critique de la notion de collectif (1939).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gate.records import Scope

Floats = NDArray[np.float64]
Side = Literal["pass", "fail"]
Logs = tuple[float, float, float, float]

SMALLEST_GAP = 0.005
"""Bets are sized for an effect of at least half a point: a bound of 0 has no scale of its own."""

_PRIOR_FLIPS, _PRIOR_ITEMS = 0.08, 50.0  # the spread expected before any item was seen, and its weight in items
_CLIP = 0.95  # the largest share of the wealth that one item can cost
_GAPS: dict[
    Side, Floats
] = {  # effects that the bettors are sized for, in units of the gap; validity never depends on them
    "pass": np.array([[0.15], [0.35], [0.7], [1.1]]),
    "fail": np.array([[0.2], [0.6], [1.5], [4.0]]),
}
_CHUNK = 4096
_GRID = 2.0**32


@dataclass(frozen=True, kw_only=True, slots=True)
class Test:
    """What is tested about the differences d (candidate − baseline, each in [−1, 1]) of a sample of `n` items.

    `fail_total` is the smallest total that keeps the bound, `pass_total` the largest that the PASS side must refute
    (one less for 0/1 items, the same for real-valued ones); `mean` is the same boundary as a mean (in population scope
    the only one); `gap` sizes the bets.
    """

    __test__ = False  # not for pytest

    scope: Scope
    n: int
    fail_total: Fraction
    pass_total: Fraction
    mean: float
    gap: float
    integral: bool

    @property
    def slack(self) -> Fraction:
        """How far a total of real-valued items may be off as scores are floats; a tie within it keeps the bound."""
        return Fraction(0) if self.integral else Fraction(self.n, 2**52)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wealth:
    """Everything that the next item needs to know of the earlier ones; plain data, exact through JSON.

    `total` + `rest` is the sum of the differences (`rest` is what lies below a grid of 2⁻³²; 0 for 0/1 items),
    `squares` that of their squares; `log_…` are the bettors, natural logarithms; `max_…` the highest log of their sum.
    `…_certain`: the items still to come cannot change it.
    """

    t: int
    total: float
    rest: float
    squares: float
    log_pass: Logs
    log_fail: Logs
    max_pass: float
    max_fail: float
    pass_certain: bool
    fail_certain: bool


def drop(*, scope: Scope, n: int, bound: Fraction, integral: bool) -> Test:
    """`max_drop`: the mean difference is at least −`bound`.

    Args:
        n: items in the sample.
        bound: largest drop allowed, as a fraction (3 pp: 3/100).
        integral: every difference is −1, 0 or 1.

    Raises:
        ValueError: no items.
    """
    return _test(scope, n, -bound * n, integral)


def retention(*, n: int, bound: Fraction, baseline_total: Fraction, integral: bool) -> Test:
    """`min_retained` in benchmark scope: the candidate's total is at least `bound` times the (known) baseline's.

    Raises:
        ValueError: no items, a baseline total that is not positive, or above `n`.
    """
    if not 0 < baseline_total <= n:
        raise ValueError(
            f"found a baseline total of {baseline_total}, expected more than 0 and at most {n}: nothing to retain"
        )
    return _test(Scope.BENCHMARK, n, (bound - 1) * baseline_total, integral)


def absolute(*, n: int, least: Fraction, baseline_total: Fraction, integral: bool) -> Test:
    """`min` in benchmark scope: the candidate's mean is at least `least`.

    Raises:
        ValueError: no items, or a baseline total outside 0..`n`.
    """
    if not 0 <= baseline_total <= n:
        raise ValueError(f"found a baseline total of {baseline_total}, expected 0 to {n}")
    return _test(Scope.BENCHMARK, n, least * n - baseline_total, integral)


def population_retention(*, n: int, bound: Fraction, baseline_mean: float) -> Test:
    """`min_retained` r in population scope: the mean of d = candidate − r·baseline is at least 0.

    Raises:
        ValueError: no items, a baseline mean outside (0, 1], or a bound outside [0, 1] (d would leave [−1, 1]).
    """
    if not 0 < baseline_mean <= 1:
        raise ValueError(f"found a baseline mean of {baseline_mean!r}, expected more than 0 and at most 1")
    if not 0 <= bound <= 1:
        raise ValueError(f"found a retention bound of {bound}, expected 0 to 1")
    _count(n)
    gap = max(float(1 - bound) * baseline_mean, SMALLEST_GAP)
    zero = Fraction(0)
    return Test(scope=Scope.POPULATION, n=n, fail_total=zero, pass_total=zero, mean=0.0, gap=gap, integral=False)


def start() -> Wealth:
    """Before the first item: a wealth of 1 on each side, nothing certain."""
    quarter = (math.log(0.25),) * 4
    return Wealth(
        t=0,
        total=0.0,
        rest=0.0,
        squares=0.0,
        log_pass=quarter,
        log_fail=quarter,
        max_pass=0.0,
        max_fail=0.0,
        pass_certain=False,
        fail_certain=False,
    )


def advance(wealth: Wealth, test: Test, differences: Floats) -> Wealth:
    """The wealth after these further items, in their order; the same bits however the items are split into calls.

    Args:
        differences: (k,) in [−1, 1]; nothing happens for k = 0.

    Raises:
        ValueError: a difference that is NaN, outside [−1, 1] or (0/1 items) no integer; more than `test.n` items.
    """
    for part in _parts(wealth.t, test, differences):
        wealth, _, _ = _step(wealth, test, part)
    return wealth


def paths(test: Test, differences: Floats) -> tuple[Floats, Floats]:
    """(k,), (k,): log wealth against the PASS side's null and the FAIL side's after every item, from the first one.

    Raises:
        ValueError: as `advance`.
    """
    wealth, ups, downs = start(), [np.empty(0)], [np.empty(0)]
    for part in _parts(0, test, differences):
        wealth, up, down = _step(wealth, test, part)
        ups.append(up)
        downs.append(down)
    return np.concatenate(ups), np.concatenate(downs)


def reaches(test: Test, differences: Floats, *, side: Side, null: float, alpha: float) -> bool:
    """Whether one side's wealth against another boundary was ever 1/`alpha` or more: it is refuted at that level.

    Args:
        null: a total in benchmark scope, a mean in population scope.  The wealth falls (PASS side) or grows (FAIL side)
            in it, with the bets otherwise sized as for `test`.

    Raises:
        ValueError: as `advance`; `alpha` outside (0, 1).
    """
    threshold = _threshold(alpha)
    wealth, logs = start(), start().log_pass
    for part in _parts(0, test, differences):
        moments = _Moments.of(wealth, test, part)
        logs, path = _bet(side, logs, test, moments, null)
        if path.max() >= threshold:
            return True
        wealth = _moved(wealth, moments)
    return False


def verdict(wealth: Wealth, test: Test, *, pass_alpha: float, fail_alpha: float) -> Literal["pass", "fail"] | None:
    """What these items decide: "pass" and "fail" are each wrong with probability at most their α, over all looks.

    What is certain goes first: in benchmark scope, after all N items, that is the comparison of the totals.  If both
    sides got there, the observed mean decides.

    Raises:
        ValueError: an α outside (0, 1).
    """
    passes = wealth.max_pass >= _threshold(pass_alpha)
    fails = wealth.max_fail >= _threshold(fail_alpha)
    if wealth.pass_certain or wealth.fail_certain:
        return "pass" if wealth.pass_certain else "fail"
    if passes and fails:
        return "pass" if wealth.total + wealth.rest >= test.mean * wealth.t else "fail"
    if passes:
        return "pass"
    return "fail" if fails else None


def p_fail(wealth: Wealth, test: Test) -> float:
    """Anytime-valid p-value of "the bound is kept", for Holm over several rules; exactly 0 or 1 where that is certain.

    Raises:
        ValueError: a wealth of more items than the test has.
    """
    if wealth.t > test.n:
        raise ValueError(f"found a wealth of {wealth.t} items, expected at most the {test.n} of the test")
    if wealth.pass_certain or wealth.fail_certain:
        return float(wealth.pass_certain)
    return min(1.0, math.exp(-wealth.max_fail))


def possible_totals(wealth: Wealth, test: Test) -> tuple[Fraction, Fraction]:
    """Smallest and largest total that all N items can still have, exactly."""
    total, left = Fraction(wealth.total) + Fraction(wealth.rest), test.n - wealth.t
    return total - left, total + left


@dataclass(frozen=True, kw_only=True, slots=True)
class _Moments:
    """Of k items in a row: what was known before each of them, and the sums after the last."""

    t: int
    differences: Floats
    before: Floats  # total of the earlier items
    spread: Floats  # expected square of this item, from the earlier ones
    total: float
    rest: float
    squares: float

    @classmethod
    def of(cls, wealth: Wealth, test: Test, differences: Floats) -> _Moments:
        """Cumulative sums are taken item by item from the state's, so that no split can change a bit."""
        squares = _running(wealth.squares, differences * differences)
        if test.integral:
            totals, rests = _running(wealth.total, differences), np.zeros(1)
            before = totals[:-1]
        else:  # on the grid, sums are exact as long as they are below 2²¹
            coarse = np.rint(differences * _GRID) / _GRID
            totals, rests = _running(wealth.total, coarse), _running(wealth.rest, differences - coarse)
            before = totals[:-1] + rests[:-1]
        earlier = wealth.t + np.arange(differences.size)
        return cls(
            t=wealth.t,
            differences=differences,
            before=before,
            spread=(_PRIOR_ITEMS * _PRIOR_FLIPS + squares[:-1]) / (_PRIOR_ITEMS + earlier),
            total=float(totals[-1]),
            rest=float(rests[-1]),
            squares=float(squares[-1]),
        )


def _running(first: float, values: Floats) -> Floats:
    return np.cumsum(np.concatenate(([first], values)))


def _bet(side: Side, logs: Logs, test: Test, moments: _Moments, null: float) -> tuple[Logs, Floats]:
    """The four bettors after the last item, and the log of their sum after each, against the boundary `null`."""
    sign = 1.0 if side == "pass" else -1.0
    gaps = _GAPS[side] * test.gap
    if test.scope is Scope.BENCHMARK:
        left = (test.n - moments.t) - np.arange(moments.differences.size)
        mean = sign * (null - moments.before) / left
        gaps = gaps * (test.n / left)
    else:
        mean = np.full(moments.differences.size, sign * null)
    room = 1.0 + mean  # how far an item can fall below its mean under the null; at 0 there is nothing to lose
    cap = np.divide(_CLIP, room, out=np.full(room.shape, math.inf), where=room > 0)
    stake = np.minimum(gaps / (moments.spread + gaps * gaps), cap)
    stake *= (mean >= -1) & (mean < 1)  # beyond, the rest is certain, or cannot speak
    growth = np.log1p(stake * (sign * moments.differences - mean))
    each = np.cumsum(np.concatenate((np.array(logs)[:, None], growth), axis=1), axis=1)
    highest = each[:, 1:].max(axis=0)
    a, b, c, d = np.exp(each[:, 1:] - highest)
    w, x, y, z = each[:, -1].tolist()
    return (w, x, y, z), highest + np.log(a + b + c + d)


def _moved(wealth: Wealth, moments: _Moments) -> Wealth:
    return replace(
        wealth,
        t=moments.t + moments.differences.size,
        total=moments.total,
        rest=moments.rest,
        squares=moments.squares,
    )


def _step(wealth: Wealth, test: Test, differences: Floats) -> tuple[Wealth, Floats, Floats]:
    moments = _Moments.of(wealth, test, differences)
    benchmark = test.scope is Scope.BENCHMARK
    log_pass, up = _bet("pass", wealth.log_pass, test, moments, float(test.pass_total) if benchmark else test.mean)
    log_fail, down = _bet("fail", wealth.log_fail, test, moments, float(test.fail_total) if benchmark else test.mean)
    moved = _moved(wealth, moments)
    low, high = possible_totals(moved, test)
    moved = replace(
        moved,
        log_pass=log_pass,
        log_fail=log_fail,
        max_pass=max(wealth.max_pass, float(up.max())),
        max_fail=max(wealth.max_fail, float(down.max())),
        pass_certain=benchmark and low >= test.fail_total - test.slack,
        fail_certain=benchmark and high < test.fail_total - test.slack,
    )
    return moved, up, down


def _parts(t: int, test: Test, differences: Floats) -> Iterator[Floats]:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"found differences of shape {values.shape}, expected one number an item")
    if t + values.size > test.n:
        raise ValueError(f"found {t + values.size} items, expected at most the {test.n} of the sample")
    for begin in range(0, values.size, _CHUNK):
        part = values[begin : begin + _CHUNK]
        good = np.abs(part) <= 1  # false for NaN
        if test.integral:
            good &= part == np.rint(part)
        if not good.all():
            worst = int(np.flatnonzero(~good)[0])
            expected = "-1, 0 or 1" if test.integral else "a number in [-1, 1]"
            raise ValueError(f"found a difference of {part[worst]!r} at item {t + begin + worst}, expected {expected}")
        yield part


def _threshold(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"found an error probability of {alpha!r}, expected one between 0 and 1")
    return math.log(1 / alpha)


def _test(scope: Scope, n: int, smallest: Fraction, integral: bool) -> Test:
    """From the exact boundary of the total, `smallest`; 0/1 items cannot stand between two integers."""
    _count(n)
    fail_total = Fraction(math.ceil(smallest)) if integral else smallest
    boundary = fail_total if scope is Scope.BENCHMARK else smallest
    return Test(
        scope=scope,
        n=n,
        fail_total=fail_total,
        pass_total=fail_total - 1 if integral else fail_total,
        mean=float(boundary / n),
        gap=max(-float(boundary / n), SMALLEST_GAP),
        integral=integral,
    )


def _count(n: int) -> None:
    if n < 1:
        raise ValueError(f"found a sample of {n} items, expected at least one")
