"""The command line stays light: help and everything that reads files only must not load model libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gate.cli import main

HEAVY = {"torch", "transformers", "scipy", "lm_eval", "datasets"}


def loaded_by(*arguments: str) -> tuple[int, set[str], str]:
    """Exit code, top-level packages imported, and stdout of `gate …`, by the interpreter's own import log."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gate", *arguments], capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.returncode, {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines}, done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("plan", "-p", "thresholds/default.yaml"),
        ("schema", "policy"),
        ("schema", "run"),
    ],
    ids=" ".join,
)
def test_light_commands_import_no_model_library(arguments: tuple[str, ...]) -> None:
    code, packages, out = loaded_by(*arguments)
    assert code == 0
    assert "gate" in packages
    assert not packages & HEAVY
    assert out.strip()


def test_help_teaches() -> None:
    _, _, out = loaded_by("--help")
    for word in ("run", "demo", "plan", "report", "schema", "Exit codes"):
        assert word in out


def test_no_error_commands_a_terminal_or_a_ci_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "x\x1b[31m\n::error::all is well"
    assert main(["report", str(tmp_path / name)]) == 2
    told = capsys.readouterr().err
    assert "found no run.json" in told
    assert "\x1b" not in told
    assert not any(line.lstrip().startswith("::") for line in told.splitlines())
