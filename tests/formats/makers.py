"""Quantized checkpoints of the demo model, each made here and now by its own tool."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from gate.demo.corpus import Kind, training_document
from tests.formats.cells import ROOT

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def prose(n_documents: int) -> list[str]:
    """Texts like those that the demo model learned."""
    rng = random.Random("formats")
    return ["".join(training_document(rng, Kind.PROSE)) for _ in range(n_documents)]


def rounded(source: Path, folder: Path, dtype: torch.dtype) -> Path:
    """The same model in another precision."""
    AutoModelForCausalLM.from_pretrained(source, dtype=dtype).save_pretrained(folder)
    return _with_tokenizer(source, folder)


def bitsandbytes(source: Path, folder: Path, scheme: str) -> Path:
    config = {
        "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
        "int8": BitsAndBytesConfig(load_in_8bit=True),
    }[scheme]
    return _quantized(source, folder, config)


def torchao(source: Path, folder: Path, scheme: str) -> Path:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup

    four_bits = torch.int4  # type: ignore[attr-defined]  # not in torch's stubs
    config = {
        "int8": Int8WeightOnlyConfig(),
        "int4": IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(32)),
        "fp8": Float8WeightOnlyConfig(),
    }[scheme]
    return _quantized(source, folder, TorchAoConfig(config))


def declaring(source: Path, folder: Path, **quantization: Any) -> Path:
    """The full-precision model, declared to be quantized."""
    shutil.copytree(source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantization}))
    return folder


def gguf(source: Path, folder: Path, scheme: str) -> str:
    """Write `<scheme>.gguf` to `folder`, as llama.cpp's converter does, and return its name."""
    from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quants

    kind = GGMLQuantizationType[scheme]
    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())["model"]
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    folder.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(folder / f"{scheme}.gguf", "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, layers)
    for name, weight in load_file(source / "model.safetensors").items():
        place = str(names.get_name(name, try_suffixes=(".weight",)))
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp pairs the halves of a head
            rows = weight.reshape(heads, 2, -1, weight.shape[1])
            weight = rows.swapaxes(1, 2).reshape(weight.shape)
        if weight.ndim < 2:
            writer.add_tensor(place, weight.astype(np.float32))
        else:
            writer.add_tensor(place, quants.quantize(weight.astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return f"{scheme}.gguf"


def elsewhere(python: Path, source: Path, folder: Path, *what: str) -> None:
    """Let the tools of another environment make `folder/<what>` (see `elsewhere`)."""
    done = subprocess.run(
        [str(python), str(Path(__file__).with_name("elsewhere.py")), str(source), str(folder), *what],
        cwd=folder,  # GPTQModel writes its logs there
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in what:
        _with_tokenizer(source, folder / name)


def _quantized(source: Path, folder: Path, config: Any) -> Path:
    # saved before its first run: bitsandbytes repacks 4-bit weights for the CPU there, and would save that
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map={"": "cpu"})
    model.save_pretrained(folder)
    return _with_tokenizer(source, folder)


def _with_tokenizer(source: Path, folder: Path) -> Path:
    for name in TOKENIZER:
        shutil.copyfile(source / name, folder / name)
    return folder
