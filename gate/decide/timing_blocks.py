"""Timing blocks of a measurement: which pairs are there, which numbers of them were planned, and one series by itself.

Pure.  Blocks of the first measurement are called `block/<k>`, those of the second, fresh one `again/<k>`; k pairs the
roles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gate.decide import conditions
from gate.errors import CouldNotMeasure
from gate.metrics import DESCRIBED
from gate.records import Measurement, Metric
from gate.stats.log_ratio import BetweenProcesses

FIRST, SECOND = "block", "again"


def about(measurement: Measurement, metric: Metric) -> Measurement:
    """The measurement without what a rule on this metric never looks at: single times come by the ten thousand."""
    names = {metric.observed, *DESCRIBED}
    return replace(measurement, observations=tuple(o for o in measurement.observations if o.metric in names))


def planned(measurements: Sequence[Measurement]) -> tuple[int, ...]:
    """Numbers of pairs at which timing is judged, ascending; the one of `n_expected` where nothing else was planned.

    Raises:
        CouldNotMeasure: the roles were planned differently.
    """
    plans = set()
    for measurement in measurements:
        looks = {int(o.value) for o in measurement.observations if o.metric == "look_pairs"}
        plans.add(tuple(sorted(looks or {measurement.n_expected})))
    if len(plans) > 1:
        listed = " and ".join(", ".join(map(str, plan)) for plan in sorted(plans))
        raise CouldNotMeasure(
            f"found looks planned at {listed} pairs of blocks, expected the same for both: measure both with one policy"
        )
    return plans.pop()


def reached(series: str, measurements: Sequence[Measurement]) -> int:
    """Pairs of blocks of the series that every role has."""
    if series == FIRST:
        return min(m.n_reached for m in measurements)
    return min(len(_blocks(series, m)) for m in measurements)


def _blocks(series: str, measurement: Measurement) -> set[int]:
    items = (i.item_id for of in (measurement.observations, measurement.failures) for i in of)
    return {k for item in items if (k := _block(series, item)) is not None}


def _block(series: str, item_id: str) -> int | None:
    if not item_id.startswith(f"{series}/"):
        return None
    number = item_id[len(series) + 1 :].partition("/")[0]
    return int(number) if number.isdecimal() else None


def part(measurement: Measurement, series: str, pairs: int, observed: str, group: str | None) -> Measurement:
    """The first `pairs` blocks of a series, of one group and one quantity, as if nothing else had been measured."""

    def within(item_id: str) -> bool:
        k = _block(series, item_id)
        return k is not None and k < pairs

    failures = tuple(f for f in measurement.failures if within(f.item_id))
    if group is not None:
        failures = tuple(f for f in failures if f.item_id.endswith(f"/{group}"))
    return replace(
        measurement,
        observations=tuple(
            o for o in measurement.observations if o.group == group and o.metric == observed and within(o.item_id)
        ),
        failures=failures,
        n_expected=pairs,
        n_reached=pairs,
    )


def disturbed(measurements: Sequence[Measurement], series: str, pairs: int) -> tuple[int, str | None]:
    """How many of the first `pairs` pairs stayed disturbed, and what disturbed the first of these blocks, or None."""
    found: dict[int, str] = {}
    for measurement in measurements:
        for item_id, seen in conditions.of_blocks(measurement).items():
            k = _block(series, item_id)
            what = conditions.disturbance(seen) if k is not None and k < pairs else None
            if k is not None and what is not None:
                found.setdefault(k, f"block {k} of the {measurement.role}: {what}")
    return len(found), found[min(found)] if found else None


def between_processes(baseline: Measurement | None, metric: Metric, group: str | None) -> BetweenProcesses | None:
    """What fresh pairs of processes were found to differ by; None where no calibration says.

    Raises:
        CouldNotMeasure: a calibration with fewer than two pairs of processes.
    """
    item = f"calibrated/{metric.observed}"
    for o in () if baseline is None else baseline.observations:
        if (o.metric, o.item_id, o.group) == ("between_process_log_sd", item, group):
            try:
                return BetweenProcesses(sd_log=o.value, pairs=int(o.weight))
            except ValueError as problem:
                raise CouldNotMeasure(f"{metric.name}: {problem}; run gate calibrate again") from problem
    return None
