"""How many pairs of timing blocks a rule takes, given how much two measurements of the same thing differ.

Pure.  The spread comes from A/A pairs (`gate calibrate`); nothing here guesses it.

References:
    [1] T. Kalibera, R. Jones, Rigorous benchmarking in reasonable time, ISMM 2013, section 5.
    [2] statistics.md §6: R = (t_α + t_β)²·s²/ln(1.05)².
"""

from __future__ import annotations

import math

from gate.stats.quantiles import t

MOST = 10_000
"""No plan asks for more pairs than this: the machine is too noisy for the rule."""


def needed(*, spread_log: float, ratio: float, confidence: float, power: float) -> int | None:
    """Fewest pairs R ≥ 2 with R ≥ (t_confidence + t_power)²·s²/ln(ratio)², t on R − 1; None beyond `MOST`.

    With them an unchanged candidate shows with probability `power` that it keeps `ratio`.

    Args:
        spread_log: s, standard deviation of the log ratio of one pair, ≥ 0.
        ratio: the bound as a ratio of times, such as 1.05 or 0.95.
        confidence: of the one-sided limit.
        power: wanted probability of a PASS when nothing changed, ≥ ½.

    Raises:
        ValueError: a ratio that is not positive or is 1, a negative spread, or a power below ½.
    """
    if ratio <= 0 or ratio == 1:
        raise ValueError(f"found a bound on the ratio of {ratio!r}, expected a positive number other than 1")
    if not spread_log >= 0 or not 0.5 <= power < 1:
        raise ValueError(f"found spread {spread_log!r} and power {power!r}, expected ≥ 0 and from 0.5 to below 1")

    def enough(pairs: int) -> bool:
        quantiles = t(confidence, pairs - 1) + t(power, pairs - 1)
        return pairs * math.log(ratio) ** 2 >= (quantiles * spread_log) ** 2

    # The quantiles fall in R, so `enough` turns once: double, then bisect.
    high = 2
    while not enough(high):
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = max(high // 2, 1)  # not enough, or below the least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def half_width_log(*, spread_log: float, pairs: int, confidence: float) -> float:
    """s·t/√R: how far a limit will lie from the estimate on the log scale.

    A rule of 5 % is not decidable where this is above about 2.5 %, half of its bound [2].

    Raises:
        ValueError: fewer than two pairs, or a negative spread.
    """
    if pairs < 2 or not spread_log >= 0:
        raise ValueError(f"found {pairs} pairs with a spread of {spread_log!r}, expected at least 2 and ≥ 0")
    return spread_log * t(confidence, pairs - 1) / math.sqrt(pairs)


def too_noisy(*, spread_log: float, pairs: int, ratio: float, confidence: float) -> bool:
    """Whether a bound of `ratio` must be refused: the half-width exceeds half of the bound.

    Raises:
        ValueError: fewer than two pairs, a negative spread, or a ratio that is not positive.
    """
    if ratio <= 0:
        raise ValueError(f"found a bound on the ratio of {ratio!r}, expected a positive number")
    # 1.05 and 0.95 both mean 5 %, so 2.5 % [2]
    return half_width_log(spread_log=spread_log, pairs=pairs, confidence=confidence) > abs(ratio - 1) / 2
