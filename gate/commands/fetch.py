"""`gate fetch`: download what a run needs; and the child that downloads, for `gate run`.

Parses arguments and prints; downloads nothing itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gate import launch


def fetch(
    policy: Annotated[Path, typer.Option("--policy", "-p", help="YAML with stages and acceptance thresholds.")],
    baseline: Annotated[str | None, typer.Option(help="Checkpoint to download, as for gate run.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Checkpoint to download, as for gate run.")] = None,
    python: Annotated[str | None, typer.Option(help="Interpreter of the workers, with gate installed there.")] = None,
) -> None:
    """Download what a run needs (checkpoints, data sets, metrics): the only command that does.

    gate fetch -p thresholds/default.yaml --baseline org/model --candidate org/model-w4a16
    """
    from gate.fetching import fetch_all
    from gate.policy_file import load_policy

    loaded = load_policy(policy)
    with tempfile.TemporaryDirectory() as folder:
        references = [r for r in (baseline, candidate) if r is not None]
        for line in fetch_all(loaded, references, lambda: online_worker(python, Path(folder) / "log.txt")):
            typer.echo(line)
    typer.echo("All of it is on this machine: gate run needs no network for it.")


def online_worker(python: str | None, log: Path) -> launch.Worker:
    """A child with a network and the user's Hugging Face token; no model is loaded in it.  Raises WorkerError."""
    from gate import launch
    from gate.backends import Checkpoint
    from gate.fetching import SILENCE_SECONDS
    from gate.records import Role

    return launch.start(
        backend="hf",
        checkpoint=Checkpoint(path="", load={}, dtype="auto", tokenizer=None),
        role=Role.BASELINE,
        device="cpu",
        python=python,
        log=log,
        silence_seconds=SILENCE_SECONDS,
        start_seconds=120.0,
        online=True,
    )
