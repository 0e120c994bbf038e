"""What one rule can see before anything is run; here the record, and the rules on timing, memory and size.

Pure: no I/O, no model, no data.  Judges no checkpoint; a number that is not known stays None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gate.decide import power
from gate.records import BoundKind, Estimand, Rule

Floors = Mapping[tuple[str, str], float]
"""(stage, source) → share of answers that the baseline changed against itself (`gate calibrate`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Items that a sequential decision needs on average when the true harm is none, half the bound, twice the bound."""

    lossless: int
    half: int
    twice: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Probability that a lossless and a usual 4-bit candidate pass at a planned look, taken by itself."""

    tokens: int
    lossless: float
    typical: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """Numbers are None where they are unknown or make no sense for the rule.

    Attributes:
        unit: what is counted: `items`, `documents`, `timing blocks` or `runs`.
        available: how many there are; `n`: how many the policy uses; `cap`: after how many of these a last look ends
            it (`max_items`).
        expected: how many of those n are needed.
        smallest: smallest harm told from none at 80 % power where the verdict shall hold for tasks (texts) like
            these, as a rate (drop in accuracy, increase).
        odds: probability that a candidate as good as the baseline passes.
        needed: how many it takes for that at 80 % power.
        tokens: documents: about how many tokens go through the model for all of it.
        looks: documents: the planned looks, when there are several.
        spread: timing: largest sd between block pairs (log scale) with which the rule is decidable.
        says: what else the rule can see, in one sentence, or "".
        problem: why it can never pass, or None.
    """

    unit: str
    available: int | None
    n: int | None
    says: str
    expected: Expected | None = None
    flip_rate: float | None = None
    smallest: float | None = None
    odds: float | None = None
    needed: int | None = None
    tokens: float | None = None
    looks: tuple[Look, ...] = ()
    spread: float | None = None
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    cap: int | None = None

    @property
    def most(self) -> int | None:
        """How many are measured if nothing settles it earlier."""
        return self.n if self.cap is None else self.cap


def over_blocks(rule: Rule, *, estimand: Estimand, blocks: int, confidence: float) -> Outlook:
    """Timing in interleaved pairs of blocks; memory, size and load time are single numbers."""
    if estimand is not Estimand.TIMING:
        return Outlook(unit="runs", available=None, n=1, says="Measured once and compared as it is.")
    says, spread = f"{blocks} pairs of timing blocks, baseline and candidate in turn.", None
    ratios = {BoundKind.MIN_RETAINED: rule.bound.value, BoundKind.MAX_INCREASE: 1 + rule.bound.value}
    ratio = ratios.get(rule.bound.kind, 1.0)
    if ratio not in (0.0, 1.0):
        spread = power.largest_timing_spread(ratio=ratio, blocks=blocks, confidence=confidence)
        says = f"Decidable while {blocks} pairs of timing blocks differ by no more than {spread:.1%} (sd)."
    return Outlook(unit="timing blocks", available=None, n=blocks, says=says, spread=spread)


def written(rule: Rule) -> str:
    """The bound as the policy writes it: `max_drop: 3pp`."""
    return f"{rule.bound.kind}: {rule.bound.text}"


def points(share: float) -> str:
    """A rate in percentage points, with two significant digits below one point."""
    return f"{share * 100:.1f} pp" if share >= 0.00995 else f"{share * 100:.2g} pp"


def chance_of(probability: float) -> str:
    """A probability in whole percent, never rounded to certainty."""
    if probability > 0.995:
        return "more than 99%"
    return "less than 1%" if probability < 0.005 else f"{probability:.0%}"
