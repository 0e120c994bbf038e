"""Quantities that are (nearly) the same at every reading: bytes on disk, peak memory, seconds to load.

Pure.  The interval spans the readings and says how finely they were read; it is no statement of confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True, slots=True)
class Exact:
    """Readings are taken as rounded towards the worse side by up to `resolution`."""

    readings: int
    resolution: float
    confidence: float
    estimate: float
    low: float
    high: float


def value(*, readings: Sequence[float], resolution: float, larger_is_worse: bool, confidence: float) -> Exact:
    """Smallest to largest reading, and `resolution` beyond on the better side.

    On that side because equal must stay equal: 24 GiB keeps a bound of 24 GiB, one byte more does not.

    Raises:
        ValueError: no reading, or no resolution.
    """
    _check(readings, resolution)
    low, high = min(readings), max(readings)
    return _exact(readings, resolution, confidence, median(readings), low, high, larger_is_worse)


def ratio(
    *,
    baseline: Sequence[float],
    candidate: Sequence[float],
    resolution: float,
    larger_is_worse: bool,
    confidence: float,
) -> Exact:
    """Candidate over baseline: most favourable to least favourable reading of either.

    `resolution` is that of the ratio.

    Raises:
        ValueError: no reading, no resolution, or a baseline reading that is not positive.
    """
    _check(candidate, resolution)
    if not baseline or min(baseline) <= 0:
        raise ValueError(f"found baseline readings {list(baseline)!r}, expected positive ones")
    low, high = min(candidate) / max(baseline), max(candidate) / min(baseline)
    estimate = median(candidate) / median(baseline)
    return _exact(candidate, resolution, confidence, estimate, low, high, larger_is_worse)


def _exact(
    readings: Sequence[float],
    resolution: float,
    confidence: float,
    estimate: float,
    low: float,
    high: float,
    larger_is_worse: bool,
) -> Exact:
    # A step smaller than the spacing of floats would vanish.
    step = max(resolution, 2 * math.ulp(low), 2 * math.ulp(high))
    return Exact(
        readings=len(readings),
        resolution=step,
        confidence=confidence,
        estimate=estimate,
        low=low - step if larger_is_worse else low,
        high=high if larger_is_worse else high + step,
    )


def _check(readings: Sequence[float], resolution: float) -> None:
    if not readings or resolution <= 0:
        raise ValueError(f"found {len(readings)} readings at resolution {resolution!r}, expected one or more, and > 0")
