"""Measurements of a profile stage from plain numbers, with the names that the stage gives its blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gate.metrics import PROFILE
from gate.records import ItemFailure, Measurement, Metric, Observation, Role, Rule
from tests.decide_factory import BASELINE, CANDIDATE, failure, measurement, observation, rule

SPEED, WAIT = PROFILE["decode_tokens_per_second"], PROFILE["ttft_p50_seconds"]
SHAPE = "batch=8"
Blocks = Mapping[str, Sequence[float]]
"""Group → the values of its blocks."""


def described(name: str, item_id: str, value: float, *, group: str | None = None, weight: float = 1.0) -> Observation:
    return Observation(metric=name, item_id=item_id, value=value, weight=weight, cluster=None, group=group)


def timed(
    role: Role,
    first: Blocks,
    again: Blocks | None = None,
    *,
    metric: Metric = SPEED,
    planned: Sequence[int] = (8,),
    also: Sequence[Observation] = (),
    failures: Sequence[ItemFailure] = (),
    **changes: Any,
) -> Measurement:
    """Block values of one role; as many blocks were reached as the longest group has, or failed."""
    found = [
        observation(metric, f"{series}/{k}", value, group=group)
        for series, groups in (("block", first), ("again", again or {}))
        for group, values in groups.items()
        for k, value in enumerate(values)
    ]
    if len(planned) > 1:
        found += [described("look_pairs", f"look/{i}", pairs) for i, pairs in enumerate(planned)]
    failed = {f.item_id.split("/")[1] for f in failures if f.item_id.startswith("block/")}
    reached = max([len(values) for values in first.values()] + [len(failed)])
    settings = {"n_reached": reached} | changes
    return measurement(role, [*found, *also], planned[-1], metric=metric, failures=failures, **settings)


def drawn(
    ratio: float, *, seed: int, pairs: int = 8, spread: float = 0.01, group: str = SHAPE
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Both roles' blocks of one group; the log ratios of the pairs have mean ln(ratio) exactly, and this sd."""
    logs = np.random.default_rng(seed).standard_normal(pairs)
    logs = spread * (logs - logs.mean()) / logs.std(ddof=1) + np.log(ratio)
    return {group: [100.0] * pairs}, {group: (100.0 * np.exp(logs)).tolist()}


def both(
    ratio: float, again: float | None = None, *, spread: float = 0.01, pairs: int = 8, **changes: Any
) -> tuple[Measurement, Measurement]:
    """Two measurements in which the candidate's value is `ratio` of the baseline's, and `again` the second time."""
    first = drawn(ratio, seed=1, spread=spread, pairs=pairs)
    second = (None, None) if again is None else drawn(again, seed=2, spread=spread, pairs=pairs)
    return timed(BASELINE, first[0], second[0], **changes), timed(CANDIDATE, first[1], second[1], **changes)


def of_speed(text: str = "min_retained 95%", **changes: Any) -> Rule:
    return rule(text, metric=changes.pop("metric", SPEED.name), **changes)


def out_of_memory(group: str, blocks: int = 8) -> list[ItemFailure]:
    return [failure(f"block/{k}/{group}", "out_of_memory") for k in range(blocks)]
