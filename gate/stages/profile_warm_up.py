"""When a model that is run again and again has become steady: a test of the last runs, with a cap.

Pure: no clock.  A constant number of warm-up runs is too few where kernels are compiled or clocks climb, and wasted
where nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

AGREE = 0.05
"""Runs agree when they lie within this share of their median; of `FIRST.window` runs, one may be disturbed."""

TIE = 0.01
"""Smaller differences between two runs count as none when a trend is looked for."""

_MOST_CONCORDANT = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmUp:
    """`window` runs are looked at (and are the fewest), `at_most` are made."""

    window: int
    at_most: int


FIRST = WarmUp(window=5, at_most=20)
"""Where a process runs a shape or load for the first time: kernels are compiled and caches filled."""

LATER = WarmUp(window=2, at_most=6)
"""In later blocks: the other model ran in between, nothing else is new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmedUp:
    """How a warm-up ended; `became_steady` is False where the cap ended it."""

    runs: int
    became_steady: bool


def warm_up(run: Callable[[int], tuple[float, float]], plan: WarmUp) -> WarmedUp:
    """Call `run` with 0, 1, … until it is steady, at most `plan.at_most` times.

    `run` returns seconds: to the first token, and in all.  Both must show no trend; the runs must agree on the second
    (a first token takes so little in a small model that it never would).
    """
    first_seconds: list[float] = []
    all_seconds: list[float] = []
    while len(all_seconds) < plan.at_most:
        first, whole = run(len(all_seconds))
        first_seconds.append(first)
        all_seconds.append(whole)
        last = all_seconds[-plan.window :]
        if len(last) == plan.window and agree(last) and not any(map(trend, (last, first_seconds[-plan.window :]))):
            return WarmedUp(runs=len(all_seconds), became_steady=True)
    return WarmedUp(runs=len(all_seconds), became_steady=False)


def agree(seconds: Sequence[float]) -> bool:
    """Whether runs lie within `AGREE` of their median: all of them, or all but one of at least four."""
    middle = median(seconds)
    outside = sum(abs(s - middle) > AGREE * middle for s in seconds)
    return outside <= (1 if len(seconds) >= 4 else 0)


def trend(seconds: Sequence[float]) -> bool:
    """Whether the runs get faster or slower, by Kendall's S: pairs that rise minus pairs that fall.

    Of five independent runs, a trend is seen in 1 of 12 by chance (|S| ≥ 8 of 10 pairs), which costs a run more.
    Fewer than four cannot show one.
    """
    if len(seconds) < 4:
        return False
    pairs = list(combinations(seconds, 2))
    rising = sum(later > earlier * (1 + TIE) for earlier, later in pairs)
    falling = sum(later * (1 + TIE) < earlier for earlier, later in pairs)
    return abs(rising - falling) > _MOST_CONCORDANT * len(pairs)
