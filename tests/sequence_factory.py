"""Measurements whose items come in a seeded order, from the values in that order, for the tests of `gate.decide`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from gate.decide.lineup import Entry
from gate.decide.terms import Terms, gate_wide
from gate.order import place
from gate.records import ItemFailure, MaxLost, Measurement, Metric, Rule, Scope
from tests import decide_factory
from tests.decide_factory import ACCURACY, BASELINE, CANDIDATE, measurement, observation

SEED = "a seed"
ONE_RULE = gate_wide(0.95, 1, SEED)
FINISHED = gate_wide(0.95, 1, None)
Values = Sequence[float | None]


def rule(text: str, **changes: Any) -> Rule:
    """Of `decide_factory`, in benchmark scope."""
    return decide_factory.rule(text, **({"scope": Scope.BENCHMARK} | changes))


def some_lost(count: int) -> MaxLost:
    return MaxLost(count=count, share=None)


@cache
def ids(n: int, seed: str = SEED) -> tuple[str, ...]:
    """The ids of n items in the order of the seed."""
    return tuple(sorted((f"t/{i:05d}/p" for i in range(n)), key=lambda i: place(seed, i)))


def roles(
    baseline: Values, candidate: Values, *, metric: Metric = ACCURACY, reached: int | None = None, **changes: Any
) -> tuple[Measurement, Measurement]:
    """Both roles, the values in seeded order (None: no observation); the candidate was asked the first `reached`."""
    n = len(baseline)
    asked = n if reached is None else reached
    sides = []
    for role, values, first in ((BASELINE, baseline, n), (CANDIDATE, candidate, asked)):
        found = [
            observation(metric, item_id, float(value))
            for item_id, value in zip(ids(n)[:first], values[:first], strict=True)
            if value is not None
        ]
        sides.append(measurement(role, found, n, metric=metric, **({"n_reached": first} | changes)))
    return sides[0], sides[1]


def of_differences(d: Sequence[int], **changes: Any) -> tuple[Measurement, Measurement]:
    """0/1 items with these differences, right on both sides where there is none."""
    return roles([float(x <= 0) for x in d], [float(x >= 0) for x in d], **changes)


def entries(d: Sequence[int]) -> list[Entry]:
    return [Entry(str(i), None, None, float(x <= 0), float(x >= 0)) for i, x in enumerate(d)]


def part(whole: Measurement, begin: int, end: int) -> Measurement:
    """What the candidate yielded on items `begin` to `end` of the seeded order."""
    chosen = set(ids(whole.n_expected)[begin:end])
    documents = {i.rpartition("/")[0] for i in chosen}
    return replace(
        whole,
        observations=tuple(o for o in whole.observations if o.item_id in chosen),
        failures=tuple(f for f in whole.failures if f.item_id.rpartition("/")[0] in documents),
        n_reached=end - begin,
    )


def failed(item_id: str) -> ItemFailure:
    """The item's prompt could not be rendered."""
    return ItemFailure(item_id=f"{item_id.rpartition('/')[0]}/no-prompt", kind="template", message="it broke")


def shuffled(n: int, lost: int, gained: int, rng: np.random.Generator) -> list[int]:
    """n differences in random order."""
    d = np.zeros(n, dtype=int)
    d[:lost], d[lost : lost + gained] = -1, 1
    return [int(x) for x in rng.permutation(d)]


def terms(n_blocking: int) -> Terms:
    return gate_wide(0.95, n_blocking, SEED)
