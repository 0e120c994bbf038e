"""What the gate and its measuring child tell each other: measurements and errors as plain JSON data.

Pure: no I/O.  Observations travel as columns, in slices that fit a frame, and come back bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple
from typing import Any

from gate.errors import (
    ArtifactError,
    BudgetExceeded,
    CheckpointError,
    CouldNotMeasure,
    DataError,
    GateError,
    NotFetched,
    Refused,
    UsageError,
)
from gate.records import Answer, Direction, Estimand, ItemFailure, Measurement, Metric, Observation, Role

OBSERVATIONS_PER_SLICE = 20_000
TEXTS_PER_SLICE = 250
"""Failures and answers per slice: they carry texts, which can be long."""

CROSSING: dict[str, type[GateError]] = {
    c.__name__: c
    for c in (
        UsageError,
        DataError,
        NotFetched,
        CouldNotMeasure,
        CheckpointError,
        BudgetExceeded,
        ArtifactError,
        Refused,
    )
}
"""Errors that mean the same in the parent as in the child, by class name."""


def crossing_name(error: BaseException) -> str | None:
    """Name of the closest class of `error` that crosses over, or None."""
    return next((c.__name__ for c in type(error).__mro__ if CROSSING.get(c.__name__) is c), None)


def encoded(measurement: Measurement) -> Iterator[dict[str, Any]]:
    """The measurement as one or more slices, to be merged in this order."""
    observations, failures, answers = measurement.observations, measurement.failures, measurement.answers
    slices = max(
        1,
        -(-len(observations) // OBSERVATIONS_PER_SLICE),
        -(-len(failures) // TEXTS_PER_SLICE),
        -(-len(answers) // TEXTS_PER_SLICE),
    )
    for i in range(slices):
        some = observations[i * OBSERVATIONS_PER_SLICE : (i + 1) * OBSERVATIONS_PER_SLICE]
        texts = slice(i * TEXTS_PER_SLICE, (i + 1) * TEXTS_PER_SLICE)
        yield {
            "stage": measurement.stage,
            "source": measurement.source,
            "role": measurement.role,
            "settings_digest": measurement.settings_digest,
            "n_expected": measurement.n_expected,
            "n_available": measurement.n_available,
            "n_reached": measurement.n_reached if i == 0 else 0,
            "planned_tokens": measurement.planned_tokens if i == 0 else 0,
            "chance": measurement.chance,
            "metrics": [astuple(m) for m in measurement.metrics],
            "observations": [
                [o.metric for o in some],
                [o.item_id for o in some],
                [float(o.value) for o in some],  # numpy scalars are welcome, JSON does not know them
                [float(o.weight) for o in some],
                [o.cluster for o in some],
                [o.group for o in some],
            ],
            "failures": [astuple(f) for f in failures[texts]],
            "answers": [astuple(a) for a in answers[texts]],
            "seconds": float(measurement.seconds) if i == 0 else 0.0,
            "notes": measurement.notes if i == 0 else (),
        }


def decoded(data: Mapping[str, Any]) -> Measurement:
    """One slice back.  Raises KeyError, TypeError or ValueError when it is not one."""
    return Measurement(
        stage=data["stage"],
        source=data["source"],
        role=Role(data["role"]),
        settings_digest=data["settings_digest"],
        n_expected=data["n_expected"],
        n_available=data["n_available"],
        n_reached=data["n_reached"],
        planned_tokens=data["planned_tokens"],
        chance=data["chance"],
        metrics=tuple(
            Metric(name=n, observed=o, unit=u, direction=Direction(d), estimand=Estimand(e))
            for n, o, u, d, e in data["metrics"]
        ),
        observations=tuple(
            Observation(metric=m, item_id=i, value=v, weight=w, cluster=c, group=g)
            for m, i, v, w, c, g in zip(*data["observations"], strict=True)
        ),
        failures=tuple(ItemFailure(item_id=i, kind=k, message=m) for i, k, m in data["failures"]),
        answers=tuple(Answer(item_id=i, group=g, prompt=p, output=o, target=t) for i, g, p, o, t in data["answers"]),
        seconds=data["seconds"],
        notes=tuple(data["notes"]),
    )
