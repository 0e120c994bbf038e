"""Simulated baselines whose margins foretell which answers a candidate changes, and predictions made from them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from gate.stats.betting import Floats

ACCURACY = 0.7
LIKENESS = 0.8  # correlation of two candidates' noise on the same item
DECILES = 10


class Foresight(StrEnum):
    """What the prediction is made from."""

    NONE = "none"
    MARGINS = "margins"
    HISTORY = "margins and an earlier candidate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Latent:
    """(n,) scores of a baseline, of a candidate, and of two earlier candidates; the cell of each item by its margin."""

    baseline: Floats
    candidate: Floats
    earlier: Floats
    earliest: Floats
    cells: NDArray[np.int64]

    def predicted(self, foresight: Foresight) -> Floats:
        """(n,) from what is known before the run: cell means of one earlier candidate, refined by another's answers."""
        match foresight:
            case Foresight.NONE:
                return self.baseline
            case Foresight.MARGINS:
                return _cell_means(self.cells, self.earlier)
            case Foresight.HISTORY:
                return _cell_means(self.cells * 2 + self.earlier.astype(np.int64), self.earliest)


def latent(*, n: int, noise: float, rng: np.random.Generator) -> Latent:
    """Noise alone would cost accuracy; the threshold makes up for it, so that the candidate is lossless on average."""
    mean = NormalDist().inv_cdf(ACCURACY)
    margins = rng.normal(mean, 1, n)
    threshold = mean * (1 - np.sqrt(1 + noise**2))
    shared = rng.normal(0, 1, n)

    def scores() -> Floats:
        own = np.sqrt(LIKENESS) * shared + np.sqrt(1 - LIKENESS) * rng.normal(0, 1, n)
        return np.asarray(margins + noise * own > threshold, dtype=np.float64)

    right = margins > 0
    ranks = np.argsort(np.argsort(np.abs(margins)))
    return Latent(
        baseline=right.astype(np.float64),
        candidate=scores(),
        earlier=scores(),
        earliest=scores(),
        cells=ranks * DECILES // n * 2 + right,
    )


def _cell_means(cells: NDArray[np.int64], scores: Floats) -> Floats:
    sums, counts = np.bincount(cells, weights=scores), np.bincount(cells)
    means: Floats = (sums / np.maximum(counts, 1))[cells]
    return means
