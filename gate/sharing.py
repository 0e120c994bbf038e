"""`gate share`: a copy of a run's folder that may leave the machine, as `share_examples` in its policy says.

Writes into a folder of its own and reads only what a run writes: no link, nothing beside it, never the source changed.
"""

from __future__ import annotations

import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gate import artifact, outputs
from gate.errors import ArtifactError, UsageError
from gate.records import Measurement, RunRecord
from gate.reports import shared
from gate.reports.own_words import own_words

NOT_SHARED = "not shared"
"""The message of every item that could not be measured; its kind stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """What was written, and what was not: `left_out` on purpose, `problems` against it."""

    level: shared.Level
    left_out: tuple[str, ...]
    problems: tuple[str, ...]


def share(folder: Path, out: Path) -> Copy:
    """Write the copy of a run's folder into `out`, which is empty or not there.

    Values, ids of items and names of groups stay in the observations, so that the copy has the same verdict under any
    policy.  Below `full` it has no prompt, answer, target, message of an item, or line of the log.  The reports are
    rendered anew from what may be shared.

    Raises:
        UsageError: no run there, or `out` holds something.
        ArtifactError: the run cannot be read, or the copy not be written.
    """
    if not _is_file(folder / "run.json"):
        raise UsageError(f"found no run.json in {str(folder)!r}, expected the output folder of gate run")
    if not _is_free(out):
        raise UsageError(f"--out {str(out)!r} holds something already, expected an empty folder or none")
    out = out.resolve()
    data = _read(folder / "run.json")
    record = artifact.loads_record(data)
    level = shared.level(record.policy)
    observed = [p for p in _observations(folder) if p.stem in {s.name for s in record.stages}]
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        (temporary / "observations").mkdir(parents=True)
        if level == "full":
            problems = _as_it_is(folder, temporary, record, data, observed)
        else:
            problems = _stripped(temporary, record, observed)
        temporary.rename(out)
        artifact.sync_folder(out.parent)
    except OSError as problem:
        raise ArtifactError(f"the copy of {folder} was not written to {out} ({problem.strerror})") from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Copy(level=level, left_out=tuple(_left_out(folder, level, observed)), problems=tuple(problems))


def _as_it_is(folder: Path, to: Path, record: RunRecord, data: bytes, observed: Collection[Path]) -> list[str]:
    artifact.write_atomic(to / "run.json", data)
    for path in observed:
        artifact.write_atomic(to / "observations" / path.name, _read(path))
    if _is_file(folder / "log.txt"):
        artifact.write_atomic(to / "log.txt", _read(folder / "log.txt"))
    return outputs.write_reports(to, record)


def _stripped(to: Path, record: RunRecord, observed: Collection[Path]) -> list[str]:
    public = shared.redacted(record)
    artifact.write_atomic(to / "run.json", artifact.dumps_record(public).encode())
    known = shared.names(record)
    for path in observed:
        found = [stripped(one, known) for one in artifact.read_observations(path)]
        artifact.write_observations(to / "observations" / path.name, found)
    return outputs.write_reports(to, public)


def stripped(measurement: Measurement, known: Collection[str]) -> Measurement:
    """The measurement without texts; every value, id, group and kind of failure stays."""
    return replace(
        measurement,
        answers=tuple(replace(a, prompt="", output="", target="") for a in measurement.answers),
        failures=tuple(replace(f, message=NOT_SHARED) for f in measurement.failures),
        notes=tuple(own_words(note, known) for note in measurement.notes),
    )


def _left_out(folder: Path, level: shared.Level, observed: Collection[Path]) -> Iterator[str]:
    """What lies in the run's folder and not in the copy."""
    for path in sorted(folder.iterdir()):
        if path.name not in outputs.OURS:
            yield path.name
        elif path.is_symlink():
            yield f"{path.name} (a link)"
        elif path.name == "log.txt" and level != "full":
            yield "log.txt (a log may quote anything)"
        elif path.name == "observations" and path.is_dir():
            yield from (f"observations/{p.name}" for p in sorted(path.iterdir()) if p not in observed)


def _observations(folder: Path) -> list[Path]:
    inside = folder / "observations"
    if inside.is_symlink() or not inside.is_dir():
        return []
    return [p for p in sorted(inside.iterdir()) if p.suffix == ".parquet" and _is_file(p)]


def _is_free(out: Path) -> bool:
    if out.is_symlink():
        return False
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def _is_file(path: Path) -> bool:
    """Is it a file of its own: no link, no pipe, no device?"""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise ArtifactError(f"{path} cannot be read ({problem.strerror})") from problem
