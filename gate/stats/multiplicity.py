"""Many tests at once: which of a family's p-values or e-values count when each could be notable by chance.

Pure.  An e-value is evidence whose mean is at most 1 under its hypothesis: the wealth of a betting gate.

References:
    [1] S. Holm, Scandinavian Journal of Statistics 6 (1979) 65–70.
    [2] Y. Benjamini, Y. Hochberg, Journal of the Royal Statistical Society B 57 (1995) 289–300.
    [3] R. Wang, A. Ramdas, Journal of the Royal Statistical Society B 84 (2022) 822–852: e-BH.
    [4] V. Vovk, R. Wang, Annals of Statistics 49 (2021) 1736–1754: 1/e is a p-value, and no other calibrator is better.
    [5] R. J. Simes, Biometrika 73 (1986) 751–754.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float], level: float) -> tuple[bool, ...]:
    """Which hypotheses are rejected with P(any false rejection) ≤ `level`, under any dependence [1].

    Raises:
        ValueError: a p-value outside [0, 1] or not a number.
    """
    _check(p_values)
    rejected = [False] * len(p_values)
    for rank, index in enumerate(_smallest_first(p_values)):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return tuple(rejected)


def holm_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """The smallest level at which `holm` rejects each hypothesis, at most 1: R's p.adjust(method = "holm").

    Raises:
        ValueError: a p-value outside [0, 1] or not a number.
    """
    _check(p_values)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(_smallest_first(p_values)):
        largest = max(largest, min((len(p_values) - rank) * p_values[index], 1.0))
        adjusted[index] = largest
    return tuple(adjusted)


def benjamini_hochberg(p_values: Sequence[float], level: float) -> tuple[bool, ...]:
    """Which hypotheses are rejected with an expected share of false rejections ≤ `level` [2].

    Valid for independent or positively dependent p-values.

    Raises:
        ValueError: a p-value outside [0, 1] or not a number.
    """
    _check(p_values)
    order = _smallest_first(p_values)
    passing = [rank for rank, index in enumerate(order, start=1) if p_values[index] <= rank / len(order) * level]
    accepted = set(order[: max(passing, default=0)])
    return tuple(index in accepted for index in range(len(p_values)))


def p_from_e(e_value: float) -> float:
    """min(1, 1/e): the p-value of an e-value, also of a running maximum of wealth (Ville's inequality) [4].

    Raises:
        ValueError: a negative e-value or not a number.
    """
    if not e_value >= 0:
        raise ValueError(f"found an e-value of {e_value!r}, expected 0 or more")
    return 1.0 if e_value <= 1 else 1 / e_value


def e_holm(e_values: Sequence[float], level: float) -> tuple[bool, ...]:
    """`holm` on 1/e: P(any false rejection) ≤ `level` under any dependence, also when each e was stopped at will.

    Raises:
        ValueError: a negative e-value or not a number.
    """
    return holm([p_from_e(e) for e in e_values], level)


def e_bh(e_values: Sequence[float], level: float) -> tuple[bool, ...]:
    """Which hypotheses are rejected with an expected share of false rejections ≤ `level`, under any dependence [3].

    The k largest, k the largest number for which the k-th largest is at least K/(k·`level`): the
    Benjamini–Hochberg procedure on 1/e.  Needs wealth at a stopping time; its running maximum is no e-value.

    Raises:
        ValueError: a negative e-value or not a number.
    """
    return benjamini_hochberg([p_from_e(e) for e in e_values], level)


def simes(p_values: Sequence[float]) -> float:
    """p-value of "no hypothesis of the family is false", min K·p₍ₖ₎/k; for positively dependent p-values [5].

    Raises:
        ValueError: no p-value, or one outside [0, 1] or not a number.
    """
    _check(p_values)
    if not p_values:
        raise ValueError("found no p-value, expected at least one")
    return min(len(p_values) * p / rank for rank, p in enumerate(sorted(p_values), start=1))


def _smallest_first(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=lambda i: p_values[i])


def _check(p_values: Sequence[float]) -> None:
    wrong = [p for p in p_values if math.isnan(p) or not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"found p-values {wrong!r}, expected numbers from 0 to 1")
