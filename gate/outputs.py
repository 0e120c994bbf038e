"""The output folder: what a finished run leaves behind, `run.json` first and every file atomically.

Writes; decides nothing.  A report that fails to render is named, and changes no verdict.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from gate import artifact
from gate.errors import ArtifactError, UsageError
from gate.pipeline import Outcome
from gate.records import RunRecord
from gate.reports import REPORTS

FILES = {"junit": "junit.xml", "markdown": "summary.md", "html": "report.html"}
"""Report format → its file in the output folder; `run.json` is written by itself, before them."""

OURS = ("run.json", *FILES.values(), "observations", "log.txt")
PREVIOUS = "previous"


def set_aside(out: Path) -> None:
    """Move what an earlier run left in `out` to `out/previous`: no stale verdict can be read, and nothing is lost.

    Raises:
        UsageError: `out` is a file, or holds something that is not a run.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a file, expected a folder")
    foreign = sorted(p.name for p in out.iterdir() if p.name not in ("log.txt", PREVIOUS))
    if foreign and not (out / "run.json").exists():
        raise UsageError(f"--out {str(out)!r} holds {foreign[0]!r} and no run.json: choose an empty or a run's folder")
    try:
        old = [out / name for name in OURS if (out / name).exists()]
        if old:
            shutil.rmtree(out / PREVIOUS, ignore_errors=True)
            (out / PREVIOUS).mkdir()
        for path in old:
            path.rename(out / PREVIOUS / path.name)
    except OSError as problem:
        raise UsageError(f"--out {str(out)!r} cannot be written: {problem.strerror}") from problem


def prepare(out: Path) -> None:
    """Make the folder.  Raises UsageError when that is not possible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"--out {str(out)!r} cannot be written: {problem.strerror}") from problem


def write(out: Path, outcome: Outcome) -> list[str]:
    """Write the run into `out` and return what could not be written, each as one sentence.

    Raises:
        ArtifactError: `run.json` itself could not be written, so nobody may rely on this folder.
    """
    problems: list[str] = []
    try:
        artifact.write_atomic(out / "run.json", artifact.dumps_record(outcome.record).encode())
        (out / "observations").mkdir(exist_ok=True)
    except OSError as problem:
        said = outcome.record.verdict.sentence
        raise ArtifactError(
            f"{out / 'run.json'} was not written ({problem.strerror}); the run ended in: {said}"
        ) from problem
    for stage, measurements in outcome.measurements.items():
        try:
            artifact.write_observations(out / "observations" / f"{stage}.parquet", measurements)
        except (OSError, ValueError) as problem:
            problems.append(f"observations of stage {stage} were not written: {problem}")
    return problems + write_reports(out, outcome.record)


def write_reports(out: Path, record: RunRecord) -> list[str]:
    """Render the record in every format of `FILES`; what could not be written, each as one sentence."""
    problems = []
    for name, filename in FILES.items():
        try:
            text = render(name, record)
            artifact.write_atomic(out / filename, text.encode())
        except Exception as problem:  # whatever a renderer does wrong, it must not change the verdict
            problems.append(f"{filename} was not written: {type(problem).__name__}: {problem}")
    return problems


def render(name: str, record: RunRecord) -> str:
    """`record` in the report format `name`.  Raises UsageError for an unknown format."""
    if name not in REPORTS:
        raise UsageError(f"unknown report format {name!r}, expected one of {', '.join(REPORTS)}")
    module, attribute = REPORTS[name].split(":")
    text: str = getattr(importlib.import_module(module), attribute)(record)
    return text
