"""Small Llamas in the layouts that quantizers really write, tensor by tensor as they were seen in their exports.

Seen in: llm-compressor 0.14 with compressed-tensors 0.19, auto-round 0.15, bitsandbytes 0.50, torchao 0.18, HQQ 0.2.8.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checkpoint_factory import filled, write_checkpoint

HIDDEN, INNER, LAYERS, VOCABULARY = 128, 256, 2, 6
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
N_PARAMETERS = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER + 2 * HIDDEN) + 2 * VOCABULARY * HIDDEN + HIDDEN
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-06,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}
Stored = dict[str, tuple[str, tuple[int, ...], bytes]]
Linear = Callable[[str, int, int], Stored]


def shape(*lengths: int) -> tuple[str, tuple[int, ...], bytes]:
    """A weight's own shape, as exporters note it."""
    return "I64", (len(lengths),), struct.pack(f"<{len(lengths)}q", *lengths)


def plain(name: str, n_out: int, n_in: int) -> Stored:
    return {f"{name}.weight": filled("BF16", (n_out, n_in), 1)}


def packed(bits: int = 4, group: int | None = 128, *, zero_points: bool = False) -> Linear:
    """compressed-tensors, pack-quantized."""

    def linear(name: str, n_out: int, n_in: int) -> Stored:
        groups = 1 if group is None else -(-n_in // group)
        found = {
            f"{name}.weight_packed": filled("I32", (n_out, n_in * bits // 32), 1),
            f"{name}.weight_scale": filled("BF16", (n_out, groups), 1),
            f"{name}.weight_shape": shape(n_out, n_in),
        }
        if zero_points:
            found[f"{name}.weight_zero_point"] = filled("I32", (n_out // 8, groups), 0)
        return found

    return linear


def eight_bit(dtype: str, scales: Callable[[int, int], tuple[int, ...]], suffix: str = "weight_scale") -> Linear:
    """8-bit codes in the weight's own shape with scales beside them."""

    def linear(name: str, n_out: int, n_in: int) -> Stored:
        return {
            f"{name}.weight": filled(dtype, (n_out, n_in), 1),
            f"{name}.{suffix}": filled("BF16", scales(n_out, n_in), 1),
        }

    return linear


def fp4(block: int, scale: str, *, second: str | None) -> Linear:
    """compressed-tensors' packed 4-bit floats."""

    def linear(name: str, n_out: int, n_in: int) -> Stored:
        found = {
            f"{name}.weight_packed": filled("U8", (n_out, n_in // 2), 1),
            f"{name}.weight_scale": filled(scale, (n_out, n_in // block), 1),
        }
        if second:
            found[f"{name}.{second}"] = filled("F32", (1,), 1)
        return found

    return linear


def modelopt_fp4(name: str, n_out: int, n_in: int) -> Stored:
    return {
        f"{name}.weight": filled("U8", (n_out, n_in // 2), 1),
        f"{name}.weight_scale": filled("F8_E4M3", (n_out, n_in // 16), 1),
        f"{name}.weight_scale_2": filled("F32", (), 1),
        f"{name}.input_scale": filled("F32", (), 1),
    }


def gptq(bits: int = 4, group: int = 32, *, index: bool = True) -> Linear:
    def linear(name: str, n_out: int, n_in: int) -> Stored:
        groups = n_in // group
        found = {
            f"{name}.qweight": filled("I32", (n_in * bits // 32, n_out), 1),
            f"{name}.qzeros": filled("I32", (groups, n_out * bits // 32), 1),
            f"{name}.scales": filled("F16", (groups, n_out), 1),
        }
        if index:
            found[f"{name}.g_idx"] = filled("I32", (n_in,), 0)
        return found

    return linear


def awq(name: str, n_out: int, n_in: int) -> Stored:
    return {
        f"{name}.qweight": filled("I32", (n_in, n_out // 8), 1),
        f"{name}.qzeros": filled("I32", (n_in // 32, n_out // 8), 1),
        f"{name}.scales": filled("F16", (n_in // 32, n_out), 1),
    }


def nf4(name: str, n_out: int, n_in: int) -> Stored:
    """bitsandbytes with nested statistics."""
    n_blocks = n_out * n_in // 64
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [n_out, n_in]}).encode()
    return {
        f"{name}.weight": filled("U8", (n_out * n_in // 2, 1), 1),
        f"{name}.weight.absmax": filled("U8", (n_blocks,), 1),
        f"{name}.weight.quant_map": filled("F32", (16,), 1),
        f"{name}.weight.nested_absmax": filled("F32", (-(-n_blocks // 256),), 1),
        f"{name}.weight.nested_quant_map": filled("F32", (256,), 1),
        f"{name}.weight.quant_state.bitsandbytes__nf4": ("U8", (len(state),), state),
    }


def int8(name: str, n_out: int, n_in: int) -> Stored:
    """bitsandbytes' LLM.int8()."""
    return {
        f"{name}.weight": filled("I8", (n_out, n_in), 1),
        f"{name}.SCB": filled("F32", (n_out,), 1),
        f"{name}.weight_format": filled("U8", (), 0),
    }


def torchao(dtype: str, group: int | None = None) -> Linear:
    def linear(name: str, n_out: int, n_in: int) -> Stored:
        columns = n_in // group if group else 1
        return {
            f"{name}._weight_qdata": filled(dtype, (n_out, n_in), 1),
            f"{name}._weight_scale": filled("F32", (n_out, columns), 1),
            f"{name}._weight_zero_point": filled("I8", (n_out, columns), 0),
        }

    return linear


def hqq(name: str, n_out: int, n_in: int) -> Stored:
    groups = n_out * n_in // 64
    return {
        f"{name}.W_q": filled("U8", (groups // 2, 64), 1),
        f"{name}.scale": filled("BF16", (groups, 1), 1),
        f"{name}.zero": filled("BF16", (groups, 1), 1),
        f"{name}.shape": shape(n_out, n_in),
        f"{name}.nbits": ("I32", (), struct.pack("<i", 4)),
        f"{name}.packing": filled("U8", (7,), 65),
    }


def marlin_24(name: str, n_out: int, n_in: int) -> Stored:
    """compressed-tensors' 2:4-sparse weights in 4 bits, in the order in which its kernel reads them."""
    return {
        f"{name}.weight_packed": filled("I32", (n_in // 32, n_out * 2), 1),
        f"{name}.meta": filled("I16", (n_in // 32, n_out * 2), 1),
        f"{name}.scale_packed": filled("F16", (n_in // 128, n_out), 1),
    }


def sparse_24(name: str, n_out: int, n_in: int) -> Stored:
    """compressed-tensors' 2:4-sparse floats of 8 bits with a mask."""
    return {
        f"{name}.compressed": filled("F8_E4M3", (n_out, n_in // 2), 1),
        f"{name}.bitmask": filled("U8", (n_out, n_in // 8), 1),
        f"{name}.shape": shape(n_out, n_in),
        f"{name}.weight_scale": filled("BF16", (n_out, 1), 1),
    }


def compressed(layout: str, weights: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": dict(weights), "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        **more,
    }


def weights(bits: int, kind: str, strategy: str, group: int | None = None, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": kind, "strategy": strategy, "group_size": group, "symmetric": True, **more}


@dataclass(frozen=True)
class Layout:
    """A way to store a model: what config.json declares, how a layer is written, and how that is said in words."""

    declared: dict[str, Any]
    linear: Linear
    stored: str
    bits_per_weight: float


INT4 = compressed("pack-quantized", weights(4, "int", "group", 128))
LAYOUTS: dict[str, Layout] = {
    "compressed-tensors W4A16": Layout(INT4, packed(), "4-bit, group 128", 4.13),
    "compressed-tensors W3A16": Layout(
        compressed("pack-quantized", weights(3, "int", "channel")), packed(3, None), "3-bit, channel", 3.2
    ),
    "compressed-tensors W4A16 asymmetric": Layout(
        compressed("pack-quantized", weights(4, "int", "group", 32, symmetric=False)),
        packed(4, 32, zero_points=True),
        "4-bit, group 32",
        4.6,
    ),
    "compressed-tensors W8A8": Layout(
        compressed("int-quantized", weights(8, "int", "channel")),
        eight_bit("I8", lambda n_out, _: (n_out, 1)),
        "8-bit int, channel",
        8.1,
    ),
    "compressed-tensors FP8": Layout(
        compressed("float-quantized", weights(8, "float", "tensor")),
        eight_bit("F8_E4M3", lambda *_: (1,)),
        "8-bit float, tensor",
        8.0,
    ),
    "compressed-tensors FP8 blocks": Layout(
        compressed("float-quantized", weights(8, "float", "block", block_structure=[64, 64])),
        eight_bit("F8_E4M3", lambda n_out, n_in: (n_out // 64, n_in // 64)),
        "8-bit float, block 64x64",
        8.0,
    ),
    "compressed-tensors NVFP4": Layout(
        compressed("nvfp4-pack-quantized", weights(4, "float", "tensor_group", 16)),
        fp4(16, "F8_E4M3", second="weight_global_scale"),
        "4-bit, group 16",
        4.5,
    ),
    "compressed-tensors MXFP4": Layout(
        compressed("mxfp4-pack-quantized", weights(4, "float", "group", 32)),
        fp4(32, "U8", second=None),
        "4-bit, group 32",
        4.25,
    ),
    "gptq": Layout(
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": True},
        gptq(),
        "4-bit, group 32",
        4.9,
    ),
    "gptq in 3 bits": Layout({"quant_method": "gptq", "bits": 3, "group_size": 32}, gptq(3), "3-bit, group 32", 3.8),
    "awq": Layout(
        {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"},
        awq,
        "4-bit, group 32",
        4.63,
    ),
    "auto-round": Layout(
        {"quant_method": "auto-round", "bits": 4, "group_size": 32, "packing_format": "auto_round:auto_gptq"},
        gptq(index=False),
        "4-bit, group 32",
        4.63,
    ),
    "bitsandbytes nf4": Layout(
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        nf4,
        "4-bit, group 64",
        4.6,
    ),
    "bitsandbytes int8": Layout(
        {"quant_method": "bitsandbytes", "load_in_8bit": True}, int8, "8-bit int, channel", 8.3
    ),
    "fp8 blocks": Layout(
        {"quant_method": "fp8", "weight_block_size": [64, 64], "activation_scheme": "dynamic"},
        eight_bit("F8_E4M3", lambda n_out, n_in: (n_out // 64, n_in // 64), "weight_scale_inv"),
        "8-bit float, block 64x64",
        8.0,
    ),
    "modelopt NVFP4": Layout(
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, modelopt_fp4, "4-bit, group 16", 4.5
    ),
    "torchao int8": Layout(
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}}},
        torchao("I8"),
        "8-bit int, channel",
        8.3,
    ),
    "torchao int4 held in bytes": Layout(
        {
            "quant_method": "torchao",
            "quant_type": {"default": {"_type": "IntxWeightOnlyConfig", "_data": {"weight_dtype": {"_data": "int4"}}}},
        },
        torchao("I8", 32),
        "8-bit int, group 32",
        9.25,
    ),
    "hqq": Layout(
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}}},
        hqq,
        "4-bit, group 64",
        4.5,
    ),
}


def model(linear: Linear = plain, others: Mapping[str, Linear] | None = None) -> Stored:
    """All tensors; `others` are the ways of single modules, by full name."""
    found = {"model.embed_tokens.weight": filled("BF16", (VOCABULARY, HIDDEN), 9)}
    for layer in range(LAYERS):
        for kind, (n_out, n_in) in LINEAR.items():
            name = f"model.layers.{layer}.{kind}"
            found |= (others or {}).get(name, linear)(name, n_out, n_in)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{layer}.{norm}.weight"] = filled("BF16", (HIDDEN,), 5)
    found["model.norm.weight"] = filled("BF16", (HIDDEN,), 5)
    found["lm_head.weight"] = filled("BF16", (VOCABULARY, HIDDEN), 7)
    return found


def write_llama(
    folder: Path,
    linear: Linear = plain,
    *,
    declared: Mapping[str, Any] | None = None,
    others: Mapping[str, Linear] | None = None,
    tensors: Stored | None = None,
    config: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> Path:
    """A checkpoint folder; `tensors` replace those of `linear`, and `config` changes keys (None removes one)."""
    write_checkpoint(folder, tensors if tensors is not None else model(linear, others))
    document = {**CONFIG, **(config or {})}
    if declared is not None:
        document["quantization_config"] = dict(declared)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
