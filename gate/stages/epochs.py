"""Sampled decoding: the same items asked several times, with a seed for every time, and one value for each item.

Pure.  Knows nothing of prompts or scores; an item that failed in one epoch has no value, never the mean of the others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from gate.records import Observation
from gate.stages.isolation import MAX_MESSAGE, Failed
from gate.stages.sampling import digest

T = TypeVar("T")
R = TypeVar("R")

_SEED_CHARACTERS = 8


def seed(sample_seed: str, item_ids: Sequence[str], epoch: int) -> int:
    """32-bit seed of one call that asks these items: another one for every epoch, the same in a repeated run.

    Engines seed a whole batch, so it covers the batch.
    """
    return int(digest(sample_seed, str(epoch), *item_ids)[:_SEED_CHARACTERS], 16)


def ask_repeatedly(
    ask: Callable[[int, Sequence[T]], Sequence[R | Failed]], items: Sequence[T], *, epochs: int
) -> list[list[R] | Failed]:
    """The results of every epoch for each item; `ask(epoch, items)` answers one epoch, numbered from 0.

    An item that failed is not asked again, and its message names the epoch.
    """
    results: list[list[R]] = [[] for _ in items]
    failures: dict[int, Failed] = {}
    for epoch in range(epochs):
        left = [index for index in range(len(items)) if index not in failures]
        if not left:
            break
        for index, result in zip(left, ask(epoch, [items[index] for index in left]), strict=True):
            if isinstance(result, Failed):
                failures[index] = _named(result, epoch, epochs)
            else:
                results[index].append(result)
    return [failures.get(index, found) for index, found in enumerate(results)]


def _named(failure: Failed, epoch: int, epochs: int) -> Failed:
    if epochs == 1:
        return failure
    return dataclasses.replace(failure, message=f"epoch {epoch + 1} of {epochs}: {failure.message}"[:MAX_MESSAGE])


def averaged(observations: Iterable[Observation], *, epochs: int) -> list[Observation]:
    """One observation per metric and item: the weighted mean over the epochs; none where an epoch has no value."""
    found: dict[tuple[str, str], list[Observation]] = {}
    for observation in observations:
        found.setdefault((observation.metric, observation.item_id), []).append(observation)
    return [_mean(values) for values in found.values() if len(values) == epochs]


def _mean(values: Sequence[Observation]) -> Observation:
    if len(values) == 1:
        return values[0]
    total = math.fsum(o.weight for o in values)
    mean = math.fsum(o.value * o.weight for o in values) / total
    return dataclasses.replace(values[0], value=mean, weight=total / len(values))


def pass_at_k(*, answers: int, right: int, k: int) -> float:
    """Probability that at least one of `k` answers drawn from `answers`, of which `right` are right, is right.

    The unbiased estimator 1 − C(answers − right, k) / C(answers, k) of Chen et al. (2021), arXiv 2107.03374, eq. 1.

    Raises:
        ValueError: not 1 <= k <= answers or not 0 <= right <= answers.
    """
    if not (1 <= k <= answers and 0 <= right <= answers):
        raise ValueError(f"found {right} right of {answers} answers and k = {k}, expected k and right within answers")
    draws = math.comb(answers, k)
    return (draws - math.comb(answers - right, k)) / draws


def decoding_note(*, temperature: float, epochs: int) -> str:
    """How the answers were written, for the reader of a report."""
    if temperature == 0:
        return "greedy decoding (temperature 0): differences in the distribution of answers stay unseen"
    return f"sampled at temperature {temperature:g}, {epochs} epoch{'' if epochs == 1 else 's'}"
