"""Which verdicts of earlier runs would move if a stored baseline gave way to another measurement of it.

Decides again from what those runs stored; runs no model and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from gate.errors import GateError
from gate.finished.run_folder import RunFolder, is_run_folder, read_run
from gate.policy import planned_rules
from gate.policy_file import LoadedPolicy
from gate.records import Measurement, Role, RunRecord, Status
from gate.replay import replay


@dataclass(frozen=True, kw_only=True, slots=True)
class Replacement:
    """A stored baseline measurement, and the one that is to take its place."""

    old: Measurement
    new: Measurement


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """A rule (None: the run's verdict) that would say something else."""

    rule: str | None
    was: Status | None
    would_be: Status | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """One earlier run.

    Attributes:
        concerned: whether it was judged against a baseline that is to be replaced.
        problem: why it could not be decided again, or None.
    """

    folder: Path
    run_id: str | None
    concerned: bool
    moves: tuple[Move, ...]
    problem: str | None


def run_folders(root: Path) -> tuple[Path, ...]:
    """All run folders in `root`, itself included; not what later runs have set aside."""
    found = [root] if is_run_folder(root) else []
    found += sorted(p.parent for p in root.rglob("run.json") if p.parent not in found and p.parent.name != "previous")
    return tuple(found)


def replayed(folders: Sequence[Path], replacements: Sequence[Replacement], *, now: datetime) -> tuple[Replayed, ...]:
    """Each run as it was and as it would be, decided by the same rules.

    Both are decided again, so that nothing but the baseline makes a difference.
    """
    return tuple(_replayed(folder, replacements, now) for folder in folders)


def _replayed(folder: Path, replacements: Sequence[Replacement], now: datetime) -> Replayed:
    run_id = None
    try:
        run = read_run(folder)
        run_id = run.record.run_id
        changed = _with_other_baseline(run.measurements, replacements)
        if changed is None:
            return Replayed(folder=folder, run_id=run_id, concerned=False, moves=(), problem=None)
        policy = _policy_of(run)
        before = replay(run, policy, now=now).record
        after = replay(replace(run, measurements=changed), policy, now=now).record
    except GateError as problem:
        return Replayed(folder=folder, run_id=run_id, concerned=True, moves=(), problem=str(problem))
    return Replayed(folder=folder, run_id=run_id, concerned=True, moves=_moves(before, after), problem=None)


def _with_other_baseline(
    measurements: Mapping[tuple[str, str, Role], Measurement], replacements: Sequence[Replacement]
) -> Mapping[tuple[str, str, Role], Measurement] | None:
    """None where the run was judged against none of the old ones."""
    changed = dict(measurements)
    for (stage, source, role), measured in measurements.items():
        if role is not Role.BASELINE:
            continue
        for replacement in replacements:
            if _is_same(measured, replacement.old):
                changed[stage, source, role] = replacement.new
    return changed if changed != dict(measurements) else None


def _is_same(measured: Measurement, stored: Measurement) -> bool:
    """Whether a run's baseline came from this entry, or made it: every score is the same."""
    of = [(m.stage, m.source, m.settings_digest, m.observations) for m in (measured, stored)]
    return of[0] == of[1]


def _policy_of(run: RunFolder) -> LoadedPolicy:
    """What the run was judged by, as its record has it."""
    return LoadedPolicy(
        policy=run.ran_under,
        text="",
        digest=run.record.policy_digest,
        source=run.record.policy_source,
        base=run.path,
        lines={},
        rules=planned_rules(run.ran_under, {}),
    )


def _moves(before: RunRecord, after: RunRecord) -> tuple[Move, ...]:
    then, now = _statuses(before), _statuses(after)
    moves = [
        Move(rule=rule, was=then.get(rule), would_be=now.get(rule))
        for rule in dict.fromkeys((*then, *now))
        if then.get(rule) is not now.get(rule)
    ]
    if before.verdict.status is not after.verdict.status:
        moves.insert(0, Move(rule=None, was=before.verdict.status, would_be=after.verdict.status))
    return tuple(moves)


def _statuses(record: RunRecord) -> dict[str, Status]:
    return {f.rule.id: f.status for s in record.stages for f in s.findings}
