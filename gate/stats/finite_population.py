"""How much less a mean varies when the sample is a part of a finite population: the variance factor.

Pure.  For benchmark scope only: the truth is what all `population` items would say, not tasks like these.

References:
    [1] W. G. Cochran, Sampling Techniques, 3rd ed. (1977), sections 2.6 and 3.3.
"""

from __future__ import annotations


def variance_factor(*, n: int, population: int | None) -> float:
    """(N − n)/(N − 1) for `n` of N = `population` items drawn without replacement; 1 for an infinite population (None).

    Raises:
        ValueError: `n` is not below `population`: once everything is measured there is nothing left to estimate.
    """
    if population is None:
        return 1.0
    if not 1 <= n < population:
        raise ValueError(
            f"found {n} items of a population of {population}, expected fewer than all: compare the totals themselves"
        )
    return (population - n) / (population - 1)
