"""A checkpoint measured as the gate does: by a worker, under any interpreter, through the perplexity stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate import launch
from gate.backends import BackendInfo, Checkpoint
from gate.records import Observation, Role
from tests.formats import makers

N_DOCUMENTS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """`nats` is the mean NLL of a token, by document."""

    info: BackendInfo
    nats: Mapping[str, float]


def measure(
    checkpoint: Checkpoint, *, backend: str, python: Path | None, folder: Path, silence_seconds: float = 120.0
) -> Measured:
    """Raises CheckpointError for what cannot be loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prose.txt").write_text("\n\n".join(makers.prose(N_DOCUMENTS)), encoding="utf-8")
    stage: dict[str, Any] = {
        "kind": "perplexity",
        "name": "prose",
        "corpora": [{"name": "prose", "path": "prose.txt", "window": 128, "stride": 64}],
        "top_k": 0,
        "rules": [{"metric": "perplexity", "max_increase": "5%"}],
    }
    context = {
        "base": folder,
        "settings_digest": "d",
        "sample_seed": "ab",
        "order_seed": "cd",
        "artifacts": folder,
        "block": None,
    }
    worker = launch.start(
        backend=backend,
        checkpoint=checkpoint,
        role=Role.CANDIDATE,
        device="cpu",
        python=None if python is None else str(python),
        log=folder / "log.txt",
        silence_seconds=silence_seconds,
        start_seconds=120.0,
    )
    with worker:
        info = worker.open()
        stream = worker.begin(stage=stage, context=context, on_progress=lambda *_: None)
        observations: list[Observation] = []
        while (part := stream.advance(None)) is not None:
            observations += part.observations
    nats = {o.item_id: o.value for o in observations if o.metric == "nll_nats"}
    return Measured(info=info, nats=nats)


def shifts(found: Measured, exact: Measured) -> list[float]:
    """How far each document's score is from the full-precision model's, in nats per token."""
    assert found.nats.keys() == exact.nats.keys()
    assert len(exact.nats) > N_DOCUMENTS / 2
    return [abs(found.nats[item] - exact.nats[item]) for item in exact.nats]


def assert_near(found: Measured, exact: Measured, *, most_nats: float = 0.05) -> None:
    """Every document scores about as with full precision, and not quite."""
    moved = shifts(found, exact)
    assert 1e-6 < sum(moved) / len(moved) < most_nats
    assert max(moved) < 3 * most_nats
