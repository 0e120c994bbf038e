"""The wiring of `gate baseline measure`: a run that has a baseline and no candidate.

Wires; measures and keeps through `gate.baselines`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gate.commands.workers import device_for, measuring

if TYPE_CHECKING:
    from gate.baselines import Kept
    from gate.policy_file import LoadedPolicy
    from gate.store import Store


def measured(
    loaded: LoadedPolicy,
    baseline: str,
    store: Store,
    *,
    backend: str,
    device: str | None,
    python: str | None,
    log: Path,
    again: bool,
    offline: bool,
) -> tuple[Kept, ...]:
    """Measure every source of the policy for the baseline alone, and keep it.  Raises as `baselines.keep`."""
    from rich.console import Console

    from gate import checkpoint, environment
    from gate.baselines import keep, storable
    from gate.checkpoint import view
    from gate.console import RunConsole
    from gate.evidence import Collector, Side
    from gate.records import Role

    place = device_for(backend, device)
    storable(loaded)  # nothing to store is said before anything is loaded
    found = checkpoint.resolve(
        baseline,
        policy_checkpoints=loaded.policy.checkpoints,
        base=loaded.base,
        offline=offline,
        backend=backend,
        engines=loaded.policy.engines,
    )

    start = measuring(loaded.policy, backend=backend, device=place, python=python, log=log)

    with tempfile.TemporaryDirectory(prefix="quantgate-view-", ignore_cleanup_errors=True) as folder:
        shown = view.build(found, Path(folder), backend=backend)
        for remark in shown.remarks(Role.BASELINE):
            typer.echo(f"note: {remark}", err=True)
        side = Side(Role.BASELINE, checkpoint.describe(found, Role.BASELINE), shown, start)
        collector = Collector(
            baseline=side,
            candidate=side,  # one model, loaded once; nothing is asked of a candidate
            store=store,
            environment=environment.snapshot(place),
            base=loaded.base,
            seed=loaded.policy.seed,
            backend=backend,
            device=place,
            progress=RunConsole(Console(stderr=True), None).progress,
        )
        with collector:
            return keep(loaded, collector, again=again)
