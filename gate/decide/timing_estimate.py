"""Judge-ready evidence on the blocks of one group: speeds and latencies by paired t, percentiles by order statistics.

Pure.  Sees the blocks of one look of one measurement; neither looks nor confirmation are known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import geometric_mean

from gate.decide.estimate import Estimate, Span, span
from gate.decide.items import ABSOLUTE
from gate.decide.pairing import LostItems, Pairs, alone, check_lost, lost_text, pair
from gate.decide.timing_groups import OF_LOADS, why_failed
from gate.errors import CouldNotMeasure
from gate.metrics import QUANTILES
from gate.records import BoundKind, Direction, Estimand, Measurement, Metric, Rule
from gate.stats import hodges_lehmann, log_ratio, order_statistics
from gate.stats.log_ratio import BetweenProcesses

_DEPENDENT = "the times of one run are not independent, so these limits promise more than they keep"


def estimate(
    rule: Rule,
    baseline: Measurement | None,
    candidate: Measurement,
    metric: Metric,
    group: str | None,
    *,
    between: BetweenProcesses | None,
    confidence: float,
) -> Estimate:
    """What the blocks say; `n_expected` of the measurements is the number of pairs looked at.

    Args:
        between: spread between fresh processes, where it was calibrated.
        confidence: the highest that the limits will be asked for.

    Raises:
        CouldNotMeasure: blocks are missing or failed, or their times cannot be judged.
    """
    if metric.estimand is Estimand.QUANTILE:
        return _quantile(rule, baseline, candidate, metric, group, confidence)
    return _paired_t(rule, baseline, candidate, metric, group, between)


def _paired_t(
    rule: Rule,
    baseline: Measurement | None,
    candidate: Measurement,
    metric: Metric,
    group: str | None,
    between: BetweenProcesses | None,
) -> Estimate:
    """Speed-up and retention are in the direction of better: a latency that halves is a speed-up of 2."""
    kind = rule.bound.kind
    pairs = alone(candidate, metric) if baseline is None else pair(baseline, candidate, metric)
    _check_failed(rule, pairs, group, [m for m in (baseline, candidate) if m is not None])
    check_lost(pairs, rule.max_lost)
    b, c = [p.baseline for p in pairs.paired], [p.candidate for p in pairs.paired]
    if metric.name == OF_LOADS and len(c) > 1:
        if max(c) == 0 and (kind in ABSOLUTE or min(b) > 0):
            return _nothing(rule, pairs, b)
        _check_served(metric, [] if kind in ABSOLUTE else b, c)
    _check_positive(metric, b, c)
    inverted = kind is BoundKind.MIN_SPEEDUP and metric.direction is Direction.LOWER_IS_BETTER

    def limits(level: float) -> Span:
        if kind in ABSOLUTE:
            return span(log_ratio.geometric_mean(values=c, confidence=level, between=between))
        over, under = (b, c) if inverted else (c, b)
        low, high = span(log_ratio.interval(baseline=under, candidate=over, confidence=level, between=between))
        return (low - 1, high - 1) if kind is BoundKind.MAX_INCREASE else (low, high)

    mean_b, mean_c = geometric_mean(b), geometric_mean(c)
    match kind:
        case BoundKind.MAX_INCREASE:
            value = mean_c / mean_b - 1
        case BoundKind.MIN_RETAINED | BoundKind.MIN_SPEEDUP:
            value = mean_b / mean_c if inverted else mean_c / mean_b
        case _:
            value = mean_c
    return Estimate(
        baseline=None if kind in ABSOLUTE else mean_b,
        candidate=mean_c,
        value=value,
        limits=limits,
        method="log_mean_t" if kind in ABSOLUTE else "log_ratio_t",
        counts={"R": len(b), "N": pairs.n_expected, **_shift(b, c), **_spread(between)},
        unit=None if between is not None else "pairs of blocks",
        n_paired=len(b),
        n_lost=pairs.n_lost,
        detectable=None,
        best=None,
        undecidable=_lost_blocks(pairs),
        cautions=_widened(between),
    )


def _nothing(rule: Rule, pairs: Pairs, baseline: Sequence[float]) -> Estimate:
    """No request of the candidate was good in any block: it retains 0, as the readings say, and logarithms cannot."""
    kind, blocks = rule.bound.kind, len(baseline)
    return Estimate(
        baseline=None if kind in ABSOLUTE else geometric_mean(baseline),
        candidate=0.0,
        value=0.0,
        limits=lambda level: (0.0, 0.0),
        method="exact" if kind in ABSOLUTE else "exact_ratio",
        counts={"R": blocks, "N": pairs.n_expected},
        unit=None,
        n_paired=blocks,
        n_lost=pairs.n_lost,
        detectable=None,
        best=None,
        undecidable=_lost_blocks(pairs),
        cautions=(f"in none of {blocks} blocks did any request of the candidate keep both objectives",),
    )


def _lost_blocks(pairs: Pairs) -> str | None:
    return f"{lost_text(pairs)} and could hold any value" if pairs.n_lost else None


def _check_served(metric: Metric, baseline: Sequence[float], candidate: Sequence[float]) -> None:
    """Blocks without one good request have no ratio; `baseline` is empty where the rule does not ask for it.

    Raises:
        CouldNotMeasure: which role has how many of them.
    """
    for role, values in (("baseline", baseline), ("candidate", candidate)):
        nothing = sum(value == 0 for value in values)
        if nothing:
            compared = "so there is nothing to compare with" if role == "baseline" else "and nothing has no ratio"
            raise CouldNotMeasure(
                f"{metric.name}: in {nothing} of {len(values)} blocks no request of the {role} kept both objectives, "
                f"{compared}: lower the rate, or loosen max_ttft or max_tpot"
            )


def _check_failed(rule: Rule, pairs: Pairs, group: str | None, measurements: Sequence[Measurement]) -> None:
    """Blocks that failed say why in their own words."""
    why = why_failed(group, measurements)
    if why is not None and (not pairs.paired or pairs.n_lost > rule.max_lost.allowed(pairs.n_expected)):
        raise LostItems(f"{pairs.metric.name}, {why}", n_paired=len(pairs.paired), n_lost=pairs.n_lost)


def _check_positive(metric: Metric, baseline: Sequence[float], candidate: Sequence[float]) -> None:
    smallest = min(*baseline, *candidate)
    if len(baseline) < 2 or smallest <= 0:
        raise CouldNotMeasure(
            f"{metric.name}: found {len(baseline)} blocks, smallest value {smallest:g}; expected at least 2 blocks and "
            "positive values"
        )


def _shift(baseline: Sequence[float], candidate: Sequence[float]) -> dict[str, float]:
    """Hodges and Lehmann's ratio beside the paired t: one block that was disturbed does not move it."""
    try:
        found = hodges_lehmann.interval(baseline=baseline, candidate=candidate, confidence=0.9)
    except ValueError:
        return {}  # too few blocks for it
    return {"hodges_lehmann_ratio": found.estimate}


def _spread(between: BetweenProcesses | None) -> dict[str, float]:
    return {} if between is None else {"between_process_log_sd": between.sd_log, "process_pairs": between.pairs}


def _widened(between: BetweenProcesses | None) -> tuple[str, ...]:
    if between is None:
        return ()
    return (
        f"the interval holds what fresh processes differ by, {between.sd_log:.2%} (sd of {between.pairs} pairs of "
        "processes)",
    )


def _quantile(
    rule: Rule,
    baseline: Measurement | None,
    candidate: Measurement,
    metric: Metric,
    group: str | None,
    confidence: float,
) -> Estimate:
    """Single times of all blocks together; a ratio takes both sides' limits at half of the error each."""
    name = metric.name.split("_")[1]
    share = QUANTILES[name]
    times = {m.role: [o.value for o in m.observations] for m in (baseline, candidate) if m is not None}
    why = why_failed(group, [m for m in (baseline, candidate) if m is not None])
    if why is not None:
        raise CouldNotMeasure(f"{metric.name}, {why}")
    least = order_statistics.needed(
        share=share, confidence=confidence if baseline is None else order_statistics.split(confidence)
    )
    fewest = min(len(found) for found in times.values())
    if fewest < least:
        raise CouldNotMeasure(
            f"{name} of {metric.observed.removesuffix('_sample_seconds')} needs {least:,} single times"
            f"{'' if baseline is None else ' of each role'}, there are {fewest:,}: raise blocks, or use a lower "
            "percentile"
        )
    c = times[candidate.role]
    b = [] if baseline is None else times[baseline.role]
    if min(*c, *(b or c)) <= 0:
        raise CouldNotMeasure(f"{metric.name}: found a time of {min(*c, *(b or c)):g} s, expected more than 0")

    def limits(level: float) -> Span:
        try:
            if not b:
                return span(order_statistics.value(times=c, share=share, confidence=level))
            low, high = span(order_statistics.ratio(baseline=b, candidate=c, share=share, confidence=level))
        except ValueError:  # more is asked than so many times can say
            return (0.0 if not b else -1.0, math.inf)
        return low - 1, high - 1

    here, there = (_sample(values, share) for values in (c, b or c))
    return Estimate(
        baseline=there if b else None,
        candidate=here,
        value=here / there - 1 if b else here,
        limits=limits,
        method="order_statistics_ratio" if b else "order_statistics",
        counts={"R": candidate.n_expected, "N": candidate.n_expected, "samples": fewest},
        unit=None,
        n_paired=candidate.n_expected,
        n_lost=0,
        detectable=None,
        best=None,
        undecidable=None,
        cautions=(_DEPENDENT,),
    )


def _sample(times: Sequence[float], share: float) -> float:
    return sorted(times)[order_statistics.estimate_rank(n=len(times), share=share) - 1]
