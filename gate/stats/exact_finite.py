"""Exact test and interval for what all N items would say, from n of them drawn without replacement: gained − lost.

Pure.  Benchmark scope only: nothing is said about tasks like these.

As in `exact_unconditional`, but the pairs come from an urn with L lost and L + T gained items; the p-value is that at
the worst L.  One more gained or one fewer lost item in the urn makes a large Z likelier, so the worst case of "a total
of at most T" is T itself.

References:
    [1] H. Hsueh, J. Liu, J. Chen, Biometrics 57 (2001) 478–483: the ordering and the boundary.
    [2] W. G. Cochran, Sampling Techniques, 3rd ed. (1977), section 3.6: hypergeometric limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gate.stats.tango_table import least_gained

LARGEST_N = 400
"""Above this many pairs Tango's approximation with the finite-population factor is close enough."""

_ALL = 256  # with no more urns than this, each is looked at
_COARSE, _FINE = 128, 24  # urns looked at otherwise, and around the worst of them until its neighbours are known
_BELOW = 4  # totals beyond a limit that are looked at for one that is not rejected


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactFinite:
    """`lost` pairs only the baseline got right, `gained` only the candidate, of `n` from a `population`.

    The estimate and the limits are means over the population; limits lie on the lattice of possible totals, and the
    estimate between them.
    """

    lost: int
    gained: int
    n: int
    population: int
    confidence: float
    estimate: float
    low: float
    high: float


def p_value(*, lost: int, gained: int, n: int, population: int, total: int) -> float:
    """One-sided p-value of H0: gained − lost over the whole population ≤ `total`; small speaks for more.

    For H0: ≥ `total`, swap `lost` and `gained` and change the sign of `total`.

    Raises:
        ValueError: counts that do not fit, more than `LARGEST_N` pairs, or `n` not below `population`.
    """
    _check(lost, gained, n, population)
    unseen = population - n
    # what the urn certainly holds
    if total < gained - lost - unseen:
        return 0.0
    if total >= gained - lost + unseen:
        return 1.0
    fewest = least_gained(lost=lost, gained=gained, n=n, difference=total / population)
    numbers = np.arange(n + 1)
    tables = np.argwhere((numbers >= fewest[:, None]) & (numbers <= n - numbers[:, None]))
    least, most = max(0, -total), (population - total) // 2
    if most - least <= _ALL:
        return min(float(_probability(tables, n, population, total, np.arange(least, most + 1)).max()), 1.0)
    # Dense at both ends: the worst urn is often the one where every flip is a loss, or next to it.
    places = least + np.rint((most - least) * (1 - np.cos(np.linspace(0, np.pi, _COARSE))) / 2).astype(np.int64)
    largest = 0.0
    while True:
        places = np.unique(places)
        probabilities = _probability(tables, n, population, total, places)
        worst = int(probabilities.argmax())
        largest = max(largest, float(probabilities[worst]))
        low, high = places[max(worst - 1, 0)], places[min(worst + 1, len(places) - 1)]
        if high - low <= 2:
            return min(largest, 1.0)
        places = np.rint(np.linspace(low, high, _FINE)).astype(np.int64)


def interval(*, lost: int, gained: int, n: int, population: int, confidence: float) -> ExactFinite:
    """Both one-sided limits of the mean over the population, each at `confidence`: totals not rejected, over N.

    Where a single total is left, its neighbours are kept too: an interval always has a width.

    Raises:
        ValueError: counts that do not fit, more than `LARGEST_N` pairs, or `n` not below `population`.
    """
    _check(lost, gained, n, population)
    least = _least_total(lost, gained, n, population, confidence)
    most = -_least_total(gained, lost, n, population, confidence)
    if least >= most:
        least, most = max(most - 1, gained - lost - (population - n)), min(least + 1, gained - lost + (population - n))
    low, high = least / population, most / population
    return ExactFinite(
        lost=lost,
        gained=gained,
        n=n,
        population=population,
        confidence=confidence,
        estimate=min(max((gained - lost) / n, low), high),
        low=low,
        high=high,
    )


def _least_total(lost: int, gained: int, n: int, population: int, confidence: float) -> int:
    """A total that is not rejected while the one below is: by bisection, then a look further out."""

    def rejects(total: int) -> bool:
        return p_value(lost=lost, gained=gained, n=n, population=population, total=total) <= 1 - confidence

    surplus, unseen = gained - lost, population - n
    rejected, accepted = surplus - unseen - 1, surplus + unseen
    while accepted - rejected > 1:
        middle = (rejected + accepted) // 2
        rejected, accepted = (middle, accepted) if rejects(middle) else (rejected, middle)
    # As T falls, p falls with small steps back up.
    further = [t for t in range(max(surplus - unseen, accepted - _BELOW), accepted) if not rejects(t)]
    return min([*further, accepted])


def _probability(
    tables: NDArray[np.int64], n: int, population: int, total: int, urns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """P(one of `tables`) for each number of lost items in `urns`, `total` more being gained."""
    from scipy.special import gammaln

    factorial = gammaln(np.arange(population + 2) + 1.0)  # logarithms
    everything = factorial[population] - factorial[n] - factorial[population - n]
    b, c = tables[:, 0], tables[:, 1]
    same = n - b - c
    seen = factorial[b] + factorial[c] + factorial[same]
    found = np.zeros(len(urns))
    for i, lost in enumerate(urns.tolist()):
        gained = lost + total
        rest = population - lost - gained
        fits = _near(b, lost, n, population) & _near(c, gained, n, population) & (same <= rest)
        left = factorial[lost - b[fits]] + factorial[gained - c[fits]] + factorial[rest - same[fits]]
        whole = factorial[lost] + factorial[gained] + factorial[rest] - everything
        found[i] = np.exp(whole - seen[fits] - left).sum()
    return found


def _near(drawn: NDArray[np.int64], marked: int, n: int, population: int) -> NDArray[np.bool_]:
    """Which numbers drawn of `marked` items are possible, and likelier than e⁻⁴⁰ (Bernstein's inequality)."""
    mean = n * marked / population
    reach = 8 * math.sqrt(mean * (1 - marked / population)) + 30
    possible: NDArray[np.bool_] = (drawn <= marked) & (np.abs(drawn - mean) <= reach)
    return possible


def _check(lost: int, gained: int, n: int, population: int) -> None:
    if n < 1 or min(lost, gained) < 0 or lost + gained > n:
        raise ValueError(f"found {lost} lost and {gained} gained of {n} pairs, expected counts that fit")
    if n > LARGEST_N:
        raise ValueError(f"found {n} pairs, expected at most {LARGEST_N}: use Tango's interval above")
    if n >= population:
        raise ValueError(f"found {n} items of a population of {population}, expected fewer: compare the totals")
