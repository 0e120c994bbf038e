"""`gate plan`: say what a policy can and cannot see, before anything is run.

Parses arguments and prints; plans nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gate.errors import ExitCode

if TYPE_CHECKING:
    from gate.decide.outlook import Floors
    from gate.decide.profile_time import Model
    from gate.policy_file import LoadedPolicy


def plan(
    policy: Annotated[Path, typer.Option("--policy", "-p", help="YAML with stages and acceptance thresholds.")],
    baseline: Annotated[
        str | None, typer.Option(help="Its size counts, and its noise floor if gate calibrate measured it here.")
    ] = None,
    items_per_second: Annotated[float | None, typer.Option(help="Speed of this machine, for minutes.")] = None,
    tokens_per_second: Annotated[float | None, typer.Option(help="The same in tokens, prompts included.")] = None,
    backend: Annotated[str, typer.Option(help="With --baseline: as it was calibrated.")] = "hf",
    device: Annotated[str | None, typer.Option(help="With --baseline: as it was calibrated.")] = None,
    store: Annotated[str | None, typer.Option(help="Baseline store: folder or URL; default: the user's cache.")] = None,
) -> None:
    """Say what a policy can and cannot see, before anything is run: no model, no network.

    gate plan -p thresholds/default.yaml --tokens-per-second 20000

    Exits 2 when a blocking rule could never pass, however good the candidate.
    """
    from gate import environment, hardware, preflight
    from gate.decide.profile_time import EXAMPLE, EXAMPLE_GPU
    from gate.policy_file import load_policy
    from gate.reports import plan_text

    loaded = load_policy(policy)
    floors, model = None, EXAMPLE
    if baseline is not None:
        floors, model = _of_baseline(loaded, baseline, backend, device, store)
    known = [found[0] for name in environment.gpus()[0] if (found := hardware.gpu(name)) is not None]
    result = preflight.planned(
        loaded,
        items_per_second=items_per_second,
        tokens_per_second=tokens_per_second,
        floors=floors,
        model=model,
        gpu=known[0] if known else EXAMPLE_GPU,
    )
    typer.echo(plan_text.render(result))
    raise typer.Exit(ExitCode.USAGE if result.problems else ExitCode.PASS)


def _of_baseline(
    loaded: LoadedPolicy, baseline: str, backend: str, device: str | None, store: str | None
) -> tuple[Floors, Model]:
    """Its noise floors on this machine, and its size."""
    from gate import checkpoint, environment
    from gate.decide.profile_time import model
    from gate.noise_floor import Place, load_floors
    from gate.records import Role
    from gate.store import open_store

    found = checkpoint.resolve(baseline, policy_checkpoints=loaded.policy.checkpoints, base=loaded.base, offline=True)
    ref = checkpoint.describe(found, Role.BASELINE)
    here = device or environment.default_device()
    place = Place(
        effective_digest=ref.effective_digest,
        backend=backend,
        device=here,
        environment=environment.snapshot(here).fingerprint,
        base=loaded.base,
    )
    floors = load_floors(open_store(store), place, loaded.policy.stages, loaded.rules)
    return floors, model(ref.n_parameters, ref.weight_bytes)
