"""`gate decide`: replay a run under another policy.

Parses arguments, wires files and the console; decides nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gate.commands.folders import check_apart
from gate.errors import UsageError


def decide(
    folder: Annotated[Path, typer.Argument(help="A run's output folder.")],
    policy: Annotated[Path, typer.Option("--policy", "-p", help="YAML with the acceptance thresholds to try.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write the new record to; default: nowhere.")] = None,
    waivers: Annotated[Path | None, typer.Option(help="YAML with waivers of red rules; default: none hold.")] = None,
) -> None:
    """Judge a finished run again under another policy, and show which verdicts move; no model is run.

    gate decide gate-out -p thresholds/strict.yaml
    """
    from datetime import UTC, datetime

    from rich.console import Console

    from gate import outputs
    from gate.decide.waiver import NOTE
    from gate.finished.run_folder import is_run_folder, read_run
    from gate.policy_file import load_policy
    from gate.replay import replay
    from gate.reports import escape, replay_text
    from gate.waivers import load_waivers

    if not is_run_folder(folder):
        raise UsageError(f"found no run.json in {str(folder)!r}, expected the output folder of gate run")
    if out is not None:
        check_apart(out, (folder,))
        outputs.set_aside(out)
    run = read_run(folder)
    on_file = () if waivers is None else load_waivers(waivers)
    outcome = replay(run, load_policy(policy), now=datetime.now(UTC), waivers=on_file)
    typer.echo(replay_text.render(run.record, outcome.record), nl=False)
    for note in outcome.record.notes:
        if note.startswith(NOTE):
            typer.echo(escape.workflow(f"note: {escape.line(note)}"))
    if out is not None:
        outputs.prepare(out)
        for problem in outputs.write(out, outcome):
            Console().print(problem, style="bold red", markup=False)
        typer.echo(f"{out}/report.html   {out}/run.json")
    raise typer.Exit(outcome.record.exit_code)
