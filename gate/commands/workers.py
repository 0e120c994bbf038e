"""The measuring workers of a command: where they run, and what each is started with.

Starts nothing by itself: what `measuring` returns is called when a model is first needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gate.errors import UsageError

if TYPE_CHECKING:
    from gate.evidence import StartWorker
    from gate.policy import Policy

SILENCE_SECONDS = START_SECONDS = 120.0


def device_for(backend: str, device: str | None) -> str:
    """The device to run on; the machine's best where none is named.  Raises UsageError, for the backend too."""
    from gate import environment
    from gate.backends import BACKENDS

    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}, expected one of {', '.join(BACKENDS)}")
    place = device or environment.default_device()
    if place.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {place!r}, expected cpu or cuda")
    return place


def measuring(policy: Policy, *, backend: str, device: str, python: str | None, log: Path) -> StartWorker:
    """(role, checkpoint) → a worker, with the secrets and the network that the policy calls for and no others."""
    from gate import launch
    from gate.backends import Checkpoint
    from gate.policy import secrets_needed
    from gate.records import Role

    def start(role: Role, chosen: Checkpoint) -> launch.Worker:
        return launch.start(
            backend=backend,
            checkpoint=chosen,
            role=role,
            device=device,
            python=python,
            log=log,
            silence_seconds=SILENCE_SECONDS,
            start_seconds=START_SECONDS,
            keep_env=secrets_needed(policy),
            network=launch.needs_network(policy),
        )

    return start
