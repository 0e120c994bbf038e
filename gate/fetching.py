"""What a run will look for on this machine, downloaded beforehand: checkpoints here, data by an online worker.

Measures nothing and loads no model.  Everything is attempted before the failures are reported together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gate import checkpoint, policy
from gate.errors import CouldNotMeasure, GateError, UsageError, WorkerError
from gate.policy_file import LoadedPolicy

SILENCE_SECONDS = 600.0
"""A download may stall longer than a model does."""


class FetchingWorker(Protocol):
    """A child that may use the network; `gate.launch.Worker` is the real one."""

    @property
    def alive(self) -> bool: ...
    def fetch(self, stage: Mapping[str, Any], base: Path) -> list[str]: ...
    def close(self) -> None: ...


StartWorker = Callable[[], FetchingWorker]


def fetch_all(loaded: LoadedPolicy, references: Sequence[str], start_worker: StartWorker) -> Iterator[str]:
    """Fetch the checkpoints and every source of the policy; yields a line for each thing that is now at hand.

    Raises:
        UsageError: a name is unknown or a file is broken; the message has every other failure too.
        CouldNotMeasure: something could not be downloaded.
    """
    failures: list[GateError] = []
    for reference in references:
        try:
            found = checkpoint.fetch(reference, policy_checkpoints=loaded.policy.checkpoints, base=loaded.base)
        except (UsageError, CouldNotMeasure) as problem:
            failures.append(problem)
        else:
            yield f"checkpoint {reference}: {found.path}"
    worker: FetchingWorker | None = None
    try:
        for stage in loaded.policy.stages:
            for _, settings in policy.split(stage):
                try:
                    if worker is None or not worker.alive:
                        worker = start_worker()
                    lines = worker.fetch(settings.model_dump(mode="json"), loaded.base)
                except (UsageError, CouldNotMeasure) as problem:
                    failures.append(problem)
                else:
                    yield from (f"{stage.name}: {line}" for line in lines)
    finally:
        if worker is not None:
            worker.close()
    if failures:
        raise _all(failures)


def _all(failures: Sequence[GateError]) -> GateError:
    """One error for all of them: a wrong name decides, since no network repairs it."""
    text = "\n".join(
        [
            f"{len(failures)} {'thing' if len(failures) == 1 else 'things'} could not be fetched:",
            *(f"  {_told(problem)}" for problem in failures),
        ]
    )
    if all(isinstance(problem, UsageError) for problem in failures):
        return UsageError(text)
    text += (
        "\nIs there a network, and does HF_TOKEN hold a token where one is needed (gated repositories)? "
        "What was downloaded stays; run the same command again."
    )
    return UsageError(text) if any(isinstance(problem, UsageError) for problem in failures) else CouldNotMeasure(text)


def _told(problem: GateError) -> str:
    tail = problem.stderr_tail.splitlines() if isinstance(problem, WorkerError) else []
    return f"{problem} (its log ends with {tail[-1]!r})" if tail else str(problem)
