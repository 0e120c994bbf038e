"""`gate ci govern`: what a pull request does to its own bar, written into the record of its run.

Changes no status, no verdict and no exit code; a policy of the pull request that does not load is a remark.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gate import artifact, outputs
from gate.ci import history
from gate.ci.base import BASE, CHANGE, PULL_REQUEST, WAIVERS
from gate.ci.candidates import check_reference
from gate.ci.rule_changes import rule_changes
from gate.errors import PolicyError, UsageError
from gate.finished.run_folder import is_run_folder
from gate.pipeline import Outcome
from gate.policy_file import LoadedPolicy, load_policy
from gate.records import PolicyChange
from gate.reports import governance

_MAX_MISTAKES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Governed:
    """What is written into the record, None where the pull request changes nothing; and what could not be written."""

    change: PolicyChange | None
    problems: tuple[str, ...]


def govern(run: Path, export: Path, stored: Path | None, *, at: datetime) -> Governed:
    """Compare the exported policies, replay the run and the stored ones, write run.json and the reports again.

    Raises:
        UsageError: there is no run, or `export` is not what `gate ci policy` wrote.
        ArtifactError: run.json is damaged, or cannot be written.
    """
    if not is_run_folder(run):
        raise UsageError(f"found no run.json in {str(run)!r}, expected the output folder of gate run")
    change = _read(export)
    if not change["paths"]:
        return Governed(change=None, problems=())
    record = artifact.loads_record((run / "run.json").read_bytes())
    base = load_policy(export / BASE / change["policy"])
    notes = [*change["notes"], *_not_replayed(change["paths"], change["policy"])]
    theirs = _policy_of_the_change(export / PULL_REQUEST / change["policy"], notes)
    found = history.Replayed(moves=(), count=0, notes=())
    if theirs is not None and theirs.digest != base.digest:
        older, remark = ([], None) if stored is None else history.stored(stored)
        notes += [remark] if remark else []
        found = history.replayed([run, *older], base, theirs, at)
    said = PolicyChange(
        base_commit=change["base_commit"],
        paths=tuple(change["paths"]),
        rules=() if theirs is None else rule_changes(base, theirs),
        moves=found.moves,
        replayed=found.count,
        notes=(*notes, *found.notes),
    )
    problems = outputs.write(run, Outcome(record=replace(record, policy_change=said), measurements={}))
    return Governed(change=said, problems=tuple(problems))


def _read(export: Path) -> dict[str, Any]:
    expected = f"expected the {CHANGE} of gate ci policy"
    try:
        data = json.loads((export / CHANGE).read_bytes())
    except (OSError, ValueError) as problem:
        raise UsageError(f"{str(export / CHANGE)!r} cannot be read ({problem}), {expected}") from problem
    match data:
        case {"base_commit": str(), "policy": str(policy), "paths": [*paths], "notes": [*notes]}:
            if all(isinstance(text, str) for text in (*paths, *notes)):
                check_reference(policy, f"the policy in {CHANGE}")
                return dict(data)
    raise UsageError(f"{str(export / CHANGE)!r} is something else, {expected}")


def _not_replayed(paths: Sequence[str], policy: str) -> list[str]:
    """A remark where more than the policy changes: other questions have other answers, which nobody measured."""
    others = [p for p in paths if p != policy and Path(p).name != WAIVERS]
    waivers = [p for p in paths if Path(p).name == WAIVERS]
    notes = ["waivers changed: those of the base branch held for this run"] if waivers else []
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        notes.append(f"tasks, prompts or data changed ({shown}): what they would do to a verdict cannot be replayed")
    return notes


def _policy_of_the_change(path: Path, notes: list[str]) -> LoadedPolicy | None:
    """The pull request's policy; where there is none, a remark why."""
    if not path.exists():
        notes.append(f"{governance.GONE}: nothing to replay")
        return None
    try:
        return load_policy(path)
    except PolicyError as problem:
        count = len(problem.problems)
        more = [f"{count - _MAX_MISTAKES} more"] if count > _MAX_MISTAKES else []
        # without our folders: the place in the file is what its author needs
        mistakes = [p.removeprefix(f"{problem.source}:") for p in problem.problems[:_MAX_MISTAKES]]
        notes.append(f"{governance.NOT_LOADED} ({'; '.join([*mistakes, *more])}): nothing to replay")
        return None
