"""How much a paired comparison of n items can see before anything is run (docs/statistics.md, planning).

Pure; normal quantiles and counting only.  Knows nothing of policies: numbers in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gate.stats.quantiles import SMALL_SAMPLE, small_sample, z
from gate.stats.tango import z_score

POWER = 0.8


def smallest_drop(*, n: int, flip_rate: float, confidence: float) -> float:
    """Smallest drop (rate) that n paired items tell from none, at 80 % power: 2.486·√(f/n) at 95 %."""
    return (z(confidence) + z(POWER)) * math.sqrt(flip_rate / n)


def items_needed(*, drop: float, flip_rate: float, confidence: float) -> int:
    """Items at which `smallest_drop` equals `drop`."""
    return math.ceil(flip_rate * ((z(confidence) + z(POWER)) / drop) ** 2)


def reach(*, n: int, level: float) -> float:
    """How far a score interval reaches from a perfect result over n items: z²/(n + z²), never zero.

    Tango's when not one answer changed, Wilson's when every item is right; `level` is that of the interval.
    """
    square = z(level) ** 2
    return square / (n + square)


def items_within(*, room: float, level: float) -> int | None:
    """Fewest items at which `reach` is at most `room`; None when no number is enough."""
    return max(1, math.ceil(z(level) ** 2 * (1 - room) / room)) if room > 0 else None


def items_to_pass(*, drop: float, confidence: float) -> int | None:
    """Fewest items with which a candidate that changes no answer can pass a bound of `drop`; None for no number."""
    few = items_within(room=drop, level=small_sample(confidence, 1))
    many = items_within(room=drop, level=confidence)
    return few if few is None or many is None or few < SMALL_SAMPLE else max(many, SMALL_SAMPLE)


def lossless_pass(*, n: int, flip_rate: float, drop: float, confidence: float) -> float:
    """Probability that a candidate as good as the baseline passes `max_drop: drop` by Tango's score test.

    Flips are binomial (n, `flip_rate`), each lost or gained with equal probability: enumerated.
    `confidence` is the level of the test itself (`stats.quantiles.small_sample` lowers α at small n).
    """
    critical = z(confidence)
    return enumerated(n, flip_rate, lambda flips: most_lost(flips, n, drop, critical))


def full_run_pass(*, n: int, flip_rate: float, allowed: int) -> float:
    """Probability that a candidate as good as the baseline nets at most `allowed` items lost over all n.

    That is how often it passes in benchmark scope: flips as for `lossless_pass`, compared as integers.
    """
    return enumerated(n, flip_rate, lambda flips: min((allowed + flips) // 2, flips))


def likely_flips(n: int, flip_rate: float) -> range:
    """Numbers of flips among n items within six sd of their mean."""
    spread = 6 * math.sqrt(n * flip_rate * (1 - flip_rate)) + 6
    return range(max(0, math.floor(n * flip_rate - spread)), min(n, math.ceil(n * flip_rate + spread)) + 1)


def enumerated(n: int, flip_rate: float, largest_lost: Callable[[int], int]) -> float:
    """P(lost ≤ `largest_lost(flips)`) over the likely flips, each lost with probability ½; −1 stands for never."""
    total = 0.0
    for flips in likely_flips(n, flip_rate):
        most = largest_lost(flips)
        if most >= 0:
            total += math.exp(_log_binomial(n, flips, flip_rate)) * _half_binomial_cdf(flips, most)
    return min(total, 1.0)


SMALLEST_FLIP_RATE = 0.01
LATE = 1.7
"""The 90th percentile of the items needed, as a multiple of their mean [simulated: docs/statistics.md, planning]."""


def expected_items(*, n: float, flip_rate: float, drop_rate: float, bound: float, alpha: float) -> float:
    """About how many items the sequential rule needs, of n, when the true drop is `drop_rate` and `bound` is allowed.

    n₀ = 2·f·ln(1/α)/(bound − drop)² items with replacement; 1.25·n₀/(1 + n₀/n) without, at most n.  n = ∞ stands for
    population scope.  Flips are at least 1 % and at least the drop itself; at the bound it takes all n.
    """
    gap = abs(bound - drop_rate)
    if gap == 0:
        return n
    flips = max(flip_rate, abs(drop_rate), SMALLEST_FLIP_RATE)
    alone = 2 * flips * math.log(1 / alpha) / gap**2
    return min(n, 1.25 * alone / (1 + alone / n))


def items_to_keep(*, drop: float, flip_rate: float) -> int:
    """Items from which on a lossless candidate stays within `drop` over the full run in 80 % of cases."""
    return math.ceil(max(flip_rate * (z(POWER) / drop) ** 2, 1 / drop))


def most_lost(flips: int, n: int, drop: float, critical: float) -> int:
    """Largest number of lost items among `flips` whose score against `drop` reaches `critical`, −1 for none.

    The score falls with every item lost.
    """
    low, high = -1, flips
    while low < high:
        lost = (low + high + 1) // 2
        if z_score(lost=lost, gained=flips - lost, n=n, difference=-drop) >= critical:
            low = lost
        else:
            high = lost - 1
    return low


def _log_binomial(n: int, k: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)


def _half_binomial_cdf(n: int, k: int) -> float:
    """P(X ≤ k) for X binomial (n, ½): summed up to 300, beyond that the normal curve with its half-step."""
    if n <= 300:
        return sum(math.comb(n, i) for i in range(k + 1)) / 2.0**n
    return normal_cdf((k + 0.5 - n / 2) / math.sqrt(n / 4))


def student(confidence: float, degrees_of_freedom: int) -> float:
    """Student's t quantile to three digits from 3 degrees of freedom on, without scipy (Abramowitz & Stegun 26.7.5)."""
    x, v = z(confidence), float(degrees_of_freedom)
    return (
        x
        + (x**3 + x) / (4 * v)
        + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * v**2)
        + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / (384 * v**3)
        + (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / (92160 * v**4)
    )


# Per-token spread of the NLL difference of a typical 4-bit checkpoint, and how tokens of one document go
# together: chosen so that 256 tokens of a document have the design effect of 3 seen in public measurements.
TOKEN_SD_NATS = 0.27
_WITHIN_DOCUMENT = 0.008
_LARGEST_DESIGN_EFFECT = 6.0


def perplexity_error_nats(*, documents: int, tokens: float) -> float:
    """Expected standard error of the log perplexity ratio over `tokens` spread evenly over `documents`."""
    effect = min(1 + _WITHIN_DOCUMENT * max(tokens / documents - 1, 0), _LARGEST_DESIGN_EFFECT)
    return TOKEN_SD_NATS * math.sqrt(effect / tokens)


def smallest_increase(*, documents: int, tokens: float, confidence: float) -> float:
    """Smallest relative perplexity increase told from none, at 80 % power."""
    width = student(confidence, documents - 1) + z(POWER)
    return math.expm1(width * perplexity_error_nats(documents=documents, tokens=tokens))


def largest_timing_spread(*, ratio: float, blocks: int, confidence: float) -> float:
    """Largest sd (log scale) between pairs of timing blocks with which a bound on the ratio is decidable."""
    width = student(confidence, blocks - 1) + student(POWER, blocks - 1)
    return abs(math.log(ratio)) * math.sqrt(blocks) / width


def normal_cdf(deviation: float) -> float:
    """P(Z ≤ deviation) of the standard normal."""
    return 0.5 * math.erfc(-deviation / math.sqrt(2))
