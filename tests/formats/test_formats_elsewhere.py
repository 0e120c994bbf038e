"""Formats whose tools live in environments of their own, from the tool to the score, each through a worker.

`make quant-env` has the tools that quantize, `make formats-env` the loaders that do not go with constraints.txt.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gate.backends import Checkpoint
from tests.formats import makers
from tests.formats.cells import ROOT, Outcome
from tests.formats.conftest import Settle
from tests.formats.measuring import Measured, measure

pytestmark = [pytest.mark.formats, pytest.mark.timeout(900)]

TOOLS = ROOT / ".venv-quant" / "bin" / "python"
LOADERS = ROOT / ".venv-formats" / "bin" / "python"
MADE_BY_TOOLS = (
    "ct-w4a16",
    "ct-w8a8",
    "ct-fp8",
    "auto-round",
    "auto-round-gptq",
    "auto-round-awq",
    "auto-round-ct",
)

Run = Callable[[str, Path | None], Measured]


@pytest.fixture(scope="session")
def made(baseline: Path, zoo: Path) -> Path:
    for python, target in ((TOOLS, "quant-env"), (LOADERS, "formats-env")):
        if not python.is_file():
            pytest.skip(f"{python.relative_to(ROOT)} is not there: run `make {target}`")
    makers.elsewhere(TOOLS, baseline, zoo, *MADE_BY_TOOLS)
    makers.elsewhere(LOADERS, baseline, zoo, "gptq")
    return zoo


@pytest.fixture(scope="session")
def exact(baseline: Path, zoo: Path) -> Measured:
    checkpoint = Checkpoint(path=str(baseline), load={}, dtype="float32", tokenizer=None)
    return measure(checkpoint, backend="hf", python=None, folder=zoo / "measured" / "baseline")


def assert_near(found: Measured, exact: Measured, *, most_nats: float = 0.05) -> None:
    """Every document scores about as with full precision, and not quite."""
    assert found.nats.keys() == exact.nats.keys()
    shifts = [abs(found.nats[item] - exact.nats[item]) for item in exact.nats]
    assert len(shifts) > 8
    assert 1e-5 < sum(shifts) / len(shifts) < most_nats
    assert max(shifts) < 3 * most_nats


@pytest.mark.parametrize(
    ("name", "row", "in_loaders"),
    [
        ("ct-w4a16", "ct-w4a16", False),
        ("auto-round-ct", "ct-w4a16", False),
        ("ct-w8a8", "ct-w8a8", False),
        ("ct-fp8", "ct-fp8", False),
        ("auto-round", "auto-round", False),
        ("gptq", "gptq", True),
        ("auto-round-gptq", "gptq", True),
        ("auto-round-awq", "awq", True),
    ],
)
def test_made_by_its_tool_and_loaded(
    name: str, row: str, in_loaders: bool, made: Path, exact: Measured, settle: Settle
) -> None:
    checkpoint = Checkpoint(path=str(made / name), load={}, dtype="auto", tokenizer=None)
    python = LOADERS if in_loaders else None
    found = measure(checkpoint, backend="hf", python=python, folder=made / "measured" / name)
    assert_near(found, exact)
    unpacked = any("unpacks the weights" in note for note in found.info.notes)
    assert unpacked == row.startswith("ct-")
    reason = ""
    if unpacked:
        reason = "unpacked at the first run, activations rounded as declared: a note in the record says so"
    elif in_loaders:
        reason = "with the extra `gptq`"
    settle(row, "hf", Outcome.TESTED, reason)


def test_hqq_while_loading(baseline: Path, made: Path, exact: Measured, settle: Settle) -> None:
    checkpoint = Checkpoint(path=str(baseline), load={"method": "hqq-4"}, dtype="float32", tokenizer=None)
    found = measure(checkpoint, backend="hf", python=LOADERS, folder=made / "measured" / "hqq")
    assert found.info.packages["torch"]
    assert_near(found, exact)
    settle("load-hqq-4", "hf", Outcome.TESTED, "with the extra `hqq`")
