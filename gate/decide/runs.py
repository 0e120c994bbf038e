"""Rules on quantities read off once per run: memory taken apart, bytes on disk, the largest batch, time to load.

Pure.  They need no confirmation, and what disturbs the clock does not move them.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from gate import metrics
from gate.decide.estimate import Estimate, larger_is_worse
from gate.decide.items import ABSOLUTE
from gate.errors import CouldNotMeasure
from gate.records import BoundKind, Measurement, Metric, Rule
from gate.stats import exact

_BYTE_RESOLUTION = 0.5
_RELATIVE_RESOLUTION = 1e-6
_PEAKS = frozenset({"activation_peak", "rss_peak", "vram_peak", "vram_reserved", "vram_process", "vram_unused"})
"""What grows with the batches that were run: unknown where one of them did not fit."""

_ENERGY = frozenset({"joules_per_output_token"})
ON_CPU = "measured on CPU"
"""A note of the profile stage."""

_BY_THE_DRIVER = frozenset({"vram_process", "vram_context"})


def read_once(metric: Metric) -> bool:
    """Whether it is known however many blocks were measured: a scalar of the profile stage."""
    return metric.name in metrics.PROFILE


def scalar(
    rule: Rule, baseline: Measurement | None, candidate: Measurement, metric: Metric, confidence: float
) -> Estimate:
    """Judge-ready evidence on a (nearly) deterministic number; every reading must keep the bound.

    Bytes are running peaks or sizes, so the largest reading is the value, exact to the byte; of the batches that fit it
    is the smallest.  Other readings are repeats: the interval spans them.

    Raises:
        CouldNotMeasure: no reading, a peak cut short by running out of memory, or a baseline of zero to compare with.
    """
    for key in ("batch", "lengths", "load"):
        if getattr(rule, key) is not None:
            raise CouldNotMeasure(f"{metric.name} is read once for all batches and loads: remove `{key}` from the rule")
    kind = rule.bound.kind
    beside = None if kind in ABSOLUTE else baseline
    if beside is not None and metric not in beside.metrics:
        check_visible(metric.name, beside)
        raise CouldNotMeasure(f"{rule.source}: the baseline did not report {metric.name} as the candidate did")
    for measurement in (beside, candidate):
        if measurement is not None:
            _check_whole_peak(measurement, metric)
    c = _readings(candidate, metric)
    worse_up = larger_is_worse(kind)
    if kind in ABSOLUTE:
        b: list[float] = []
        step = _BYTE_RESOLUTION if metric.unit == "B" else _RELATIVE_RESOLUTION * max(abs(c[0]), _RELATIVE_RESOLUTION)
        result = exact.value(readings=c, resolution=step, larger_is_worse=worse_up, confidence=confidence)
        shift = 0.0
    else:
        if beside is None:
            raise CouldNotMeasure(f"{metric.name}: the baseline was not measured")
        b = _readings(beside, metric)
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


def check_visible(name: str, measurement: Measurement) -> None:
    """What only the driver counts has a sentence of its own where the driver does not see the process.

    Raises:
        CouldNotMeasure: there is a GPU, since its allocator was read, but NVML counts nothing for this process.
    """
    read = {o.metric for o in measurement.observations}
    observed = {n: metrics.PROFILE[n].observed for n in (*_BY_THE_DRIVER, "vram_peak")}
    if name in _BY_THE_DRIVER and observed[name] not in read and observed["vram_peak"] in read:
        raise CouldNotMeasure(
            f"{name}: the driver does not show what this process holds (NVML cannot see it, as in most containers): "
            "put the rule on vram_reserved or vram_peak, or run outside the container"
        )


def check_on_device(name: str, measurement: Measurement) -> None:
    """What a CPU cannot have says so, instead of listing what there is.

    Raises:
        CouldNotMeasure: a metric of a GPU, measured on a CPU.
    """
    if name not in metrics.PROFILE or ON_CPU not in measurement.notes:
        return
    if name in _ENERGY:
        raise CouldNotMeasure(f"{name}: nothing counts energy on a CPU: remove the rule, or measure on a GPU")
    if name.startswith(("vram_", "load_vram_")):
        instead = "load_rss_peak" if name.startswith("load_") else "rss_peak"
        raise CouldNotMeasure(f"{name}: a CPU has no VRAM: use {instead}, or measure on a GPU")


def _check_whole_peak(measurement: Measurement, metric: Metric) -> None:
    """A run that did not fit has no peak: what was read is the peak of the runs that did."""
    failed = [f.item_id for f in measurement.failures if f.kind == "out_of_memory"]
    if metric.name in _PEAKS and failed:
        raise CouldNotMeasure(
            f"{metric.name}: the {measurement.role} ran out of memory in {failed[0]} ({len(failed)} in all), so its "
            "peak is not known: take that batch size out of batch_sizes, or use a larger device"
        )


def _readings(measurement: Measurement, metric: Metric) -> list[float]:
    found: Sequence[float] = [o.value for o in measurement.observations if o.metric == metric.observed]
    if not found:
        check_visible(metric.name, measurement)
        check_on_device(metric.name, measurement)
        raise CouldNotMeasure(
            f"{metric.name}: the {measurement.role} has no reading of it; does this device and backend report it?"
        )
    if metric.unit == "seq":
        return [min(found)]
    return [max(found)] if metric.unit == "B" else sorted(found)
