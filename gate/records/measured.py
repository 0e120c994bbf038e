"""What is measured: metrics, observations, items that could not be measured, and the measurement of one source.

Pure: frozen data and invariants; no judgement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gate.records.words import Direction, Estimand, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A quantity that a stage reports.  `observed` names the observations it is computed from."""

    name: str
    observed: str
    unit: str
    direction: Direction
    estimand: Estimand


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One value measured on one item.

    `item_id` is made of content (task + document hash + prompt hash), never a row index.
    `weight` is the number of scored tokens where values are per-token means, else 1.
    `cluster` ties statistically dependent items together; `group` is what rules select by
    (subject, category, `batch=8`).
    """

    metric: str
    item_id: str
    value: float
    weight: float
    cluster: str | None
    group: str | None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"observation {self.item_id!r} of {self.metric!r} is {self.value!r}, expected finite")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"observation {self.item_id!r} has weight {self.weight!r}, expected > 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemFailure:
    """An item that could not be measured: neither right nor wrong."""

    item_id: str
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What an item asked and what the model said; kept for people, never used to decide."""

    item_id: str
    group: str | None
    prompt: str
    output: str
    target: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Everything one role yielded on one source (a corpus, a task, a data set) of one stage.

    Stages yield it in parts (same source, role and `n_expected`); `merge` concatenates them.
    `notes` are remarks for the reader (truncations, fallbacks); they never decide.

    Attributes:
        n_available: items there are; `n_expected` of them were drawn by the seed.
        n_reached: items asked so far, in the seeded order; below `n_expected` only where measuring was stopped early.
        planned_tokens: what asking them costs at most: prompt tokens and the limit of new ones.
        chance: mean score of answers picked at random, where that is known (multiple choice), else None.
    """

    stage: str
    source: str
    role: Role
    settings_digest: str
    n_expected: int
    n_available: int
    n_reached: int
    planned_tokens: int
    chance: float | None
    metrics: tuple[Metric, ...]
    observations: tuple[Observation, ...]
    failures: tuple[ItemFailure, ...]
    answers: tuple[Answer, ...]
    seconds: float
    notes: tuple[str, ...]


def merge(parts: Sequence[Measurement]) -> Measurement:
    """Concatenate the parts of one measurement in the order given.

    Raises:
        ValueError: no parts, or parts that do not belong together.
    """
    if not parts:
        raise ValueError("no parts to merge: nothing was measured")
    first = parts[0]
    for part in parts[1:]:
        if _head(part) != _head(first):
            raise ValueError(f"parts of different measurements: {first.stage}/{first.source} and {part.source}")
    return Measurement(
        stage=first.stage,
        source=first.source,
        role=first.role,
        settings_digest=first.settings_digest,
        n_expected=first.n_expected,
        n_available=first.n_available,
        n_reached=sum(p.n_reached for p in parts),
        planned_tokens=sum(p.planned_tokens for p in parts),
        chance=first.chance,
        metrics=first.metrics,
        observations=tuple(o for p in parts for o in p.observations),
        failures=tuple(f for p in parts for f in p.failures),
        answers=tuple(a for p in parts for a in p.answers),
        seconds=math.fsum(p.seconds for p in parts),
        notes=tuple(dict.fromkeys(n for p in parts for n in p.notes)),
    )


def _head(part: Measurement) -> tuple[object, ...]:
    """What the parts of one measurement have in common."""
    whole = (part.n_expected, part.n_available, part.chance)
    return part.stage, part.source, part.role, part.settings_digest, part.metrics, *whole
