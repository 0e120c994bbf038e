"""`gate ci`: the steps of a workflow besides measuring: what is gated, by which policy, and what the job says.

Parses arguments, wires files and the console; decides nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gate.errors import UsageError

app = typer.Typer(
    name="ci",
    help="Inside a CI job: detect changed checkpoints, take the policy from the base branch, set outputs.",
    no_args_is_help=True,
)

Base = Annotated[str, typer.Option(help="Full SHA of the base branch's commit.")]
Head = Annotated[str, typer.Option(help="Full SHA of the change's commit.")]
Dirs = Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")]


@app.command()
def detect(
    base: Annotated[str, typer.Option(help="Full SHA of the commit that the change wants to go to.")] = "",
    head: Annotated[str, typer.Option(help="Full SHA of the change's commit.")] = "",
    paths: Annotated[
        list[str] | None, typer.Option(help="Folders to look in, as models/** (repeatable, `!` takes back).")
    ] = None,
    list_: Annotated[
        str, typer.Option("--list", help="Candidates instead: lines of `name=reference` or `reference`, or JSON.")
    ] = "",
    policy: Annotated[
        str, typer.Option(help="Policy, relative to the repository: the checkpoints table of BASE's version.")
    ] = "",
) -> None:
    """Which checkpoints does a change touch?  Prints JSON; sets the outputs matrix, count and names.

    gate ci detect --base "$BASE" --head "$HEAD" --paths 'models/**' --policy thresholds/default.yaml
    """
    import json
    import os

    from gate.ci import candidates, job
    from gate.ci.detect import changed_checkpoints, check_not_shadowed
    from gate.ci.git import Repository

    if list_.strip():
        wanted, notes = candidates.listed(list_), tuple[str, ...]()
        if base and head:
            notes = check_not_shadowed(Repository(Path.cwd()), base, head, wanted, policy or None)
    elif base and head:
        patterns = [line for text in paths or () for line in text.splitlines()]
        patterns = patterns if any(patterns) else ["**"]
        found = changed_checkpoints(Repository(Path.cwd()), base, head, patterns, policy or None)
        wanted, notes = found.wanted, found.notes
    else:
        raise UsageError("found neither --list nor --base and --head, expected one of them")
    plain = candidates.as_plain(wanted)
    for note in notes:
        _remark(note)
    matrix = json.dumps({"include": plain}, separators=(",", ":"))
    names = json.dumps([one.name for one in wanted], separators=(",", ":"))
    job.set_outputs({"matrix": matrix, "count": str(len(wanted)), "names": names}, os.environ)
    typer.echo(json.dumps(plain))


@app.command()
def policy(
    policy: Annotated[str, typer.Argument(help="Policy, relative to the repository.")],
    base: Base,
    head: Head,
    out: Annotated[Path, typer.Option(help="Folder to write to; new or empty.")],
) -> None:
    """Take the policy, its tasks, data and waivers from the base branch; note what the change does to them.

    gate ci policy thresholds/default.yaml --base "$BASE" --head "$HEAD" --out "$RUNNER_TEMP/judge"
    """
    import os

    from gate.ci import job
    from gate.ci.base import export
    from gate.ci.git import Repository

    found = export(Repository(Path.cwd()), policy, base, head, out)
    outputs = {
        "policy": str(found.policy),
        "waivers": "" if found.waivers is None else str(found.waivers),
        "changed": "true" if found.paths else "false",
    }
    job.set_outputs(outputs, os.environ)
    _say(f"policy of {base}: {found.policy}")
    _say(f"waivers: {found.waivers or 'none on the base branch'}")
    for path in found.paths:
        _say(f"changed by this change, and not used to judge it: {path}")
    for note in found.notes:
        _say(note)


@app.command()
def govern(
    run: Annotated[Path, typer.Argument(help="The output folder of gate run.")],
    export: Annotated[Path, typer.Option(help="The folder of gate ci policy.")],
    history: Annotated[Path | None, typer.Option(help="Folder with stored runs to replay, at any depth.")] = None,
) -> None:
    """Write into the run what the change does to its own bar; the verdict stays what it is.

    gate ci govern gate-out --export "$RUNNER_TEMP/judge" --history stored-runs
    """
    from datetime import UTC, datetime

    from gate.ci import govern as governing

    found = governing.govern(run, export, history, at=datetime.now(UTC))
    if found.change is None:
        _say("the change leaves policy, tasks, data and waivers as they are")
        return
    for one in found.change.rules:
        _say(f"{one.kind} {one.rule}: {one.was or 'none'} → {one.now or 'none'}")
    for move in found.change.moves:
        _say(f"would move: {move.candidate} ({move.run_id}) {move.was} → {move.now}")
    _say(f"{len(found.change.moves)} of {found.change.replayed} replayed runs would move")
    for note in (*found.change.notes, *found.problems):
        _say(note)


@app.command()
def outputs(
    dirs: Dirs,
    exit_code: Annotated[int | None, typer.Option(help="How gate run ended, for a single run.")] = None,
    expect: Annotated[str | None, typer.Option(help="JSON list of the names that have to be there.")] = None,
    exit: Annotated[bool, typer.Option("--exit", help="Exit with the worst exit code.")] = False,
) -> None:
    """Set the outputs status, exit-code, sentence and run-json; add to the job summary.

    gate ci outputs gate-out --exit-code "$code"
    """
    import os

    from gate.ci.outputs import say
    from gate.publish import candidates

    said = say(dirs, candidates.expected(expect), exit_code, os.environ)
    for line in said.lines:
        _say(line)
    for remark in said.remarks:
        _remark(remark)
    if exit:
        raise typer.Exit(said.exit_code)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="The artifact of a run that is not trusted.")],
    policy: Annotated[Path, typer.Option("--policy", "-p", help="The base branch's policy.")],
    out: Annotated[Path, typer.Option(help="Folder for the clean record; new or empty.")],
    waivers: Annotated[Path | None, typer.Option(help="The base branch's waivers.")] = None,
) -> None:
    """Judge an artifact's rows again; exits 0 once a clean record is written, whatever its verdict.

    gate ci verify artifact -p judge/base/thresholds/default.yaml --out clean
    """
    from datetime import UTC, datetime

    from gate.ci import verify as verifying
    from gate.commands.folders import check_apart
    from gate.decide.waiver import NOTE
    from gate.policy_file import load_policy
    from gate.waivers import load_waivers

    check_apart(out, (folder,))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {str(out)!r} is not an empty folder: choose another")
    loaded = load_policy(policy)
    in_force = () if waivers is None else load_waivers(waivers)
    found = verifying.verify(folder, loaded, in_force, at=datetime.now(UTC))
    for problem in verifying.write(out, found.record):
        _remark(problem)
    for difference in found.differences:
        _say(difference)
    for note in found.record.notes:
        if note.startswith(NOTE):
            _say(f"note: {note}")
    verdict = found.record.verdict
    _say(f"{verdict.status} {verdict.sentence}")


def _say(text: str) -> None:
    from gate.reports import escape

    typer.echo(escape.workflow(escape.line(text)))


def _remark(text: str) -> None:
    from gate.reports import escape

    typer.echo(escape.workflow(escape.line(text)), err=True)
