"""Each quantized format on the vLLM backend, on a CPU: scored through a worker, or refused."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gate.backends import Checkpoint
from tests.formats import makers
from tests.formats.cells import ROOT, Outcome
from tests.formats.conftest import Settle, interpreter
from tests.formats.measuring import Measured, assert_near, measure, shifts

pytestmark = [pytest.mark.vllm, pytest.mark.formats, pytest.mark.timeout(900)]


def measured(path: Path, zoo: Path, *, dtype: str = "auto") -> Measured:
    checkpoint = Checkpoint(path=str(path), load={}, dtype=dtype, tokenizer=None)
    folder = zoo / "measured" / f"vllm-{path.name}-{dtype}"
    return measure(checkpoint, backend="vllm", python=interpreter("vllm"), folder=folder, silence_seconds=300.0)


def test_full_precision(baseline: Path, zoo: Path, measured_exact: Measured, settle: Settle) -> None:
    single, half = (measured(baseline, zoo, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert (single.info.dtype, half.info.dtype) == ("float32", "bfloat16")
    assert max(shifts(single, measured_exact)) < 1e-3
    assert_near(half, measured_exact, most_nats=0.02)
    settle("full", "vllm", Outcome.TESTED, "BF16 and FP32 tested")


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("ct-w4a16", "ct-w4a16"),
        ("ct-w8a8", "ct-w8a8"),
        ("ct-fp8", "ct-fp8"),
        ("auto-round", "auto-round"),
        ("auto-round-gptq", "gptq"),
        ("auto-round-awq", "awq"),
    ],
)
def test_quantized(name: str, row: str, made: Path, measured_exact: Measured, settle: Settle) -> None:
    assert_near(measured(made / name, made), measured_exact)
    settle(row, "vllm", Outcome.TESTED, "")


_PLUGIN = "vLLM 0.32 knows it only with a plugin"
_ON_LOAD = "vLLM does not quantize so while it loads"
_UNKNOWN = "vLLM does not know it"
REFUSED = {
    "bitsandbytes-nf4": ("Unknown quantization method: bitsandbytes", _PLUGIN),
    "bitsandbytes-int8": ("Unknown quantization method: bitsandbytes", _PLUGIN),
    "load-bitsandbytes-nf4": ("it knows no quantization 'bitsandbytes' without a plugin that adds it", _PLUGIN),
    "load-bitsandbytes-int8": ("vLLM cannot quantize with 'bitsandbytes-int8' while it loads", _ON_LOAD),
    "load-torchao-int8": ("vLLM cannot quantize with 'torchao-int8' while it loads", _ON_LOAD),
    "load-torchao-int4": ("vLLM cannot quantize with 'torchao-int4' while it loads", _ON_LOAD),
    "load-hqq-4": ("vLLM cannot quantize with 'hqq-4' while it loads", _ON_LOAD),
    "torchao-int8": ("Please install torchao", "torchao is not in vLLM's environment"),
    "torchao-int4": ("Please install torchao", "torchao is not in vLLM's environment"),
    "torchao-fp8": ("Please install torchao", "torchao is not in vLLM's environment"),
    "gguf": ("it knows no quantization 'gguf' without a plugin that adds it", _PLUGIN),
    "hqq": ("Unknown quantization method: hqq", _UNKNOWN),
    "quanto": ("Unknown quantization method: quanto", _UNKNOWN),
    "nvfp4": ("Unknown quantization method: nvfp4", _UNKNOWN),
}
"""Row → part of what the user reads, and the reason in the table."""

_TRY_ALL = """
import json, sys
from gate.backends import Checkpoint
from gate.backends.vllm import open_backend
from gate.errors import CheckpointError
said = {}
for row, fields in json.loads(sys.argv[1]).items():
    try:
        open_backend(Checkpoint(**fields), "cpu")
        said[row] = "loaded"
    except CheckpointError as problem:
        said[row] = str(problem)
print("SAID" + json.dumps(said))
"""


def test_refused(baseline: Path, zoo: Path, settle: Settle) -> None:
    """All in one process: nothing is loaded in it."""
    python = interpreter("vllm")
    tried: dict[str, dict[str, Any]] = {}
    for row in REFUSED:
        path, load = baseline, {}
        tool, _, scheme = row.partition("-")
        if tool == "load":
            load = {"method": scheme}
        elif tool == "bitsandbytes":
            path = makers.bitsandbytes(baseline, zoo / f"vllm-{row}", scheme)
        elif tool == "torchao":
            path = makers.torchao(baseline, zoo / f"vllm-{row}", scheme)
        elif row == "gguf":
            path, load = zoo / "vllm-gguf", {"gguf_file": makers.gguf(baseline, zoo / "vllm-gguf", "Q8_0")}
        else:
            path = makers.declaring(baseline, zoo / f"vllm-{row}", quant_method=row, bits=4)
        tried[row] = {"path": str(path), "load": load, "dtype": "auto", "tokenizer": str(baseline)}
    done = subprocess.run(
        [str(python), "-c", _TRY_ALL, json.dumps(tried)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("SAID"))[4:])
    for row, (part, reason) in REFUSED.items():
        assert part in said[row], row
        settle(row, "vllm", Outcome.REFUSED, reason)
