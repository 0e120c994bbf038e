"""Rules on timing blocks and on quantities read off once per run: speed, latency, memory, bytes on disk.

Pure.  Blocks pair by their number inside one batch size; a batch size that could not run is never left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import geometric_mean, median

from gate.decide.estimate import Estimate, Span, larger_is_worse, span
from gate.decide.items import ABSOLUTE
from gate.decide.pairing import Pairs, alone, check_lost, lost_text, pair
from gate.errors import CouldNotMeasure
from gate.records import BoundKind, Direction, Estimand, Measurement, Metric, Rule
from gate.stats import exact, hodges_lehmann, log_ratio

BATCH = "batch="
_BYTE_RESOLUTION = 0.5
_RELATIVE_RESOLUTION = 1e-6


def batches(rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric) -> tuple[str | None, ...]:
    """The groups that a rule covers: the one it names, else every batch size that either role ran or failed.

    Raises:
        CouldNotMeasure: the metric was not observed at all, or not by batch size.
    """
    found: set[str | None] = set()
    for measurement in (candidate,) if baseline is None else (baseline, candidate):
        found |= {o.group for o in measurement.observations if o.metric == metric.observed}
        tails = (f.item_id.rsplit("/", 1)[-1] for f in measurement.failures)
        if metric.estimand is Estimand.TIMING:
            found |= {tail for tail in tails if tail.startswith(BATCH)}
    if rule.batch is not None and found == {None}:
        raise CouldNotMeasure(f"{metric.name} is read once for all batch sizes: remove `batch` from the rule")
    if rule.batch is not None:
        return (f"{BATCH}{rule.batch}",)
    if not found:
        raise CouldNotMeasure(f"{metric.name}: nothing was measured by either role")
    return tuple(sorted(found, key=_batch_size))


def _batch_size(group: str | None) -> tuple[int, str]:
    number = (group or "").removeprefix(BATCH)
    return (int(number), "") if number.isdigit() else (0, group or "")


def timing(
    rule: Rule,
    baseline: Measurement | None,
    candidate: Measurement,
    metric: Metric,
    group: str | None,
    confidence: float,
) -> Estimate:
    """Judge-ready evidence on one batch size: paired t on log ratios, or the candidate's geometric mean.

    Speed-up and retention are in the direction of better: a latency that halves is a speed-up of 2.

    Raises:
        CouldNotMeasure: blocks are missing or there are fewer than two, or a value is not positive.
    """
    kind = rule.bound.kind
    pairs = _blocks(baseline, candidate, metric, group)
    check_lost(pairs, rule.max_lost)
    b, c = [p.baseline for p in pairs.paired], [p.candidate for p in pairs.paired]
    if len(b) < 2 or min(*b, *c) <= 0:
        raise CouldNotMeasure(
            f"{metric.name}: found {len(b)} blocks, smallest value {min(*b, *c):g}; expected at least 2 blocks and "
            "positive values"
        )
    inverted = kind is BoundKind.MIN_SPEEDUP and metric.direction is Direction.LOWER_IS_BETTER

    def limits(level: float) -> Span:
        if kind in ABSOLUTE:
            return span(log_ratio.geometric_mean(values=c, confidence=level))
        over, under = (b, c) if inverted else (c, b)
        low, high = span(log_ratio.interval(baseline=under, candidate=over, confidence=level))
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
        counts={"R": len(b), "N": pairs.n_expected, **_shift(b, c)},
        unit="pairs of blocks",
        n_paired=len(b),
        n_lost=pairs.n_lost,
        detectable=None,
        best=None,
        undecidable=f"{lost_text(pairs)} and could hold any value" if pairs.n_lost else None,
        cautions=(),
    )


def _shift(baseline: Sequence[float], candidate: Sequence[float]) -> dict[str, float]:
    """Hodges and Lehmann's ratio beside the paired t: one block that was disturbed does not move it."""
    try:
        found = hodges_lehmann.interval(baseline=baseline, candidate=candidate, confidence=0.9)
    except ValueError:
        return {}  # too few blocks for it
    return {"hodges_lehmann_ratio": found.estimate}


def scalar(
    rule: Rule,
    baseline: Measurement | None,
    candidate: Measurement,
    metric: Metric,
    group: str | None,
    confidence: float,
) -> Estimate:
    """Judge-ready evidence on a (nearly) deterministic number; every reading must keep the bound.

    Bytes are running peaks or sizes, so the largest reading is the value, exact to the byte.  Other readings
    are repeats: the interval spans them.

    Raises:
        CouldNotMeasure: no reading, a peak cut short by running out of memory, or a baseline of zero to compare with.
    """
    kind = rule.bound.kind
    compared = [candidate] if baseline is None or kind in ABSOLUTE else [baseline, candidate]
    for measurement in compared:
        _check_whole_peak(measurement, metric)
    c = _readings(candidate, metric, group)
    worse_up = larger_is_worse(kind)
    if kind in ABSOLUTE:
        b: list[float] = []
        step = _BYTE_RESOLUTION if metric.unit == "B" else _RELATIVE_RESOLUTION * max(abs(c[0]), _RELATIVE_RESOLUTION)
        result = exact.value(readings=c, resolution=step, larger_is_worse=worse_up, confidence=confidence)
        shift = 0.0
    else:
        if baseline is None:
            raise CouldNotMeasure(f"{metric.name}: the baseline was not measured")
        b = _readings(baseline, metric, group)
        if min(b) <= 0:
            raise CouldNotMeasure(f"{metric.name}: the baseline reads {min(b):g}, expected more than 0 to compare with")
        step = _BYTE_RESOLUTION / b[0] if metric.unit == "B" else _RELATIVE_RESOLUTION
        result = exact.ratio(baseline=b, candidate=c, resolution=step, larger_is_worse=worse_up, confidence=confidence)
        shift = 1.0 if kind is BoundKind.MAX_INCREASE else 0.0
    return Estimate(
        baseline=median(b) if b else None,
        candidate=median(c),
        value=result.estimate - shift,
        limits=lambda level: (result.low - shift, result.high - shift),
        method="exact" if kind in ABSOLUTE else "exact_ratio",
        counts={"readings": len(c)},
        unit=None,
        n_paired=len(c),
        n_lost=0,
        detectable=None,
        best=None,
        undecidable=None,
        cautions=(),
    )


def _blocks(baseline: Measurement | None, candidate: Measurement, metric: Metric, group: str | None) -> Pairs:
    def only(measurement: Measurement) -> Measurement:
        kept = tuple(o for o in measurement.observations if o.metric == metric.observed and o.group == group)
        failures = measurement.failures
        if group is not None:
            failures = tuple(f for f in failures if f.item_id.endswith(f"/{group}"))
        return replace(measurement, observations=kept, failures=failures)

    return alone(only(candidate), metric) if baseline is None else pair(only(baseline), only(candidate), metric)


def _check_whole_peak(measurement: Measurement, metric: Metric) -> None:
    """A run that did not fit has no peak: what was read is the peak of the runs that did."""
    failed = [f.item_id for f in measurement.failures if f.kind == "out_of_memory"]
    if metric.unit == "B" and metric.observed != "disk_bytes" and failed:
        raise CouldNotMeasure(
            f"{metric.name}: the {measurement.role} ran out of memory in {failed[0]} ({len(failed)} in all), so its "
            "peak is not known: take that batch size out of batch_sizes, or use a larger device"
        )


def _readings(measurement: Measurement, metric: Metric, group: str | None) -> list[float]:
    found: Sequence[float] = [
        o.value for o in measurement.observations if o.metric == metric.observed and o.group == group
    ]
    if not found:
        raise CouldNotMeasure(
            f"{metric.name}: the {measurement.role} has no reading of it; does this device and backend report it?"
        )
    return [max(found)] if metric.unit == "B" else sorted(found)
