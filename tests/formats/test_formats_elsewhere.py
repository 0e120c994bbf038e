"""Formats whose tools live in environments of their own, from the tool to the score, each through a worker.

`make quant-env` has the tools that quantize, `make formats-env` the loaders that do not go with constraints.txt.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gate.backends import Checkpoint
from tests.formats.cells import Outcome
from tests.formats.conftest import Settle, interpreter
from tests.formats.identity import accepted
from tests.formats.measuring import Measured, assert_near, measure

pytestmark = [pytest.mark.formats, pytest.mark.timeout(900)]

WITH_GPTQ = "with the extra `gptq`"
UNPACKED = "weights unpacked when first run (a note in the record)"


@pytest.mark.parametrize(
    ("name", "row", "dtype"),
    [
        ("ct-w4a16", "ct-w4a16", "auto"),
        ("auto-round-ct", "ct-w4a16", "auto"),
        ("ct-w8a8", "ct-w8a8", "auto"),
        ("ct-fp8", "ct-fp8", "auto"),
        ("ct-nvfp4", "ct-nvfp4", "bfloat16"),
    ],
)
def test_compressed_tensors(
    name: str, row: str, dtype: str, made: Path, measured_exact: Measured, settle: Settle
) -> None:
    assert accepted(made / name, cache=made / "cache").method == "compressed-tensors"
    checkpoint = Checkpoint(path=str(made / name), load={}, dtype=dtype, tokenizer=None)
    found = measure(checkpoint, backend="hf", python=None, folder=made / "measured" / name)
    assert_near(found, measured_exact)
    assert any("unpacks the weights" in note for note in found.info.notes)
    settle(row, "hf", Outcome.TESTED, UNPACKED + ("; in bfloat16 alone" if row == "ct-nvfp4" else ""))


def test_auto_round(made: Path, measured_exact: Measured, settle: Settle) -> None:
    assert accepted(made / "auto-round", cache=made / "cache").method == "auto-round"
    checkpoint = Checkpoint(path=str(made / "auto-round"), load={}, dtype="float32", tokenizer=None)
    found = measure(checkpoint, backend="hf", python=None, folder=made / "measured" / "auto-round")
    assert_near(found, measured_exact)
    assert "dtype float32 was asked for, and the loader of this format allows float16 here" in found.info.notes
    settle("auto-round", "hf", Outcome.TESTED, "on a CPU in float16 alone")


@pytest.mark.parametrize(("name", "row"), [("auto-round-gptq", "gptq"), ("auto-round-awq", "awq")])
def test_gptq_and_awq(name: str, row: str, made: Path, measured_exact: Measured, settle: Settle) -> None:
    assert accepted(made / name, cache=made / "cache").method == row
    checkpoint = Checkpoint(path=str(made / name), load={}, dtype="auto", tokenizer=None)
    python = interpreter("formats")
    found = measure(checkpoint, backend="hf", python=python, folder=made / "measured" / name)
    assert_near(found, measured_exact)
    assert "gptqmodel" in found.info.packages
    settle(row, "hf", Outcome.TESTED, WITH_GPTQ)


def test_gptq_of_its_own_tool(made_by_gptqmodel: Path, zoo: Path, measured_exact: Measured, settle: Settle) -> None:
    assert accepted(made_by_gptqmodel, cache=zoo / "cache").method == "gptq"
    checkpoint = Checkpoint(path=str(made_by_gptqmodel), load={}, dtype="auto", tokenizer=None)
    python = interpreter("formats")
    found = measure(checkpoint, backend="hf", python=python, folder=zoo / "measured" / "gptq")
    assert_near(found, measured_exact)
    settle("gptq", "hf", Outcome.TESTED, WITH_GPTQ)


def test_hqq_while_loading(baseline: Path, zoo: Path, measured_exact: Measured, settle: Settle) -> None:
    checkpoint = Checkpoint(path=str(baseline), load={"method": "hqq-4"}, dtype="float32", tokenizer=None)
    found = measure(checkpoint, backend="hf", python=interpreter("formats"), folder=zoo / "measured" / "hqq")
    assert_near(found, measured_exact)
    assert "hqq" in found.info.packages
    settle("load-hqq-4", "hf", Outcome.TESTED, "with the extra `hqq`")
