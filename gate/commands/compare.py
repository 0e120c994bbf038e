"""`gate compare`: decide from finished results.

Parses arguments, wires files and the console; decides nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gate.commands.folders import check_apart


def compare(
    policy: Annotated[Path, typer.Option("--policy", "-p", help="YAML with tasks and acceptance thresholds.")],
    baseline: Annotated[Path, typer.Option(help="Full precision: a gate run's folder, or lm-eval's with samples.")],
    candidate: Annotated[
        Path, typer.Option(help="Quantized: a folder of the same kind (of gate runs, maybe the same).")
    ],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("gate-compare"),
    waivers: Annotated[Path | None, typer.Option(help="YAML with waivers of red rules; default: none hold.")] = None,
) -> None:
    """Decide from finished results, without running a model: run folders of gate, or lm-eval's sample logs.

    lm-eval run … --output_path base --log_samples, the same for the candidate, then:

    gate compare -p policy.yaml --baseline base --candidate quantized
    """
    from datetime import UTC, datetime

    from rich.console import Console

    from gate import console as shown
    from gate import environment, outputs
    from gate.finished.compare import compare as decided
    from gate.policy_file import load_policy
    from gate.waivers import load_waivers

    screen = Console()
    check_apart(out, (baseline, candidate))
    outputs.set_aside(out)
    outcome = decided(
        load_policy(policy),
        baseline,
        candidate,
        environment=environment.snapshot("cpu"),
        now=datetime.now(UTC),
        waivers=() if waivers is None else load_waivers(waivers),
    )
    outputs.prepare(out)
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        reporter = shown.RunConsole(screen, log)
        for note in outcome.record.notes:
            reporter.note(note)
        for result in outcome.record.stages:
            reporter.finished(result)
        log.write(f"{outcome.record.verdict.status} {outcome.record.verdict.sentence}\n")
    for problem in outputs.write(out, outcome):
        screen.print(problem, style="bold red", markup=False)
    shown.verdict(screen, outcome.record, out)
    raise typer.Exit(outcome.record.exit_code)
