"""The output folder: what a finished run leaves behind, `run.json` first and every file atomically.

Writes; decides nothing.  A report that fails to render is named, and changes no verdict.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from gate import artifact
from gate.errors import UsageError
from gate.pipeline import Outcome
from gate.records import RunRecord
from gate.reports import REPORTS

FILES = {"junit": "junit.xml", "markdown": "summary.md", "html": "report.html"}
"""Report format → its file in the output folder; `run.json` is written by itself, before them."""


def prepare(out: Path) -> None:
    """Make the folder and take away what an earlier run left, so that no stale verdict can be read.

    Raises:
        UsageError: `out` is a file, cannot be written, or holds something that is not a run.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a file, expected a folder")
    ours = {"run.json", "log.txt", "observations", *FILES.values()}
    foreign = sorted(p.name for p in out.iterdir() if p.name not in ours) if out.is_dir() else []
    if foreign and not (out / "run.json").exists():
        raise UsageError(f"--out {str(out)!r} holds {foreign[0]!r} and no run.json: choose an empty or a run's folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("run.json", "log.txt", *FILES.values()):
            (out / name).unlink(missing_ok=True)
        if (out / "observations").is_dir():
            shutil.rmtree(out / "observations")
    except OSError as problem:
        raise UsageError(f"--out {str(out)!r} cannot be written: {problem.strerror}") from problem


def write(out: Path, outcome: Outcome) -> list[str]:
    """Write the run into `out` and return what could not be written, each as one sentence."""
    problems: list[str] = []
    artifact.write_atomic(out / "run.json", artifact.dumps_record(outcome.record).encode())
    (out / "observations").mkdir(exist_ok=True)
    for stage, measurements in outcome.measurements.items():
        try:
            artifact.write_observations(out / "observations" / f"{stage}.parquet", measurements)
        except (OSError, ValueError) as problem:
            problems.append(f"observations of stage {stage} were not written: {problem}")
    for name, filename in FILES.items():
        try:
            text = render(name, outcome.record)
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
