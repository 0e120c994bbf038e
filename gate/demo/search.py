"""Try every way to quantize the demo baseline: `python -m gate.demo.search --world gate/demo/world`.

Runs in the quantizers' environment, measures on the SEARCH split only, and prints the Markdown table of docs/demo.md.
It chooses nothing: a person reads the table and edits `CANDIDATES` in quantize.py.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gate.demo.corpus import Split
from gate.demo.evaldata import evaluation_set
from gate.demo.measure import measure, table_head, table_row
from gate.demo.quantize import Calibration, Method, Scheme, quantize

CALIBRATION_SEEDS = (0, 1, 2)
GROUPS = (None, 128, 32)


def schemes() -> Iterator[Scheme]:
    """Everything that is tried, in the order of the table."""
    yield Scheme(method=Method.INT8_WEIGHTS_AND_ACTIVATIONS, bits=8)
    yield Scheme(method=Method.NF4, bits=4, group=64)
    for bits in (4, 3, 2):
        for group in GROUPS:
            yield Scheme(method=Method.ROUND_TO_NEAREST, bits=bits, group=group)
    for bits in (4, 3, 2):
        for group in GROUPS:
            for calibration in Calibration:
                seeds = CALIBRATION_SEEDS if bits == 3 and group is None else CALIBRATION_SEEDS[:1]
                for seed in seeds:
                    yield Scheme(method=Method.GPTQ, bits=bits, group=group, calibration=calibration, seed=seed)
    for documents in (64, 1024):
        for calibration in Calibration:
            yield Scheme(method=Method.GPTQ, bits=3, calibration=calibration, documents=documents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--world", type=Path, required=True, help="folder that holds baseline/")
    parser.add_argument("--table", type=Path, required=True, help="Markdown file to write the table into")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    evaluated = evaluation_set(Split.SEARCH)
    folder = arguments.world / "baseline"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    baseline = measure(AutoModelForCausalLM.from_pretrained(folder), tokenizer, evaluated)
    with arguments.table.open("w", encoding="utf-8") as table, tempfile.TemporaryDirectory() as scratch:
        print(table_head(), file=table)
        print(table_row("baseline", baseline, baseline, folder), file=table, flush=True)
        for scheme in schemes():
            out = Path(scratch) / str(scheme)
            quantize(folder, out, scheme)
            found = measure(AutoModelForCausalLM.from_pretrained(out), tokenizer, evaluated)
            print(table_row(str(scheme), found, baseline, out), file=table, flush=True)


if __name__ == "__main__":
    main()
