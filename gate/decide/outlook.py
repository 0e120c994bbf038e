"""What one rule can see before anything is run; here the record, and the rules on timing, memory and size.

Pure: no I/O, no model, no data.  Judges no checkpoint; a number that is not known stays None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gate.decide import power
from gate.metrics import PROFILE, QUANTILES
from gate.policy import ProfileStage
from gate.records import BoundKind, Estimand, Rule
from gate.stats import order_statistics

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
        unit: what is counted: `items`, `documents`, `timing blocks`, `single times` or `runs`.
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


def over_profile(rule: Rule, stage: ProfileStage, confidence: float) -> Outlook:
    """Timing in interleaved pairs of blocks, percentiles of their single times; what is read once is a number.

    Each side of each planned look has its share of the error (`confidence` is that of the whole), so they are all held
    against what the last one can see.
    """
    metric, pairs = PROFILE[rule.metric], stage.planned_pairs
    level = 1 - (1 - confidence) / len(pairs)
    match metric.estimand:
        case Estimand.TIMING:
            return _over_blocks(rule, pairs, level)
        case Estimand.QUANTILE:
            return _over_times(rule, stage, level)
        case _:
            return Outlook(unit="runs", available=None, n=1, says="Measured once and compared as it is.")


def _over_blocks(rule: Rule, pairs: tuple[int, ...], level: float) -> Outlook:
    says, spread = f"{_planned(pairs)}, baseline and candidate in turn. {_TWICE}", None
    ratios = {
        BoundKind.MIN_RETAINED: rule.bound.value,
        BoundKind.MAX_INCREASE: 1 + rule.bound.value,
    }
    ratio = ratios.get(rule.bound.kind, 1.0)
    if ratio not in (0.0, 1.0):
        spread = power.largest_timing_spread(ratio=ratio, blocks=pairs[-1], confidence=level)
        at = "" if len(pairs) == 1 else "at the last look "
        says = f"{_planned(pairs)}: decidable {at}while they differ by no more than {spread:.1%} (sd). {_TWICE}"
    return Outlook(unit="timing blocks", available=None, n=pairs[-1], says=says, spread=spread)


_TWICE = "Red only when a second, fresh measurement says the same."


def _planned(pairs: tuple[int, ...]) -> str:
    """`8 pairs of timing blocks`, `Looks after 5 and 10 pairs of timing blocks`."""
    if len(pairs) == 1:
        return f"{pairs[0]} pairs of timing blocks"
    return f"Looks after {', '.join(map(str, pairs[:-1]))} and {pairs[-1]} pairs of timing blocks"


def _over_times(rule: Rule, stage: ProfileStage, level: float) -> Outlook:
    what, percentile, *_ = rule.metric.split("_")
    there = _single_times(rule, stage, what)
    share = QUANTILES[percentile]
    compared = rule.bound.kind is BoundKind.MAX_INCREASE
    needed = order_statistics.needed(share=share, confidence=order_statistics.split(level) if compared else level)
    of_both = " of each role" if compared else ""
    if there < needed:
        problem = (
            f"{percentile} of {what} needs {needed:,} single times{of_both}, the stage takes {there:,}: raise "
            f"{'requests or ' if rule.load else ''}blocks, or use a lower percentile"
        )
        return Outlook(unit="single times", available=there, n=there, says="", needed=needed, problem=problem)
    says = f"Judged over {there:,} single times{of_both}, of which {percentile} needs {needed:,}. {_TWICE}"
    return Outlook(unit="single times", available=there, n=there, says=says, needed=needed)


def _single_times(rule: Rule, stage: ProfileStage, what: str) -> int:
    """Of one role up to the last look, for what the rule covers; of several groups, for the one with the fewest."""
    pairs = stage.planned_pairs[-1]
    loads = [] if stage.serving is None else stage.serving.loads
    if rule.load is not None:
        return pairs * next(load.requests for load in loads if load.name == rule.load)
    shapes = [
        shape
        for shape in stage.shapes
        if rule.batch in (None, shape.batch_size) and rule.lengths in (None, shape.lengths)
    ]
    a_run = [shape.new_tokens - 1 if what == "tpot" else 1 for shape in shapes]
    return pairs * stage.runs_a_block * min(a_run)


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
