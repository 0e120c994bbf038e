"""What others decide by: rules that look at a fixed number of items once, or peek at them again and again.

For comparison with the gate only; each returns who passed, who failed (neither: inconclusive) and the items it took.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gate.stats.betting import Floats
from gate.stats.quantiles import z

CONFIDENCE = 0.95
ITEMS = 400
ACCURACY = 0.7


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """(runs,) each."""

    passed: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    items: NDArray[np.int64]


Rule = Callable[[Floats, float], Outcome]
"""(runs, N) differences in the order of each run, largest drop allowed → outcome."""


def point_estimate(differences: Floats, margin: float) -> Outcome:
    """Green if the observed drop is within the tolerance."""
    keeps = differences[:, :ITEMS].mean(axis=1) >= -margin
    return _fixed(keeps, ~keeps)


def unpaired_z(differences: Floats, margin: float) -> Outcome:
    """Green unless the two accuracies differ significantly, as if measured on different items; knows no margin."""
    threshold = z(CONFIDENCE) * np.sqrt(2 * ACCURACY * (1 - ACCURACY) / ITEMS)
    worse = differences[:, :ITEMS].mean(axis=1) < -threshold
    return _fixed(~worse, worse)


def paired_wald(differences: Floats, margin: float) -> Outcome:
    """The usual interval of a paired difference, once."""
    low, high = _wald(differences[:, :ITEMS], np.array([ITEMS]))
    return _fixed(low[:, 0] >= -margin, high[:, 0] < -margin)


def peeking(differences: Floats, margin: float) -> Outcome:
    """The usual interval after every 32 items until it says something; after the last one the point estimate."""
    runs, n = differences.shape
    looks = np.append(np.arange(32, n, 32), n)
    low, high = _wald(differences, looks)
    green, red = low >= -margin, high < -margin
    green[:, -1] = differences.mean(axis=1) >= -margin
    red[:, -1] = ~green[:, -1]
    first = (green | red).argmax(axis=1)
    every = np.arange(runs)
    return Outcome(passed=green[every, first], failed=red[every, first], items=looks[first])


def _wald(differences: Floats, looks: NDArray[np.int64]) -> tuple[Floats, Floats]:
    mean = differences.cumsum(axis=1)[:, looks - 1] / looks
    square = (differences**2).cumsum(axis=1)[:, looks - 1] / looks
    half = z(CONFIDENCE) * np.sqrt(np.maximum(square - mean**2, 0) / looks)
    return mean - half, mean + half


def _fixed(passed: NDArray[np.bool_], failed: NDArray[np.bool_]) -> Outcome:
    return Outcome(passed=passed, failed=failed, items=np.full(passed.shape, ITEMS))


RULES: dict[str, Rule] = {
    f"point estimate with tolerance, {ITEMS} items": point_estimate,
    f"unpaired z, {ITEMS} items": unpaired_z,
    f"paired Wald interval, {ITEMS} items": paired_wald,
    "peeking: Wald interval every 32 items": peeking,
}
