"""Pooled permutation test over several tasks: is the candidate worse on the whole, beyond chance?  Not the gate.

Pure, and exact: no permutation is drawn.  Reported only; tests the margin 0, like McNemar's test.

The null hypothesis is that on every item of every task the two models could be swapped.  Swapping changes the sign of
an item's difference; only flips matter, so of the m = b + c flips of a task the number gained is binomial (m, ½), and
tasks are independent of each other.  Two statistics are offered:

    by items   Σ over tasks of (gained − lost): every item counts the same, large tasks dominate.  Binomial (Σm, ½),
               the exact McNemar test on the summed counts.
    by tasks   Σ over tasks of (gained − lost)/n: every task's accuracy counts the same, as in a mean over benchmarks.

References:
    [1] J. Kübler et al., arXiv 2602.10144 (2026): pooled McNemar and permutation tests over benchmarks.
    [2] E. Pitman, Supplement to the Journal of the Royal Statistical Society 4 (1937) 119–130.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gate.stats import mcnemar

_CELLS = 2**18  # sums over all but the largest task are told apart to this fineness


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFlips:
    """`lost` and `gained` of the `n` items of one task."""

    lost: int
    gained: int
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledPermutation:
    """`statistic` is the pooled mean difference, candidate − baseline, in rates.

    `exact` is False where sums that differ by less than the fineness of the grid were taken as equal: the p-values are
    then too large by the probability of such near ties, never too small.
    """

    tasks: int
    statistic: float
    p_worse: float
    p_better: float
    p_two_sided: float
    exact: bool


def by_items(*, tasks: Sequence[TaskFlips]) -> PooledPermutation:
    """Every item counts the same; `statistic` is Σ(gained − lost)/Σn.

    Raises:
        ValueError: no task, or counts that do not fit.
    """
    _check(tasks)
    lost, gained = sum(t.lost for t in tasks), sum(t.gained for t in tasks)
    pooled = mcnemar.p_values(lost=lost, gained=gained)
    return PooledPermutation(
        tasks=len(tasks),
        statistic=(gained - lost) / sum(t.n for t in tasks),
        p_worse=pooled.exact_worse,
        p_better=pooled.exact_better,
        p_two_sided=pooled.exact_two_sided,
        exact=True,
    )


def by_tasks(*, tasks: Sequence[TaskFlips]) -> PooledPermutation:
    """Every task counts the same; `statistic` is the mean over tasks of (gained − lost)/n.

    Raises:
        ValueError: no task, or counts that do not fit.
    """
    _check(tasks)
    p_better, exact = _tail(tasks)
    p_worse, _ = _tail([TaskFlips(lost=t.gained, gained=t.lost, n=t.n) for t in tasks])
    return PooledPermutation(
        tasks=len(tasks),
        statistic=math.fsum((t.gained - t.lost) / t.n for t in tasks) / len(tasks),
        p_worse=p_worse,
        p_better=p_better,
        p_two_sided=min(2 * min(p_worse, p_better), 1.0),
        exact=exact,
    )


def _tail(tasks: Sequence[TaskFlips]) -> tuple[float, bool]:
    """P(Σ (gained − lost)/n ≥ what was seen), and whether no sum was rounded.

    All tasks but the one with the most flips are convolved on a grid, in units of 1/`scale`; where the grid is too
    coarse for them, their sums are rounded up, which makes the tail larger.  The last task needs no grid.
    """
    from scipy.special import bdtrc

    flipped = sorted((t for t in tasks if t.lost + t.gained), key=lambda t: t.lost + t.gained)
    if not flipped:
        return 1.0, True
    *others, largest = flipped
    lattice = math.lcm(*(t.n for t in others))
    span = sum(2 * (t.lost + t.gained) / t.n for t in others)
    scale = min(lattice, max(int(_CELLS / span), 1)) if others else 1
    mass, offset = np.ones(1), 0  # P(sum of the others = (index − offset)/scale)
    for task in others:
        flips = task.lost + task.gained
        # ceil((2·gained − flips)·scale/n) in integers
        places = [-((flips - 2 * k) * scale // task.n) for k in range(flips + 1)]
        wider = np.zeros(len(mass) + places[-1] - places[0])
        for k, place in enumerate(places):
            shifted = place - places[0]
            wider[shifted : shifted + len(mass)] += mass * (math.comb(flips, k) / 2**flips)
        mass, offset = wider, offset - places[0]
    # gained ≥ what is still needed: (2·gained − flips)/n ≥ (seen − sum)/(lattice of everything), in integers
    whole = math.lcm(scale, *(t.n for t in flipped))
    seen = sum((t.gained - t.lost) * (whole // t.n) for t in flipped)
    flips, unit = largest.lost + largest.gained, whole // largest.n
    needed = [-(-(flips * unit + seen - (i - offset) * (whole // scale)) // (2 * unit)) for i in range(len(mass))]
    at_least = np.clip(np.array(needed, dtype=object), 0, flips + 1).astype(np.int64)
    tail = np.where(at_least <= 0, 1.0, bdtrc(np.maximum(at_least - 1, 0), flips, 0.5))
    return min(float(mass @ np.where(at_least > flips, 0.0, tail)), 1.0), scale == lattice


def _check(tasks: Sequence[TaskFlips]) -> None:
    wrong = [t for t in tasks if t.n < 1 or min(t.lost, t.gained) < 0 or t.lost + t.gained > t.n]
    if not tasks or wrong:
        raise ValueError(f"found {len(tasks)} tasks and counts that do not fit in {wrong!r}, expected one task or more")
