"""Which of a task's metrics the gate can judge, and their values as observations.

Takes names, directions and aggregations from lm-eval; never guesses a direction and never rescales a value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.metrics import mean, perplexity, weighted_perplexity

from gate.metrics import DOMAIN
from gate.records import Direction, Estimand, Metric, Observation
from gate.stages.epochs import averaged, pass_at_k
from gate.stages.harness_items import Scored


@dataclass(frozen=True, kw_only=True, slots=True)
class PassAtK:
    """`pass_at_k` of a task, in which answers are right or wrong by the task's metric `by`."""

    k: int
    by: Metric

    @property
    def metric(self) -> Metric:
        # roles that count by different metrics must not be paired
        return dataclasses.replace(DOMAIN["pass_at_k"], observed=f"pass_at_k by {self.by.name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """The metrics of a measurement, notes on those left out, and the names of both."""

    metrics: tuple[Metric, ...]
    pass_at_k: PassAtK | None
    seen: frozenset[str]
    notes: tuple[str, ...]


def declare(tasks: Mapping[str, Any], scored: Sequence[Scored], *, pass_at: int | None) -> Declared:
    """Classify every metric that the first items yielded, and those of the tasks that none of them came from.

    A metric whose aggregation is a plain mean of values in [0, 1] is an item mean; lm-eval's perplexities
    become token-weighted means of the NLL; everything else (corpus BLEU, F1 over pairs) is left out with a note.
    With `pass_at`, the first metric by name that is 0 or 1 on every answer says which answers are right.
    """
    names: dict[str, dict[str, list[Any]]] = {}  # metric → task → values seen
    for item in scored:
        for name, value in item.values.items():
            names.setdefault(name, {}).setdefault(item.item.document.task_name, []).append(value)
    for task_name in tasks.keys() - {item.item.document.task_name for item in scored}:
        for name in _announced(tasks[task_name]):
            names.setdefault(name, {}).setdefault(task_name, [])
    metrics: list[Metric] = []
    notes: list[str] = []
    for name in sorted(names):
        found = {_classify(tasks[task], name, values) for task, values in names[name].items()}
        reasons = sorted(reason for reason in found if isinstance(reason, str))
        agreed = [metric for metric in found if isinstance(metric, Metric)]
        if len(agreed) == 1 and not reasons:
            metrics += agreed
        else:
            notes.append(f"metric {name!r} is not reported: {[*reasons, 'its tasks define it differently'][0]}")
    chosen = None
    if pass_at is not None:
        by = next((metric for metric in metrics if _is_right_or_wrong(metric, scored)), None)
        if by is None:
            notes.append("metric 'pass_at_k' is not reported: no metric of the task is 0 or 1 on every answer")
        else:
            chosen = PassAtK(k=pass_at, by=by)
            metrics.append(chosen.metric)
            notes.append(f"pass_at_k: the chance that one of {pass_at} answers is right by {by.name!r}")
    return Declared(metrics=tuple(metrics), pass_at_k=chosen, seen=frozenset(names), notes=tuple(notes))


def _is_right_or_wrong(metric: Metric, scored: Sequence[Scored]) -> bool:
    counts = metric.estimand is Estimand.ITEM_MEAN and metric.direction is Direction.HIGHER_IS_BETTER
    found = [observation(metric, one, None) for one in scored]
    return counts and all(one is None or one.value in (0, 1) for one in found) and any(found)


def _announced(task: Any) -> list[str]:
    filters = [ensemble.name for ensemble in getattr(task, "_filters", [])]
    return [name if f == "none" else f"{name},{f}" for name in task.aggregation() for f in filters]


def _classify(task: Any, name: str, values: Sequence[Any]) -> Metric | str:
    """The metric, or why there is none."""
    base = name.rsplit(",", 1)[0]
    aggregation = task.aggregation().get(base, mean)  # lm-eval's own fallback
    higher_is_better = task.higher_is_better().get(base)
    if aggregation in (perplexity, weighted_perplexity):
        return _metric(name, "", Direction.LOWER_IS_BETTER, Estimand.PERPLEXITY)
    if aggregation is not mean:
        label = getattr(aggregation, "__name__", str(aggregation))
        return f"it is aggregated by {label}, which is not a mean over items"
    if higher_is_better is None:
        return "the task does not say whether higher is better"
    outside = [value for value in values if not _is_number(value) or not (0 <= value <= 1 or math.isnan(value))]
    if outside:
        return f"found the value {str(outside[0])[:60]} on an item, expected a number from 0 to 1"
    direction = Direction.HIGHER_IS_BETTER if higher_is_better else Direction.LOWER_IS_BETTER
    return _metric(name, "rate", direction, Estimand.ITEM_MEAN)


def _metric(name: str, unit: str, direction: Direction, estimand: Estimand) -> Metric:
    return Metric(name=name, observed=name, unit=unit, direction=direction, estimand=estimand)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0)


def item_observations(
    declared: Declared, answers: Sequence[Scored], group: str | None
) -> Iterator[tuple[Metric, Observation | None]]:
    """The values of an item that was answered once in each epoch; None where an answer has no usable value."""
    wanted = declared.pass_at_k
    for metric in declared.metrics:
        if wanted is not None and metric == wanted.metric:
            yield metric, _pass_observation(wanted, answers, group)
        else:
            found = [value for one in answers if (value := observation(metric, one, group)) is not None]
            yield metric, next(iter(averaged(found, epochs=len(answers))), None)


def _pass_observation(wanted: PassAtK, answers: Sequence[Scored], group: str | None) -> Observation | None:
    found = [value for one in answers if (value := observation(wanted.by, one, group)) is not None]
    if len(found) < len(answers) or any(one.value not in (0, 1) for one in found):
        return None
    right = sum(one.value == 1 for one in found)
    passes = pass_at_k(answers=len(found), right=right, k=wanted.k)
    return dataclasses.replace(found[0], metric=wanted.metric.observed, value=passes)


def observation(metric: Metric, item: Scored, group: str | None) -> Observation | None:
    """The value of a declared metric on an item in one epoch; None when there is no usable value of it."""
    raw = item.values.get(metric.name)
    weight = 1.0
    if metric.estimand is Estimand.PERPLEXITY:
        loglikelihood, weight = raw if isinstance(raw, tuple) else (raw, 1.0)
        value = -float(loglikelihood) / weight if loglikelihood is not None and weight > 0 else math.nan
        usable = math.isfinite(value)
    else:
        value = float(raw) if raw is not None and _is_number(raw) else math.nan
        usable = 0 <= value <= 1
    if not usable:
        return None
    return Observation(
        metric=metric.name, item_id=item.item.item_id, value=value, weight=float(weight), cluster=group, group=group
    )


def length_observations(
    answers: Sequence[Scored], encode: Callable[[str], Sequence[int]], group: str | None
) -> list[Observation]:
    """`output_tokens` of an item: tokens of what the model wrote, the mean over its texts; none where it wrote none.

    No metric of the task: what a report says about the length of answers.  The token that ended a text is not counted.
    """
    texts = [text for one in answers for text in one.written]
    if not texts:
        return []
    return [
        Observation(
            metric=DOMAIN["length_ratio"].observed,
            item_id=answers[0].item.item_id,
            value=math.fsum(len(encode(text)) for text in texts) / len(texts),
            weight=1.0,
            cluster=group,
            group=group,
        )
    ]
