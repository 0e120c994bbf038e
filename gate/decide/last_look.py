"""What one last look at a cap can see before anything is run: k of the N items of a benchmark (docs/statistics.md §1).

Pure.  Knows nothing of policies: numbers in, numbers out.  Judges no checkpoint.

Mirrors the judge for 0/1 scores: the exact test up to 400 items, Tango's with the finite-population factor above.
scipy is imported on use: most plans have no cap.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from gate.decide import power
from gate.stats.finite_population import variance_factor
from gate.stats.quantiles import z
from gate.stats.tango import z_score


def can_pass(*, n: int, population: int, room: Fraction, alpha: float) -> bool:
    """Whether n items without a flip prove at error `alpha` that no more than `room` of the population are lost.

    With one more lost than that, none of them shows with probability C(N − L, n)/C(N, n), L = ⌊room⌋ + 1: a test that
    errs in at most `alpha` of cases cannot pass while this is larger, the wealth no more than the last look.
    """
    lost = math.floor(room) + 1
    if lost > population - n:
        return True
    return math.comb(population - lost, n) / math.comb(population, n) <= alpha


def fewest_items(*, population: int, room: Fraction, alpha: float) -> int:
    """The smallest n from which on `can_pass` holds; at most all items."""
    low, high = 0, population
    while high - low > 1:
        middle = (low + high) // 2
        if can_pass(n=middle, population=population, room=room, alpha=alpha):
            high = middle
        else:
            low = middle
    return high


@lru_cache(maxsize=256)
def lossless_pass(*, n: int, population: int, flip_rate: float, room: Fraction, alpha: float) -> float:
    """Probability that a candidate as good as the baseline passes at the look; by how much earlier is not counted.

    Flips among the n items are as for `power.lossless_pass`; `room` is how many items' worth of harm the bound allows.
    """
    from gate.stats import exact_finite

    if n > exact_finite.LARGEST_N:
        critical = z(1 - alpha) * math.sqrt(variance_factor(n=n, population=population))
        drop = float(room / population)
        return power.enumerated(n, flip_rate, lambda flips: power.most_lost(flips, n, drop, critical))
    total = -(math.floor(room) + 1)
    drop = -total / population

    def score(table: tuple[int, int]) -> float:
        return z_score(lost=table[0], gained=table[1], n=n, difference=-drop)

    tables = [(lost, flips - lost) for flips in power.likely_flips(n, flip_rate) for lost in range(flips + 1)]
    tables.sort(key=score, reverse=True)
    accepted, rejected = -1, len(tables)  # the p-value grows along this order
    while rejected - accepted > 1:
        middle = (accepted + rejected) // 2
        lost, gained = tables[middle]
        if exact_finite.p_value(lost=lost, gained=gained, n=n, population=population, total=total) <= alpha:
            accepted = middle
        else:
            rejected = middle
    critical = score(tables[accepted]) if accepted >= 0 else math.inf
    return power.enumerated(n, flip_rate, lambda flips: power.most_lost(flips, n, drop, critical))
