"""Stored runs under two policies: whose verdict would be another?

Replays rows that were measured before; a run that cannot be replayed under both is named, and moves nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gate import policy
from gate.errors import ArtifactError, GateError
from gate.finished.record import ended_before_measuring
from gate.finished.run_folder import RunFolder, read_run
from gate.policy_file import LoadedPolicy
from gate.records import Move
from gate.replay import replay
from gate.reports.sentence import TITLES

MAX_RUNS = 200
MAX_FOLDERS = 5_000
"""In one folder."""

_MAX_DEPTH = 6
_MAX_REASONS = 10
_HEAD_BYTES = 4096
_CREATED = re.compile(rb'"created_at"\s*:\s*"([0-9T:.+Z-]{10,40})"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """`moves` of `count` runs that were judged under both policies; `notes` name the others."""

    moves: tuple[Move, ...]
    count: int
    notes: tuple[str, ...]


def stored(folder: Path) -> tuple[list[Path], str | None]:
    """Run folders below `folder`, the newest first, and a remark where not all of them are taken."""
    found = sorted(_runs(folder, 0), key=lambda run: (_created(run), str(run)), reverse=True)
    if len(found) <= MAX_RUNS:
        return found, None
    return found[:MAX_RUNS], f"{len(found) - MAX_RUNS} older stored runs were not replayed"


def replayed(folders: Sequence[Path], was: LoadedPolicy, now: LoadedPolicy, at: datetime) -> Replayed:
    """Judge each run under both.  A damaged run, and one that measured something else, is a note."""
    moves: list[Move] = []
    notes: list[str] = []
    seen: set[str] = set()
    elsewhere: Counter[str] = Counter()
    count = 0
    for folder in folders:
        try:
            run = read_run(folder)
            if run.record.run_id in seen:
                continue
            seen.add(run.record.run_id)
            missing = _missing(run, was) or _missing(run, now)
            if missing is not None:
                elsewhere[missing] += 1
                continue
            first, then = (replay(run, one, now=at).record for one in (was, now))
        except (GateError, ArithmeticError, LookupError, OSError, TypeError, ValueError) as problem:
            notes.append(f"the stored run {'/'.join(folder.parts[-2:])!r} cannot be replayed: {_why(problem)}")
            continue
        count += 1
        before, after = first.verdict.status, then.verdict.status
        if before is not after:
            uri = run.record.candidate.uri if run.record.candidate else "unknown"
            moves.append(Move(run_id=run.record.run_id, candidate=uri, was=before, now=after))
        elif first.exit_code != then.exit_code:
            codes = f"exit code {first.exit_code} → {then.exit_code}"
            notes.append(f"run {run.record.run_id} stays {TITLES[before]}, and would end otherwise: {codes}")
    others = [f"{n} of {len(seen)} runs cannot be replayed: {why}" for why, n in elsewhere.most_common(_MAX_REASONS)]
    if len(notes) > _MAX_REASONS:
        notes = [*notes[:_MAX_REASONS], f"{len(notes) - _MAX_REASONS} more stored runs cannot be replayed"]
    return Replayed(moves=tuple(moves), count=count, notes=(*others, *notes))


def _why(problem: Exception) -> str:
    """In our words: what a damaged file says of itself, and where it lies, is for nobody else to read."""
    if isinstance(problem, ArtifactError):
        return "its files are damaged or incomplete"
    said = str(problem).strip().splitlines() or [type(problem).__name__]
    return said[0]


def _missing(run: RunFolder, loaded: LoadedPolicy) -> str | None:
    """What this policy asks and that run did not measure; None if nothing, or if it ended before it measured."""
    if ended_before_measuring(run.record):
        return None
    for stage in loaded.policy.stages:
        if run.stage(stage.name) is None:
            return f"stage {stage.name!r} was not measured"
        for source, settings in policy.split(stage):
            seed = loaded.policy.seed
            different = run.differs(source, settings, seed) or run.began_elsewhere(source, settings, seed)
            if different is not None:
                return f"{source!r}: {different}"
    return None


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    """Folders with a run.json, links left out."""
    if (folder / "run.json").is_file():
        yield folder
    if depth >= _MAX_DEPTH or not folder.is_dir():
        return
    for inner in sorted(folder.iterdir())[:MAX_FOLDERS]:
        if inner.is_dir() and not inner.is_symlink() and inner.name != "observations":
            yield from _runs(inner, depth + 1)


def _created(folder: Path) -> bytes:
    """When the run was made, as its record says near its start; nothing where it does not say."""
    try:
        with (folder / "run.json").open("rb") as file:
            found = _CREATED.search(file.read(_HEAD_BYTES))
    except OSError:
        return b""
    return found[1] if found else b""
