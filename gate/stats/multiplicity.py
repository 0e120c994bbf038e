"""Many tests at once: which of a family's p-values count when each could be small by chance.

Pure.

References:
    [1] S. Holm, Scandinavian Journal of Statistics 6 (1979) 65–70.
    [2] Y. Benjamini, Y. Hochberg, Journal of the Royal Statistical Society B 57 (1995) 289–300.
"""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float], level: float) -> tuple[bool, ...]:
    """Which hypotheses are rejected with P(any false rejection) ≤ `level`, under any dependence."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(_smallest_first(p_values)):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return tuple(rejected)


def benjamini_hochberg(p_values: Sequence[float], level: float) -> tuple[bool, ...]:
    """Which hypotheses are rejected with an expected share of false rejections ≤ `level`."""
    order = _smallest_first(p_values)
    passing = [rank for rank, index in enumerate(order, start=1) if p_values[index] <= rank / len(order) * level]
    accepted = set(order[: max(passing, default=0)])
    return tuple(index in accepted for index in range(len(p_values)))


def _smallest_first(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=lambda i: p_values[i])
