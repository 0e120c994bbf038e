"""An FP8 checkpoint in compressed-tensors format, made from a full-precision one: what `FP8_DYNAMIC` exports look like.

Rounds to the nearest representable weight; needs no calibration and no quantization library.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LARGEST = torch.finfo(torch.float8_e4m3fn).max
_QUANTIZED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_WEIGHTS = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
_ACTIVATIONS = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}


def save_fp8(source: Path, folder: Path) -> Path:
    """Write `source` to `folder` with FP8 weights (a scale per output channel) and dynamic FP8 activations."""
    shutil.copytree(source, folder)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if any(f".{layer}.weight" in name for layer in _QUANTIZED):
            scale = weight.float().abs().amax(dim=1, keepdim=True) / LARGEST
            tensors[name] = (weight.float() / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale"] = scale.to(weight.dtype)
        else:
            tensors[name] = weight
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    group = {"targets": ["Linear"], "weights": _WEIGHTS, "input_activations": _ACTIVATIONS, "format": "float-quantized"}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return folder
