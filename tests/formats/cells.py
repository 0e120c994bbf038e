"""The format × backend table: its rows, what the tests found for each cell, and the file that keeps it.

`docs/formats.json` is written by the tests (`make formats`) and by nothing else; `table` renders it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "formats.json"
BACKENDS = ("hf", "vllm")


class Outcome(StrEnum):
    TESTED = "works (tested)"
    UNTESTED = "works (untested here)"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """`made_by` is the tool that made the checkpoint of the tests, or what would make it."""

    title: str
    made_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    outcome: Outcome
    reason: str


ROWS: Mapping[str, Row] = {
    "full": Row(title="full precision: BF16, FP16, FP32", made_by="transformers"),
    "bitsandbytes-nf4": Row(title="bitsandbytes NF4, saved", made_by="bitsandbytes"),
    "bitsandbytes-int8": Row(title="bitsandbytes LLM.int8(), saved", made_by="bitsandbytes"),
    "load-bitsandbytes-nf4": Row(title="`load: {method: bitsandbytes-nf4}`", made_by="bitsandbytes, while loading"),
    "load-bitsandbytes-int8": Row(title="`load: {method: bitsandbytes-int8}`", made_by="bitsandbytes, while loading"),
    "load-torchao-int8": Row(title="`load: {method: torchao-int8}`", made_by="torchao, while loading"),
    "load-torchao-int4": Row(title="`load: {method: torchao-int4}`", made_by="torchao, while loading"),
    "load-hqq-4": Row(title="`load: {method: hqq-4}`", made_by="HQQ, while loading"),
    "gptq": Row(title="GPTQ, 4 bits", made_by="GPTQModel; AutoRound"),
    "awq": Row(title="AWQ, 4 bits", made_by="AutoRound"),
    "auto-round": Row(title="AutoRound, 4 bits", made_by="AutoRound"),
    "ct-w4a16": Row(title="compressed-tensors W4A16", made_by="llmcompressor (GPTQ); AutoRound"),
    "ct-w8a8": Row(title="compressed-tensors W8A8", made_by="llmcompressor (SmoothQuant, GPTQ)"),
    "ct-fp8": Row(title="compressed-tensors FP8, dynamic", made_by="llmcompressor"),
    "ct-nvfp4": Row(title="compressed-tensors NVFP4, weights alone", made_by="llmcompressor"),
    "torchao-int8": Row(title="torchao INT8 weights, saved", made_by="torchao"),
    "torchao-int4": Row(title="torchao INT4 weights, saved", made_by="torchao"),
    "torchao-fp8": Row(title="torchao FP8 weights, saved", made_by="torchao"),
    "gguf": Row(title="GGUF: Q8_0, Q4_0", made_by="gguf"),
    "fp8": Row(title="FP8 in blocks (`fp8`)", made_by="DeepSeek's layout; transformers"),
    "mxfp4": Row(title="MXFP4", made_by="gpt-oss's layout"),
    "hqq": Row(title="HQQ, saved", made_by="transformers 4"),
    "quanto": Row(title="optimum-quanto, saved", made_by="optimum-quanto"),
    "nvfp4": Row(title="NVFP4 of transformers", made_by="transformers"),
    "modelopt": Row(title="NVIDIA ModelOpt FP8 and NVFP4", made_by="ModelOpt"),
}

_NO_GPU = "needs a GPU, and the tests run on CPUs"
UNTESTED: Mapping[tuple[str, str], str] = {
    ("fp8", "hf"): "needs a CUDA device of compute capability 8.9 or higher; refused on a CPU (tested)",
    ("mxfp4", "hf"): "needs a CUDA device, triton and kernels; refused on a CPU (tested)",
    ("ct-nvfp4", "vllm"): _NO_GPU,
    ("fp8", "vllm"): "needs a GPU, or a CPU with AMX",
    ("mxfp4", "vllm"): _NO_GPU,
    ("modelopt", "vllm"): _NO_GPU,
}
"""Cells whose code is there and which no test here can run, with the reason."""


def read() -> dict[tuple[str, str], Cell]:
    """(format, backend) → what was found last."""
    rows = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else []
    return {
        (row["format"], row["backend"]): Cell(outcome=Outcome(row["outcome"]), reason=row["reason"]) for row in rows
    }


def write(cells: Mapping[tuple[str, str], Cell]) -> None:
    kept = [
        {"format": row, "backend": backend, **asdict(cells[row, backend])}
        for row in ROWS
        for backend in BACKENDS
        if (row, backend) in cells
    ]
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
