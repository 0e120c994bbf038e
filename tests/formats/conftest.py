"""Shared by the tests of formats: the full-precision model, its checkpoints, and the book of outcomes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gate.backends import Checkpoint
from gate.demo import bundle
from tests.formats import cells, makers
from tests.formats.cells import ROOT, Cell, Outcome
from tests.formats.measuring import Measured, measure

WRITE = "QUANTGATE_FORMATS_WRITE"
"""Set by `make formats`: outcomes are then written down instead of compared with those that were."""

MADE_BY_TOOLS = (
    "ct-w4a16",
    "ct-w8a8",
    "ct-fp8",
    "ct-nvfp4",
    "auto-round",
    "auto-round-gptq",
    "auto-round-awq",
    "auto-round-ct",
)

Settle = Callable[[str, str, Outcome, str], None]


@pytest.fixture(scope="session")
def settle() -> Iterator[Settle]:
    """Call it with (format, backend, outcome, reason) once a test has found it out."""
    kept = cells.read()
    found = {key: Cell(outcome=Outcome.UNTESTED, reason=reason) for key, reason in cells.UNTESTED.items()}

    def note(row: str, backend: str, outcome: Outcome, reason: str = "") -> None:
        assert row in cells.ROWS
        assert backend in cells.BACKENDS
        cell = Cell(outcome=outcome, reason=reason)
        found[row, backend] = cell
        if not os.environ.get(WRITE):
            assert kept.get((row, backend)) == cell, "the table says otherwise: run `make formats`"

    yield note
    if os.environ.get(WRITE):
        cells.write({**kept, **found})


@pytest.fixture(scope="session")
def baseline() -> Path:
    """The bundled demo model: small, and really trained, so that rounding moves its scores a little."""
    torch.set_num_threads(1)
    return bundle.world() / "baseline"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the checkpoints of this run are made."""
    return tmp_path_factory.mktemp("zoo")


def interpreter(environment: str) -> Path:
    """Its Python; skips the test where it was not made."""
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"{python.relative_to(ROOT)} is not there: run `make {environment}-env`")
    return python


@pytest.fixture(scope="session")
def made(baseline: Path, zoo: Path) -> Path:
    """The folder with what the tools of `make quant-env` made: `MADE_BY_TOOLS`."""
    makers.elsewhere(interpreter("quant"), baseline, zoo, *MADE_BY_TOOLS)
    return zoo


@pytest.fixture(scope="session")
def made_by_gptqmodel(baseline: Path, zoo: Path) -> Path:
    makers.elsewhere(interpreter("formats"), baseline, zoo, "gptq")
    return zoo / "gptq"


@pytest.fixture(scope="session")
def measured_exact(baseline: Path, zoo: Path) -> Measured:
    """The full-precision model in float32 on the hf backend."""
    checkpoint = Checkpoint(path=str(baseline), load={}, dtype="float32", tokenizer=None)
    return measure(checkpoint, backend="hf", python=None, folder=zoo / "measured" / "baseline")
