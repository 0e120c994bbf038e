"""Run by other environments' interpreters: `python elsewhere.py SOURCE FOLDER NAME ...` makes FOLDER/NAME each.

Only the tools of that environment are imported; see `.venv-quant` and `.venv-formats` in the Makefile.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

if (os.cpu_count() or 1) < 4:
    os.cpu_count = lambda: 4  # GPTQModel gives its workers half of the CPUs, and fails when that is one

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gate.demo.corpus import Kind, training_document

DOCUMENTS = 64
TOKENS = 128


def texts() -> list[str]:
    import random

    rng, kinds = random.Random("calibration"), tuple(Kind)
    return ["".join(training_document(rng, kinds[i % len(kinds)])) for i in range(DOCUMENTS)]


def compressed_tensors(source: Path, folder: Path, scheme: str) -> None:
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    common: dict[str, Any] = {"targets": ["Linear"], "ignore": ["lm_head"]}
    recipe = {
        "ct-w4a16": [GPTQModifier(scheme="W4A16", **common)],
        "ct-w8a8": [SmoothQuantModifier(smoothing_strength=0.5), GPTQModifier(scheme="W8A8", **common)],
        "ct-fp8": [QuantizationModifier(scheme="FP8_DYNAMIC", **common)],
        "ct-nvfp4": [QuantizationModifier(scheme="NVFP4A16", **common)],
    }[scheme]
    tokenizer = AutoTokenizer.from_pretrained(source)
    rows = [dict(tokenizer(text, truncation=True, max_length=TOKENS)) for text in texts()]
    calibration: dict[str, Any] = {
        "dataset": Dataset.from_list(rows),
        "num_calibration_samples": len(rows),
        "max_seq_length": TOKENS,
        "shuffle_calibration_samples": False,
    }
    model = AutoModelForCausalLM.from_pretrained(source)
    oneshot(
        model=model, tokenizer=tokenizer, recipe=recipe, **(calibration if scheme in ("ct-w4a16", "ct-w8a8") else {})
    )
    model.save_pretrained(folder, save_compressed=True)


def auto_round(source: Path, folder: Path, export: str) -> None:
    from auto_round import AutoRound

    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = torch.tensor(tokenizer.encode("".join(texts()) * 2)[: 32 * TOKENS]).view(32, 1, TOKENS)
    dataset = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]
    rounding = AutoRound(
        AutoModelForCausalLM.from_pretrained(source),
        tokenizer,
        scheme="W4A16",
        group_size=128,
        iters=0,
        disable_opt_rtn=True,
        nsamples=32,
        seqlen=TOKENS,
        dataset=dataset,
        device_map="cpu",
    )
    made = folder.with_name(f"{folder.name}-made")
    rounding.quantize_and_save(str(made), format=export)
    next(path for path in (made, *made.iterdir()) if (path / "config.json").is_file()).rename(folder)


def gptqmodel(source: Path, folder: Path) -> None:
    from gptqmodel import GPTQModel, QuantizeConfig

    model = GPTQModel.load(str(source), QuantizeConfig(bits=4, group_size=128))
    model.quantize(texts(), batch_size=8)
    model.save(str(folder))


def make(name: str, source: Path, folder: Path) -> None:
    match name:
        case "ct-w4a16" | "ct-w8a8" | "ct-fp8" | "ct-nvfp4":
            compressed_tensors(source, folder, name)
        case "auto-round":
            auto_round(source, folder, "auto_round")
        case "auto-round-gptq":
            auto_round(source, folder, "auto_gptq")
        case "auto-round-awq":
            auto_round(source, folder, "auto_awq")
        case "auto-round-ct":
            auto_round(source, folder, "llm_compressor")
        case "gptq":
            gptqmodel(source, folder)
        case _:
            raise ValueError(f"nothing makes {name!r}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source, out = map(Path, sys.argv[1:3])
    for name in sys.argv[3:]:
        shutil.rmtree(out / name, ignore_errors=True)
        make(name, source, out / name)
