"""What an estimand yields for a rule: a number and limits on the scale of the bound, at any confidence.

Pure.  Knows how rules compare (`harm <= bound`), not how anything is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gate.errors import CouldNotMeasure
from gate.records import Bound, BoundKind, Direction, Metric, Rule, Status
from gate.stats import Limits
from gate.stats.quantiles import z

POWER = 0.8
"""Power at which the smallest resolvable drop and the items needed are stated."""

_FORESEEABLE = 1e4  # an estimate closer to the bound than this part of a half-width says nothing of how many it takes

_LARGER_IS_WORSE = frozenset({BoundKind.MAX_DROP, BoundKind.MAX_INCREASE, BoundKind.MAX})

NOUN = {
    BoundKind.MAX_DROP: "drop",
    BoundKind.MAX_INCREASE: "increase",
    BoundKind.MIN_RETAINED: "share retained",
    BoundKind.MIN_SPEEDUP: "speed-up",
    BoundKind.MAX: "value",
    BoundKind.MIN: "value",
}
"""What the numbers of a finding are, by kind of bound."""

Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Evidence on one rule, on the scale of its bound.

    Attributes:
        baseline, candidate: the metric's values, as people know them.
        value: the drop, increase, ratio or value that the bound limits.
        limits: one-sided confidence → (low, high), for `value`.
        method: names from `stats.METHODS`, joined by `+` where the wider of several counts.
        counts: sufficient statistics.
        unit: what `n_paired` counts, for people; None where more of them would decide nothing.
        n_paired: items the estimate rests on.
        n_lost: items expected that it does not rest on.
        detectable: the smallest distance from no change that this many items resolve, or None.
        best: the best value there can be, where there is one (a rate of 1): no finite sample shows it.
        undecidable: why nothing may be concluded whatever the limits, or None.
        cautions: what the reader should know about the limits.
    """

    baseline: float | None
    candidate: float
    value: float
    limits: Callable[[float], Span]
    method: str
    counts: Mapping[str, float]
    unit: str | None
    n_paired: int
    n_lost: int
    detectable: float | None
    best: float | None
    undecidable: str | None
    cautions: tuple[str, ...]


def span(limits: Limits) -> Span:
    """The two ends of a stats result."""
    return limits.low, limits.high


def hull(*spans: Span) -> Span:
    """The smallest interval that holds them all."""
    return min(s[0] for s in spans), max(s[1] for s in spans)


def larger_is_worse(kind: BoundKind) -> bool:
    return kind in _LARGER_IS_WORSE


def harm(kind: BoundKind, value: float) -> float:
    """How bad `value` is: comparisons read `harm(value) <= harm(bound)` for every kind of bound."""
    return value if kind in _LARGER_IS_WORSE else -value


def decide(limits: Span, bound: Bound) -> Status:
    """PASS when the whole interval keeps the bound, REGRESSION when none of it does, else INCONCLUSIVE."""
    least, most = sorted(harm(bound.kind, end) for end in limits)
    limit = harm(bound.kind, bound.value)
    if most <= limit:
        return Status.PASS
    if least > limit:
        return Status.REGRESSION
    return Status.INCONCLUSIVE


def margin(value: float, limits: Span, bound: Bound) -> float:
    """How far beyond the bound, in half-widths of the interval: what `worst first` sorts by."""
    half = max((limits[1] - limits[0]) / 2, 1e-300)
    return (harm(bound.kind, value) - harm(bound.kind, bound.value)) / half


def p_value(limits: Callable[[float], Span], bound: Bound, at_most: float) -> float:
    """Smallest α at which the interval with one-sided confidence 1 − α lies beyond the bound; 1 above `at_most`.

    The intervals shrink as α grows, so a bisection on log α finds it, to 2 % and from above; one in a million is
    small enough for any family.
    """
    low, high = 1e-6, at_most

    def beyond(alpha: float) -> bool:
        return decide(limits(1 - alpha), bound) is Status.REGRESSION

    if not beyond(high):
        return 1.0
    if beyond(low):
        return low
    while high / low > 1.02:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


def points_against(metric: Metric, kind: BoundKind) -> str | None:
    """Why this bound would punish an improvement of this metric, or None."""
    lower = metric.direction is Direction.LOWER_IS_BETTER
    if kind in (BoundKind.MAX_DROP, BoundKind.MIN_RETAINED) and lower:
        return f"{metric.name} is better when lower, so {kind} would punish an improvement: use max or max_increase"
    if kind is BoundKind.MAX_INCREASE and not lower:
        return f"{metric.name} is better when higher, so {kind} would punish an improvement: use min or min_retained"
    return None


def check_can_fail(rule: Rule, baseline: float | None) -> None:
    """A score from 0 to 1 must leave room for a candidate beyond the bound: else a pass would say nothing.

    `baseline` is its score with lost items counted as wrong.

    Raises:
        CouldNotMeasure: no candidate could fail the rule, at this baseline or at any.
    """
    kind, value = rule.bound.kind, rule.bound.value
    if kind is BoundKind.MAX_DROP and baseline is not None and baseline <= value:
        raise CouldNotMeasure(
            f"no candidate could fail this rule: the baseline scores {100 * baseline:.3g}% and a drop of "
            f"{100 * value:.4g} pp is allowed; fix the template, the matcher or the task, or use a tighter bound"
        )
    if (kind is BoundKind.MAX and value >= 1) or (kind is BoundKind.MIN and value <= 0):
        raise CouldNotMeasure(
            f"no candidate could fail this rule: {kind}: {rule.bound.text} allows every score from 0 to 1; "
            "use a tighter bound"
        )


def check_above_chance(rule: Rule, baseline: float, chance: float) -> None:
    """Guessing must not pass: near chance a rule can never see a regression.

    Raises:
        CouldNotMeasure: a candidate that picks its answers at random would keep the bound.
    """
    kind, value = rule.bound.kind, rule.bound.value
    kept = {BoundKind.MAX_DROP: baseline - value, BoundKind.MIN_RETAINED: baseline * value}.get(kind)
    if kept is not None and kept <= chance:
        raise CouldNotMeasure(
            f"a candidate that guesses would pass this rule: the baseline scores {100 * baseline:.3g}%, guessing "
            f"{100 * chance:.3g}%, and the bound is {kind} {rule.bound.text}; near chance no regression can be seen: "
            "fix the template or the task, or use one that the baseline can do"
        )


def resolution_factor(confidence: float) -> float:
    """z at the confidence plus z at the power: 2.486 at 0.95 and 0.8."""
    return z(confidence) + z(POWER)


def n_needed(estimate: Estimate, limits: Span, bound: Bound, confidence: float) -> int | None:
    """About how many items would decide, if the estimate is the truth; None if that cannot be foreseen.

    n·(detectable/gap)², gap being the distance from the estimate to the bound: for item rates this is
    (z_conf + z_power)²·f/gap², power 0.8 at the observed flip rate f.  Where `detectable` is unknown,
    (z_conf + z_power)/z_conf half-widths stand for it.  With no flips at all the width shrinks like 1/n: n·half/gap.
    """
    gap = abs(estimate.value - bound.value)
    half = limits[1] - estimate.value if bound.value >= estimate.value else estimate.value - limits[0]
    if estimate.unit is None or estimate.undecidable or gap * _FORESEEABLE <= half:
        return None
    if estimate.counts.get("b") == 0 == estimate.counts.get("c"):
        needed = estimate.n_paired * half / gap
    else:
        resolved = estimate.detectable or resolution_factor(confidence) / z(confidence) * half
        needed = estimate.n_paired * (max(resolved, half) / gap) ** 2
    return int(needed) + 1
