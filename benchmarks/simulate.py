"""Simulated candidates: N items of which some are lost and some gained, met in random order until the gate decides.

Everything is drawn from a seeded generator; the rule is the product's own (`gate.stats.betting`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from gate.records import Scope
from gate.stats.betting import Floats, Test, drop, paths, reaches

ALPHA = 0.05
MARGIN = Fraction(3, 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A candidate that answers `lost` of the `n` items worse than the baseline, and `gained` better."""

    n: int
    lost: int
    gained: int

    @property
    def differences(self) -> Floats:
        """(n,) sorted."""
        return np.repeat([-1.0, 1.0, 0.0], [self.lost, self.gained, self.n - self.lost - self.gained])


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """What became of (runs,) repetitions: items used when looking after every item, and whether the gate was green."""

    n: int
    items: NDArray[np.int64]
    passed: NDArray[np.bool_]

    def in_blocks(self, block: int) -> NDArray[np.int64]:
        """Items used when looking after every `block` items."""
        return np.minimum(-(-self.items // block) * block, self.n)


def world(*, n: int, total: int, flips: float) -> World:
    """The world whose differences have this total, with about this share of flips (at least what the total takes)."""
    changed = max(round(flips * n), abs(total))
    lost = (changed - total) // 2
    return World(n=n, lost=lost, gained=lost + total)


def with_drop(*, n: int, drop_pp: float, flips: float) -> World:
    return world(n=n, total=-round(drop_pp / 100 * n), flips=flips)


def at_most_drop(n: int, margin: Fraction = MARGIN) -> Test:
    return drop(scope=Scope.BENCHMARK, n=n, bound=margin, integral=True)


def decided(test: Test, differences: Floats, alpha: float = ALPHA) -> tuple[int, bool]:
    """Items until the first decision in benchmark scope, and whether it is a pass; after all of them there is one."""
    threshold = math.log(1 / alpha)
    seen = 256
    while True:
        part = differences[:seen]
        up, down = paths(test, part)
        left = test.n - np.arange(1, part.size + 1)
        totals = np.cumsum(part)
        passes = (up >= threshold) | (totals - left >= float(test.fail_total - test.slack))
        fails = (down >= threshold) | (totals + left < float(test.fail_total - test.slack))
        stops = np.flatnonzero(passes | fails)
        if stops.size:
            return int(stops[0]) + 1, bool(passes[stops[0]])
        seen *= 4


def fails_first(test: Test, differences: Floats, *, pass_alpha: float, fail_alpha: float, block: int) -> bool:
    """Whether the FAIL side gets there before the PASS side, looking at the ends of blocks; at N the totals decide."""
    up, down = (np.maximum.accumulate(path) for path in paths(test, differences))
    ends = np.append(np.arange(block - 1, test.n - 1, block), test.n - 1)
    passes = np.flatnonzero(up[ends] >= math.log(1 / pass_alpha))
    fails = np.flatnonzero(down[ends] >= math.log(1 / fail_alpha))
    if not fails.size:
        return not passes.size and float(differences.sum()) < float(test.fail_total)
    return not passes.size or bool(fails[0] < passes[0])


def repeat(test: Test, differences: Floats, *, runs: int, rng: np.random.Generator) -> Runs:
    """The same items in `runs` random orders."""
    found = [decided(test, rng.permutation(differences)) for _ in range(runs)]
    return Runs(n=test.n, items=np.array([t for t, _ in found]), passed=np.array([green for _, green in found]))


def rate(hits: Sequence[bool] | NDArray[np.bool_]) -> float:
    return float(np.mean(hits))


def covers(test: Test, differences: Floats) -> bool:
    """Whether neither limit ever excludes the true mean, on the whole path."""
    total = float(differences.sum())
    return not any(reaches(test, differences, side=side, null=total, alpha=ALPHA) for side in ("pass", "fail"))
