"""Which tables of flips speak at least as strongly as the one seen, by Tango's statistic: what exact tests enumerate.

Pure.  Knows no probabilities: they depend on how the pairs were drawn.

References:
    [1] T. Tango, Statistics in Medicine 17 (1998) 891–908.
    [2] H. Hsueh, J. Liu, J. Chen, Biometrics 57 (2001) 478–483: Z rises in `gained` and falls in `lost`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gate.stats.tango import z_score

_SAME = 1e-9  # statistics closer than this, relatively, are ties: a tie must count as at least as extreme


def least_gained(*, lost: int, gained: int, n: int, difference: float) -> NDArray[np.int64]:
    """For each number lost, 0..n, the fewest gained with Z ≥ Z(`lost`, `gained`); n + 1 where there is none.

    The finite-population factor would multiply every Z alike, so it does not matter here.

    Raises:
        ValueError: counts that are no counts of `n` ≥ 1 pairs.
    """
    seen = z_score(lost=lost, gained=gained, n=n, difference=difference)
    b, c = np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0), indexing="ij")
    reached = (b + c <= n) & (
        _z_scores(b, c, n, difference) >= seen - _SAME * max(1.0, abs(seen) if np.isfinite(seen) else 1.0)
    )
    return np.where(reached.any(axis=1), reached.argmax(axis=1), n + 1).astype(np.int64)


def _z_scores(lost: NDArray[np.float64], gained: NDArray[np.float64], n: int, difference: float) -> NDArray[np.float64]:
    """`tango.z_score` over arrays; a test holds the two together."""
    linear = -(lost + gained) + difference * (2 * n - gained + lost)
    constant = -lost * difference * (1 - difference)
    q = (np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    q = np.clip(q, max(0.0, -difference), (1 - difference) / 2)
    surplus = gained - lost - n * difference
    variance = n * (2 * q + difference - difference * difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = surplus / np.sqrt(np.maximum(variance, 0.0))
    return np.where(variance > 0, z, np.where(surplus == 0, 0.0, np.copysign(np.inf, surplus)))
