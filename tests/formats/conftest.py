"""Shared by the tests of formats: the full-precision model, its checkpoints, and the book of outcomes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gate.demo import bundle
from tests.formats import cells
from tests.formats.cells import Cell, Outcome

WRITE = "QUANTGATE_FORMATS_WRITE"
"""Set by `make formats`: outcomes are then written down instead of compared with those that were."""

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
