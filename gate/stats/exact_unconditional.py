"""Exact unconditional test and interval for the difference of two paired proportions, candidate − baseline, at small n.

Pure.  Never errs more often than it says, at the price of some power where Tango's approximation happens to be right.

Tables are ordered by Tango's statistic at the hypothesised difference δ.  The p-value is the probability of all tables
at least as extreme as the one seen, at the worst value of the nuisance parameter q = P(lost).  Z rises in `gained` and
falls in `lost`, so the worst case of "at most δ" lies at δ itself [1].

References:
    [1] H. Hsueh, J. Liu, J. Chen, Biometrics 57 (2001) 478–483.
    [2] M. Fagerland, S. Lydersen, P. Laake, BMC Medical Research Methodology 13:91 (2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gate.stats.bisection import boundary
from gate.stats.tango_table import least_gained

LARGEST_N = 200
"""Above this many pairs Tango's approximation is close enough, and enumeration slow."""

_COARSE, _FINE, _ROUNDS = 96, 24, 2  # points over the nuisance parameter, around its worst value, and how often
_WITHIN = 1e-8  # limits are no closer than this, to the wide side
_BELOW = 12  # places beyond a limit that are looked at for a δ that is not rejected


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactUnconditional:
    """`lost` pairs only the baseline got right, `gained` only the candidate, of `n`."""

    lost: int
    gained: int
    n: int
    confidence: float
    estimate: float
    low: float
    high: float


def p_value(*, lost: int, gained: int, n: int, difference: float) -> float:
    """One-sided p-value of H0: candidate − baseline ≤ `difference`; small speaks for more.

    For H0: ≥ `difference`, swap `lost` and `gained` and change the sign of `difference`.

    Raises:
        ValueError: counts that do not fit `n` pairs, more than `LARGEST_N` pairs, or a difference outside [−1, 1].
    """
    _check(n, difference)
    fewest = least_gained(lost=lost, gained=gained, n=n, difference=difference)
    low, high = max(0.0, -difference), (1 - difference) / 2
    # Dense at both ends: the worst value is often "every flip is a loss" or next to it.
    nuisance = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, _COARSE))) / 2
    largest = 0.0
    for _ in range(_ROUNDS + 1):
        probabilities = _probability(fewest, n, difference, nuisance)
        worst = int(probabilities.argmax())
        largest = max(largest, float(probabilities[worst]))
        nuisance = np.linspace(nuisance[max(worst - 1, 0)], nuisance[min(worst + 1, len(nuisance) - 1)], _FINE)
    return min(largest, 1.0)


def interval(*, lost: int, gained: int, n: int, confidence: float) -> ExactUnconditional:
    """Both one-sided limits of candidate − baseline, each at `confidence`: the outermost differences not rejected.

    Raises:
        ValueError: counts that do not fit `n` pairs, or more than `LARGEST_N` pairs.
    """
    _check(n, 0.0)
    return ExactUnconditional(
        lost=lost,
        gained=gained,
        n=n,
        confidence=confidence,
        estimate=(gained - lost) / n,
        low=_low(lost, gained, n, confidence),
        high=-_low(gained, lost, n, confidence),
    )


def _low(lost: int, gained: int, n: int, confidence: float) -> float:
    def rejects(difference: float) -> bool:
        return p_value(lost=lost, gained=gained, n=n, difference=difference) <= 1 - confidence

    estimate = (gained - lost) / n
    limit = boundary(rejects, rejected=-1.0, accepted=estimate, within=_WITHIN)
    # As δ falls, p falls with small steps back up: look further out for a δ that is accepted after all.
    while True:
        further = np.linspace(max(-1.0, limit - (estimate - limit) / 2), limit, _BELOW + 1)[:-1]
        accepted = next((float(place) for place in further if place < limit and not rejects(float(place))), None)
        if accepted is None:
            return limit
        limit = boundary(rejects, rejected=-1.0, accepted=accepted, within=_WITHIN)


def _probability(
    fewest: NDArray[np.int64], n: int, difference: float, nuisance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """P(gained ≥ fewest[lost]) for each P(lost) in `nuisance`: lost is binomial, gained given lost too."""
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    lost = np.flatnonzero(fewest <= n - np.arange(n + 1))
    q = nuisance[:, None]
    choose = gammaln(n + 1) - gammaln(lost + 1) - gammaln(n - lost + 1)
    weight = np.exp(choose + xlogy(lost, q) + xlog1py(n - lost, -q))
    with np.errstate(divide="ignore", invalid="ignore"):  # q = 1 leaves no pair to be gained
        gained = np.clip(np.where(q < 1, (q + difference) / (1 - q), 0.0), 0.0, 1.0)
    at_least = fewest[lost]
    tail = np.where(at_least <= 0, 1.0, bdtrc(np.maximum(at_least - 1, 0), n - lost, gained))
    return np.asarray((weight * tail).sum(axis=1), dtype=np.float64)


def _check(n: int, difference: float) -> None:
    if n > LARGEST_N:
        raise ValueError(f"found {n} pairs, expected at most {LARGEST_N}: use Tango's interval above")
    if not -1 <= difference <= 1 or math.isnan(difference):
        raise ValueError(f"found a difference of {difference!r}, expected it in [-1, 1]")
