"""A Llama of 50 M random parameters in BF16, and its W8A8 and W4A16 in compressed-tensors format.

Rounded to the nearest by the format's own library; needs no calibration and no quantizer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.contract import tiny_llama

LAYERS, HEADS, KV_HEADS, HEAD_SIZE = 8, 8, 4, 64
HIDDEN, INTERMEDIATE, VOCABULARY, CONTEXT_LENGTH = 512, 1536, 24_000, 2048

_GROUP = 64
_SCHEMES: dict[str, dict[str, Any]] = {
    "w8a8": {
        "targets": ["Linear"],
        "weights": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False},
        "input_activations": {"num_bits": 8, "type": "int", "strategy": "token", "symmetric": True, "dynamic": True},
        "format": "int-quantized",
    },
    "w4a16": {
        "targets": ["Linear"],
        "weights": {
            "num_bits": 4,
            "type": "int",
            "strategy": "group",
            "group_size": _GROUP,
            "symmetric": True,
            "dynamic": False,
        },
        "format": "pack-quantized",
    },
}


def save(folder: Path) -> Path:
    """Write config, weights (BF16, untied) and the tiny model's tokenizer to `folder`."""
    tiny_llama.save(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_SIZE,
        max_position_embeddings=CONTEXT_LENGTH,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def save_quantized(source: Path, folder: Path, scheme: str) -> Path:
    """Write `source` to `folder` with every linear layer but the last in `w8a8` or `w4a16`."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    shutil.copytree(source, folder)
    group = QuantizationScheme.model_validate(_SCHEMES[scheme])
    compressor = BaseCompressor.get_value_from_registry(_SCHEMES[scheme]["format"])
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if "_proj." not in name:
            tensors[name] = weight
            continue
        layer = name.removesuffix("weight")
        rounded = compressor.compress({"weight": weight, "weight_scale": _scale(weight, scheme)}, group)
        tensors |= {layer + part: value for part, value in rounded.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": _SCHEMES[scheme]["format"],
        "quantization_status": "compressed",
        "config_groups": {"group_0": _SCHEMES[scheme]},
        "ignore": ["lm_head"],
    }
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return folder


def _scale(weight: torch.Tensor, scheme: str) -> torch.Tensor:
    """Of the largest weight of each row, or of each group in a row: [rows, 1] or [rows, groups]."""
    bits = _SCHEMES[scheme]["weights"]["num_bits"]
    rows = weight if scheme == "w8a8" else weight.reshape(len(weight), -1, _GROUP)
    largest = rows.float().abs().amax(dim=-1, keepdim=scheme == "w8a8")
    scale: torch.Tensor = largest / (2 ** (bits - 1) - 1)
    return scale.to(weight.dtype)
