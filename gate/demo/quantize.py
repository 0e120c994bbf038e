"""Quantize the demo baseline with the field's own tools: `python -m gate.demo.quantize --world gate/demo/world`.

Runs in the quantizers' own environment (constraints-quantizers.txt), with the repository on the path. Writes
`<world>/candidates/<name>`; which candidate passes what is for the gate to find out and is written nowhere here.
"""

import argparse
import os
import random
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, QuantizationStrategy
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from gate.demo.corpus import Kind, training_document

CALIBRATION_MAX_TOKENS = 192
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


class Method(StrEnum):
    """How the weights are rounded, and by which tool."""

    GPTQ = "gptq"
    ROUND_TO_NEAREST = "rtn"
    INT8_WEIGHTS_AND_ACTIVATIONS = "w8a8"
    NF4 = "nf4"
    NO_MODULE_MATCHED = "unquantized"


class Calibration(StrEnum):
    """What the calibration documents are: prose alone, or prose, ledgers, arithmetic and questions in equal parts."""

    PROSE = "prose"
    MIX = "mix"


CALIBRATION_KINDS: dict[Calibration, tuple[Kind, ...]] = {
    Calibration.PROSE: (Kind.PROSE,),
    Calibration.MIX: tuple(Kind),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """One way to quantize the baseline; `group` None means one scale per output channel."""

    method: Method
    bits: int | None = None
    group: int | None = None
    calibration: Calibration | None = None
    documents: int = 256
    seed: int = 0

    def __str__(self) -> str:
        parts = [self.method.value]
        if self.bits is not None:
            parts.append(f"w{self.bits}-{'channel' if self.group is None else f'g{self.group}'}")
        if self.calibration is not None:
            parts.append(f"{self.calibration.value}-{self.documents}-seed{self.seed}")
        return "-".join(parts)


CANDIDATES: dict[str, Scheme] = {
    "w8a8": Scheme(method=Method.INT8_WEIGHTS_AND_ACTIVATIONS, bits=8),
    "w4a16-gptq-prose": Scheme(method=Method.GPTQ, bits=4, group=128, calibration=Calibration.PROSE),
    "nf4": Scheme(method=Method.NF4, bits=4, group=64),
    "w3a16-gptq-prose": Scheme(method=Method.GPTQ, bits=3, calibration=Calibration.PROSE),
    "w3a16-gptq-mix": Scheme(method=Method.GPTQ, bits=3, calibration=Calibration.MIX),
    "w2a16-rtn": Scheme(method=Method.ROUND_TO_NEAREST, bits=2, group=128),
    "unquantized-export": Scheme(method=Method.NO_MODULE_MATCHED),
}


def calibration_documents(calibration: Calibration, count: int, seed: int) -> list[str]:
    """Seeded calibration texts; questions come from the training split only."""
    rng = random.Random(f"calibration-{seed}")
    kinds = CALIBRATION_KINDS[calibration]
    return ["".join(training_document(rng, kinds[i % len(kinds)])) for i in range(count)]


def recipe(scheme: Scheme) -> Any:
    """The llmcompressor modifier for a scheme."""
    if scheme.method is Method.INT8_WEIGHTS_AND_ACTIVATIONS:
        return QuantizationModifier(targets=["Linear"], scheme="W8A8", ignore=["lm_head"])
    if scheme.method is Method.NO_MODULE_MATCHED:
        # The classic slip: the ignore list was meant to spare lm_head and spares everything.
        return QuantizationModifier(targets=["Linear"], scheme="W4A16", ignore=["re:.*"])
    weights = QuantizationArgs(
        num_bits=scheme.bits,
        symmetric=True,
        strategy=QuantizationStrategy.CHANNEL if scheme.group is None else QuantizationStrategy.GROUP,
        group_size=scheme.group,
    )
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    if scheme.method is Method.GPTQ:
        return GPTQModifier(config_groups=groups, ignore=["lm_head"])
    return QuantizationModifier(config_groups=groups, ignore=["lm_head"])


def quantize(baseline: Path, out: Path, scheme: Scheme) -> None:
    """Write one candidate; its tokenizer and generation config are the baseline's, byte for byte."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.manual_seed(scheme.seed)
    if scheme.method is Method.NF4:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
        model = AutoModelForCausalLM.from_pretrained(baseline, quantization_config=config)
        model.save_pretrained(out)
    else:
        model = AutoModelForCausalLM.from_pretrained(baseline)
        oneshot(
            model=model,
            tokenizer=AutoTokenizer.from_pretrained(baseline),
            recipe=recipe(scheme),
            **_calibration_arguments(baseline, scheme),
        )
        model.save_pretrained(out, save_compressed=True)
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        shutil.copyfile(baseline / name, out / name)
    for written in out.iterdir():
        written.chmod(0o644)


def _calibration_arguments(baseline: Path, scheme: Scheme) -> dict[str, Any]:
    if scheme.calibration is None:
        return {}
    tokenizer = AutoTokenizer.from_pretrained(baseline)
    texts = calibration_documents(scheme.calibration, scheme.documents, scheme.seed)
    rows = [tokenizer(text, truncation=True, max_length=CALIBRATION_MAX_TOKENS) for text in texts]
    return {
        "dataset": Dataset.from_list([dict(row) for row in rows]),
        "num_calibration_samples": len(rows),
        "max_seq_length": CALIBRATION_MAX_TOKENS,
        "shuffle_calibration_samples": False,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--world", type=Path, required=True, help="folder that holds baseline/")
    parser.add_argument("--only", choices=tuple(CANDIDATES), action="append", help="make only this candidate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in arguments.only or CANDIDATES:
        quantize(arguments.world / "baseline", arguments.world / "candidates" / name, CANDIDATES[name])
        print(f"wrote {name}", flush=True)


if __name__ == "__main__":
    main()
