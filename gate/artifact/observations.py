"""Measurements ↔ Parquet: one row per role, source and item, with what the model answered.

Loses nothing: what is read back equals what was written, order included, so that verdicts can be recomputed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gate.artifact.atomic import write_atomic
from gate.errors import ArtifactError
from gate.records import Answer, Direction, Estimand, ItemFailure, Measurement, Metric, Observation, Role

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

VERSION = 2
_METADATA = b"quantgate"

# One row holds what one item has in common.  An item of which two observations disagree on group or cluster takes
# several rows.  `order`, `answer_order` and `failure_order` are positions in the measurement.
_COLUMNS = (
    "measurement", "role", "source", "item_id", "group", "cluster", "values", "weights", "order",
    "prompt", "output", "target", "answer_order", "failure_kind", "failure_message", "failure_order",
)  # fmt: skip


def write_observations(path: Path, measurements: Sequence[Measurement]) -> None:
    """Write measurements (usually both roles' of one stage) atomically.  Raises OSError, ValueError."""
    import pyarrow
    from pyarrow import parquet

    rows = [row for index, measurement in enumerate(measurements) for row in _rows(index, measurement)]
    heads = {"version": VERSION, "measurements": [_head(m) for m in measurements]}
    schema = _schema().with_metadata({_METADATA: json.dumps(heads, allow_nan=False)})
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def read_observations(path: Path) -> list[Measurement]:
    """The measurements of a file, in the order they were given.

    Raises:
        ArtifactError: no such file, or not a whole file of this version.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, partitioning=None)
        heads = json.loads((table.schema.metadata or {})[_METADATA])
        if heads["version"] not in (1, VERSION):
            raise ArtifactError(f"{path} has version {heads['version']!r}, expected {VERSION}: upgrade the gate")
        if heads["version"] == 1:  # every item was asked, and nothing was said of costs and chance
            heads["measurements"] = [_of_version_1(head) for head in heads["measurements"]]
        rows: list[list[dict[str, Any]]] = [[] for _ in heads["measurements"]]
        for row in table.to_pylist():
            rows[row["measurement"]].append(row)
        return [_measurement(head, own) for head, own in zip(heads["measurements"], rows, strict=True)]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as problem:
        raise ArtifactError(f"{path} is not a whole file of observations ({problem})") from problem


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    name = pa.dictionary(pa.int32(), pa.string())
    types = {
        "measurement": pa.int32(),
        **dict.fromkeys(("role", "source", "group", "cluster", "failure_kind"), name),
        **dict.fromkeys(("values", "weights"), pa.map_(pa.string(), pa.float64())),
        "order": pa.list_(pa.int32()),
        **dict.fromkeys(("answer_order", "failure_order"), pa.int32()),
    }
    return pa.schema([(column, types.get(column, pa.string())) for column in _COLUMNS])


def _head(measurement: Measurement) -> dict[str, Any]:
    return {
        "stage": measurement.stage,
        "source": measurement.source,
        "role": measurement.role.value,
        "settings_digest": measurement.settings_digest,
        "n_expected": measurement.n_expected,
        "n_available": measurement.n_available,
        "n_reached": measurement.n_reached,
        "planned_tokens": measurement.planned_tokens,
        "chance": measurement.chance,
        "metrics": [[m.name, m.observed, m.unit, m.direction.value, m.estimand.value] for m in measurement.metrics],
        "seconds": measurement.seconds,
        "notes": list(measurement.notes),
    }


def _of_version_1(head: dict[str, Any]) -> dict[str, Any]:
    whole = head["n_expected"]
    return {**head, "n_available": whole, "n_reached": whole, "planned_tokens": 0, "chance": None}


def _rows(index: int, measurement: Measurement) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str | None, str | None], dict[str, Any]] = {}
    extra: list[dict[str, Any]] = []

    def new(item_id: str, group: str | None, cluster: str | None) -> dict[str, Any]:
        return dict.fromkeys(_COLUMNS) | {
            "measurement": index,
            "role": measurement.role.value,
            "source": measurement.source,
            "item_id": item_id,
            "group": group,
            "cluster": cluster,
            "values": [],
            "weights": [],
            "order": [],
        }

    for position, o in enumerate(measurement.observations):
        key = (o.item_id, o.group, o.cluster)
        if key not in rows:
            rows[key] = new(*key)
        row = rows[key]
        row["values"].append((o.metric, o.value))
        row["weights"].append((o.metric, o.weight))
        row["order"].append(position)
    by_group: dict[tuple[str, str | None], dict[str, Any]] = {}
    by_item: dict[str, dict[str, Any]] = {}
    for (item_id, group, _), row in rows.items():
        by_group.setdefault((item_id, group), row)
        by_item.setdefault(item_id, row)
    for position, a in enumerate(measurement.answers):
        row = by_group.pop((a.item_id, a.group), {}) or new(a.item_id, a.group, None)
        if not row["order"]:
            extra.append(row)
            by_item.setdefault(a.item_id, row)
        row |= {"prompt": _text(a.prompt), "output": _text(a.output), "target": _text(a.target)}
        row["answer_order"] = position
    for position, f in enumerate(measurement.failures):
        row = by_item.pop(f.item_id, {}) or new(f.item_id, None, None)
        if not row["order"] and row["answer_order"] is None:
            extra.append(row)
        row |= {"failure_kind": f.kind, "failure_message": _text(f.message), "failure_order": position}
    return [*rows.values(), *extra]


def _measurement(head: dict[str, Any], rows: list[dict[str, Any]]) -> Measurement:
    observations: list[tuple[int, Observation]] = []
    answers: list[tuple[int, Answer]] = []
    failures: list[tuple[int, ItemFailure]] = []
    for row in rows:
        item_id, group, cluster = row["item_id"], row["group"], row["cluster"]
        for position, (metric, value), (_, weight) in zip(row["order"], row["values"], row["weights"], strict=True):
            observation = Observation(
                metric=metric, item_id=item_id, value=value, weight=weight, cluster=cluster, group=group
            )
            observations.append((position, observation))
        if row["answer_order"] is not None:
            answer = Answer(
                item_id=item_id, group=group, prompt=row["prompt"], output=row["output"], target=row["target"]
            )
            answers.append((row["answer_order"], answer))
        if row["failure_order"] is not None:
            failure = ItemFailure(item_id=item_id, kind=row["failure_kind"], message=row["failure_message"])
            failures.append((row["failure_order"], failure))
    return Measurement(
        stage=head["stage"],
        source=head["source"],
        role=Role(head["role"]),
        settings_digest=head["settings_digest"],
        n_expected=head["n_expected"],
        n_available=head["n_available"],
        n_reached=head["n_reached"],
        planned_tokens=head["planned_tokens"],
        chance=head["chance"],
        metrics=tuple(
            Metric(name=name, observed=observed, unit=unit, direction=Direction(direction), estimand=Estimand(estimand))
            for name, observed, unit, direction, estimand in head["metrics"]
        ),
        observations=_ordered(observations),
        failures=_ordered(failures),
        answers=_ordered(answers),
        seconds=head["seconds"],
        notes=tuple(head["notes"]),
    )


def _ordered(placed: list[tuple[int, T]]) -> tuple[T, ...]:
    placed.sort(key=lambda pair: pair[0])
    if [position for position, _ in placed] != list(range(len(placed))):
        raise ValueError("rows are missing or repeated")
    return tuple(value for _, value in placed)


def _text(text: str) -> str:
    """UTF-8 cannot hold half a surrogate pair, which broken data sometimes contains."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
