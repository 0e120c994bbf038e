"""Which metrics of finished lm-eval results the gate can judge, and their values as observations.

Pure.  Names, directions and aggregations are those of the results file, as `stages.harness_metrics` takes them from
the tasks; no direction is guessed, no value rescaled, and an aggregate that the samples do not make is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.errors import CouldNotMeasure
from gate.finished.lm_eval_samples import Sample
from gate.records import Direction, Estimand, Metric, Observation

DEFAULT_AGGREGATIONS = {
    "acc": "mean",
    "acc_norm": "mean",
    "acc_mutual_info": "mean",
    "acc_bytes": "mean",
    "likelihood": "mean",
    "exact_match": "mean",
    "perplexity": "perplexity",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
    "brier_score": "brier_score",
    "mcc": "matthews_corrcoef",
    "f1": "f1",
    "bleu": "bleu",
    "chrf": "chrf",
    "ter": "ter",
}
"""What lm-eval uses where a task's `metric_list` names no aggregation."""

_PERPLEXITIES = ("perplexity", "weighted_perplexity")
_RELATIVE_TOLERANCE = 1e-6
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LeafTask:
    """One scored task with what its results file says of it.

    Attributes:
        aggregates: metric name as judged → the value in the results file.
        n_expected: documents evaluated, by the results file; n_available: documents there are.
    """

    name: str
    config: Mapping[str, Any]
    higher_is_better: Mapping[str, Any]
    aggregates: Mapping[str, Any]
    n_expected: int
    n_available: int
    samples: Sequence[Sample]


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """The metrics of a measurement, and notes on those left out."""

    metrics: tuple[Metric, ...]
    notes: tuple[str, ...]


def declare(tasks: Sequence[LeafTask]) -> Declared:
    """Classify every metric that the samples carry; a group's metric must mean the same in all its tasks.

    Raises:
        CouldNotMeasure: an aggregate in the results file is not what the samples make.
    """
    names: dict[str, dict[Metric | str, None]] = {}
    for task in tasks:
        for name in dict.fromkeys(name for sample in task.samples for name in sample.values):
            names.setdefault(name, {})[_classify(task, name)] = None
    metrics: list[Metric] = []
    notes: list[str] = []
    for name in sorted(names):
        reasons = [found for found in names[name] if isinstance(found, str)]
        agreed = [found for found in names[name] if isinstance(found, Metric)]
        if len(agreed) == 1 and not reasons:
            metrics += agreed
        else:
            notes.append(f"metric {name!r} is not reported: {[*reasons, 'its tasks define it differently'][0]}")
    return Declared(metrics=tuple(metrics), notes=tuple(notes))


def value_and_weight(metric: Metric, sample: Sample) -> tuple[float, float] | None:
    """The value of a declared metric on an item; None when it has none, NaN when it has one that is not usable."""
    if metric.name not in sample.values:
        return None
    raw = sample.values[metric.name]
    if metric.estimand is Estimand.PERPLEXITY:
        loglikelihood, weight = raw if isinstance(raw, list) and len(raw) == 2 else (raw, 1.0)
        usable = _is_number(loglikelihood) and _is_number(weight) and weight > 0
        value = -float(loglikelihood) / weight if usable else math.nan
        return (value if math.isfinite(value) else math.nan), float(weight) if usable else 1.0
    return (float(raw) if _is_number(raw) and math.isfinite(raw) else math.nan), 1.0


def observation(metric: Metric, sample: Sample, value: float, weight: float, group: str | None) -> Observation:
    return Observation(
        metric=metric.name, item_id=sample.item_id, value=value, weight=weight, cluster=group, group=group
    )


def _classify(task: LeafTask, name: str) -> Metric | str:
    """The metric, or why there is none."""
    base = name.rsplit(",", 1)[0]
    values = [s.values[name] for s in task.samples if name in s.values]
    aggregation = _aggregation(task, name, base, values)
    higher_is_better = task.higher_is_better.get(base)
    if aggregation in _PERPLEXITIES:
        metric = Metric(
            name=name, observed=name, unit="", direction=Direction.LOWER_IS_BETTER, estimand=Estimand.PERPLEXITY
        )
    elif aggregation != "mean":
        how = f"aggregated by {aggregation}, which is" if aggregation else "aggregated in a way that is"
        return f"it is {how} not a mean over items"
    elif not isinstance(higher_is_better, bool):
        return "the results do not say whether higher is better"
    else:
        outside = [v for v in values if not _is_number(v) or not (0 <= v <= 1 or math.isnan(v))]
        if outside:
            return f"found the value {str(outside[0])[:60]} on an item, expected a number from 0 to 1"
        direction = Direction.HIGHER_IS_BETTER if higher_is_better else Direction.LOWER_IS_BETTER
        metric = Metric(name=name, observed=name, unit="rate", direction=direction, estimand=Estimand.ITEM_MEAN)
    _check_aggregate(task, name, aggregation, values)
    return metric


def _aggregation(task: LeafTask, name: str, base: str, values: Sequence[Any]) -> str | None:
    """By the task's config, by lm-eval's defaults, or what reproduces the value in the results file; else None."""
    listed = task.config.get("metric_list")
    entries = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
    named = next((m.get("aggregation") for m in entries if m.get("metric") == base), None)
    known = {*DEFAULT_AGGREGATIONS.values(), "median", "nanmean"}
    if isinstance(named, str) and named in known:
        return named
    if named is None and base in DEFAULT_AGGREGATIONS:
        return DEFAULT_AGGREGATIONS[base]
    reported = task.aggregates.get(name)
    same = _is_number(reported) and bool(values) and _made("mean", values) is not None
    return "mean" if same and agree(_made("mean", values), reported) else None


def _check_aggregate(task: LeafTask, name: str, aggregation: str, values: Sequence[Any]) -> None:
    """A results file and a log of another evaluation must not be taken for one; only whole logs can be checked."""
    reported, made = task.aggregates.get(name), _made(aggregation, values)
    if len(values) != task.n_expected or made is None or not isinstance(reported, int | float):
        return
    if not agree(made, reported):
        raise CouldNotMeasure(
            f"{task.name}: the results file says {name} is {reported:.6g}, its samples make {made:.6g}: they are not "
            "of the same evaluation, or one was changed"
        )


def agree(made: float | None, reported: Any) -> bool:
    """Whether a number from a results file is the one that the samples make, but for rounding."""
    return made is not None and math.isclose(made, reported, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-9)


def _made(aggregation: str, values: Sequence[Any]) -> float | None:
    """What lm-eval makes of the values; None where one is not usable."""
    if aggregation == "weighted_perplexity":
        if not all(isinstance(v, list) and len(v) == 2 and all(map(_is_number, v)) for v in values):
            return None
        total, weight = math.fsum(v[0] for v in values), math.fsum(v[1] for v in values)
        return _exp(-total / weight) if weight > 0 and math.isfinite(total) else None
    if not values or not all(_is_number(v) and math.isfinite(v) for v in values):
        return None
    mean = math.fsum(values) / len(values)
    return _exp(-mean) if aggregation == "perplexity" else mean


def _exp(exponent: float) -> float:
    return math.exp(exponent) if exponent < _LARGEST_EXPONENT else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
