"""The unpaired z-test for two proportions, as comparisons of models usually print it.  Reported, never the gate.

Pure.  Throws away that both models answered the same items: it sees only drops several times larger than a paired test.

References:
    [1] J. Fleiss, B. Levin, M. Paik, Statistical Methods for Rates and Proportions, 3rd ed. (2003), section 3.1,
        without continuity correction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoProportions:
    """Rates of two models over `n` items each, as if the items were different ones."""

    first_rate: float
    second_rate: float
    n: int
    z: float
    p_two_sided: float


def z_test(*, first_rate: float, second_rate: float, n: int) -> TwoProportions:
    """z = (p₁ − p₂)/√(2p̄(1 − p̄)/n) and its two-sided p-value.

    Raises:
        ValueError: no items, a rate outside [0, 1], or both rates 0 or both 1, where z is 0/0.
    """
    mean = (first_rate + second_rate) / 2
    if n < 1 or not (0 <= first_rate <= 1 and 0 <= second_rate <= 1):
        raise ValueError(f"found rates {first_rate!r} and {second_rate!r} of {n} items, expected them in [0, 1]")
    if mean in (0.0, 1.0):
        raise ValueError(f"both rates are {mean:g}: nothing varies, so there is no z; compare item by item")
    z = (first_rate - second_rate) / math.sqrt(2 * mean * (1 - mean) / n)
    return TwoProportions(
        first_rate=first_rate, second_rate=second_rate, n=n, z=z, p_two_sided=math.erfc(abs(z) / math.sqrt(2))
    )
