"""What a checkpoint declares about its quantization, and what its tensors show.

Pure reading of configurations and headers: loads nothing and trusts no declaration without its tensors.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gate.checkpoint.safetensors_header import BITS, Tensor
from gate.errors import CheckpointError, Refused
from gate.records import Quantization

KNOWN_METHODS = frozenset(
    "aqlm auto-round awq bitnet bitsandbytes compressed-tensors eetq fbgemm_fp8 fouroversix fp8 fp_quant gemma gguf "
    "gptq higgs hqq modelopt modelopt_fp4 mxfp4 mxfp8 nvfp4 quanto quark sinq spqr torchao vptq".split()
)
"""Methods that transformers or vLLM can load."""

COUNTED_METHODS = frozenset({"auto-round", "awq", "bitsandbytes", "compressed-tensors", "fp8", "gguf", "gptq"})
"""Methods whose packing is known here, so that their parameters can be counted and compared."""

_SIDE = re.compile(
    r"\.(?:[a-z_]*_)?(?:scale|scale_inv|global_scale|zero_point|zero_points|scales|qzeros|zeros|g_idx|absmax|quant_map"
    r"|SCB|weight_format|weight_shape|row_ids|inv_freq|position_ids|masked_bias)$|\.quant_state\."
)
"""Tensors that accompany weights and are no parameters: scales, zero points, code books, buffers."""

_PACKED = frozenset({"weight_packed", "qweight"})
_LOW_BIT_FLOATS = frozenset(d for d, bits in BITS.items() if d.startswith("F") and bits <= 8)
_INTEGERS = frozenset({"U8", "I8", "U16", "I16", "U32", "I32"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What the headers show.

    Attributes:
        n_parameters: parameters after unpacking; scales and zero points are none.  Exact for the usual layouts,
            approximate where a packed tensor is padded.
        n_head: those of an output head stored on its own (it may be tied to the embedding and left out).
        n_quantized: weight matrices held in integers or floats of at most 8 bits.
        n_matrices: weight matrices altogether.
        dtypes: number of weight tensors by stored dtype.
        kv_cache_scales: the key/value cache comes with scales.
    """

    n_parameters: int
    n_head: int
    n_quantized: int
    n_matrices: int
    dtypes: Mapping[str, int]
    kv_cache_scales: bool


def contents(tensors: Iterable[Tensor], shapes: Mapping[str, tuple[int, ...]], bits: float | None) -> Contents:
    """Count parameters and quantized matrices.

    `shapes` are the unpacked shapes that compressed-tensors stores beside packed weights, by module; where there are
    none, `bits` per weight is what the packing declares.
    """
    held = {t.name: t for t in tensors}
    with_state = {name.split(".quant_state.")[0] for name in held if ".quant_state." in name}
    n_parameters = n_head = n_quantized = n_matrices = 0
    dtypes: Counter[str] = Counter()
    for name, tensor in held.items():
        if _SIDE.search(name):
            continue
        dtypes[tensor.dtype] += 1
        shape = shapes.get(name.removesuffix(".weight_packed"))
        count = math.prod(shape) if shape else _unpacked(name, tensor, name in with_state, bits)
        n_parameters += count
        n_head += count if "lm_head" in name.split(".") else 0
        low_bit = name in with_state or tensor.dtype in _INTEGERS or tensor.dtype in _LOW_BIT_FLOATS
        quantized = low_bit and len(tensor.shape) >= 2
        n_quantized += quantized
        n_matrices += len(tensor.shape) >= 2
    return Contents(
        n_parameters=n_parameters,
        n_head=n_head,
        n_quantized=n_quantized,
        n_matrices=n_matrices,
        dtypes=dict(sorted(dtypes.items())),
        kv_cache_scales=any(n.endswith((".k_scale", ".v_scale")) for n in held),
    )


def _unpacked(name: str, tensor: Tensor, four_bit_state: bool, bits: float | None) -> int:
    """Number of weights in a tensor that may hold several per element."""
    stored_bits = tensor.numel * BITS[tensor.dtype]
    if four_bit_state:  # bitsandbytes: two weights in each byte, whatever the storage dtype
        return stored_bits // 4
    if name.rsplit(".", 1)[-1] not in _PACKED:
        return tensor.numel
    if tensor.dtype == "U8":  # two 4-bit floats in each byte
        return tensor.numel * 2
    if not bits or len(tensor.shape) < 2:
        return tensor.numel
    return int(stored_bits // bits)


def declared(config: Mapping[str, Any], load: Mapping[str, Any]) -> Quantization | None:
    """How the checkpoint says it was quantized, or will be when it is loaded; None if it says nothing.

    Raises:
        Refused: a method that no loader knows.
        CheckpointError: a declaration that cannot be read.
    """
    if load.get("method"):
        method, _, scheme = str(load["method"]).partition("-")
        digits = re.search(r"\d+$", scheme)
        return Quantization(
            method=method,
            bits=float(load["bits"]) if "bits" in load else float(digits[0]) if digits else None,
            group_size=load.get("group_size"),
            scheme=scheme or None,
        )
    found = config.get("quantization_config") or config.get("compression_config")
    if not found:
        return None
    if not isinstance(found, dict):
        raise CheckpointError(f"config.json: quantization_config is {found!r}, expected an object")
    method = str(found.get("quant_method"))
    if method not in KNOWN_METHODS:
        raise Refused(
            f"config.json declares quant_method {method!r}, which no loader knows; expected one of "
            f"{', '.join(sorted(KNOWN_METHODS))}"
        )
    try:
        return _read(method, found)
    except (AttributeError, TypeError, ValueError) as problem:
        raise CheckpointError(f"config.json: quantization_config of {method} is malformed ({problem})") from problem


def _read(method: str, found: Mapping[str, Any]) -> Quantization:
    match method:
        case "compressed-tensors":
            return _compressed_tensors(found)
        case "bitsandbytes":
            four = bool(found.get("load_in_4bit"))
            scheme = str(found.get("bnb_4bit_quant_type", "fp4")) if four else "int8"
            return Quantization(method=method, bits=4.0 if four else 8.0, group_size=None, scheme=scheme)
        case "fp8" | "fbgemm_fp8" | "mxfp8":
            block = found.get("weight_block_size")
            blocks = "x".join(map(str, block)) + " blocks" if block else None
            return Quantization(method=method, bits=8.0, group_size=None, scheme=blocks)
        case "mxfp4" | "nvfp4" | "modelopt_fp4":
            return Quantization(method=method, bits=4.0, group_size=32 if method == "mxfp4" else 16, scheme=None)
        case _:
            bits = found.get("bits", found.get("w_bit", found.get("nbits")))
            group = found.get("group_size", found.get("q_group_size"))
            return Quantization(
                method=method,
                bits=float(bits) if bits is not None else None,
                group_size=int(group) if group is not None and int(group) > 0 else None,
                scheme=f"W{bits}A16" if method in ("awq", "gptq", "auto-round") and bits is not None else None,
            )


def _compressed_tensors(found: Mapping[str, Any]) -> Quantization:
    groups = list((found.get("config_groups") or {}).values())
    weights = [g["weights"] for g in groups if isinstance(g, dict) and g.get("weights")]
    bits = {w.get("num_bits") for w in weights}
    sizes = {w.get("group_size") for w in weights}
    schemes = {_scheme(g) for g in groups if isinstance(g, dict)}
    if not weights:
        scheme = "KV cache" if found.get("kv_cache_scheme") else None
        return Quantization(method="compressed-tensors", bits=None, group_size=None, scheme=scheme)
    layout = found.get("format")
    name = schemes.pop() if len(schemes) == 1 else "mixed"
    return Quantization(
        method="compressed-tensors",
        bits=float(bits.pop()) if len(bits) == 1 else None,
        group_size=sizes.pop() if len(sizes) == 1 else None,
        scheme=f"{name} ({layout})" if layout else name,
    )


def _scheme(group: Mapping[str, Any]) -> str:
    weights, activations = group.get("weights"), group.get("input_activations")
    if not weights:
        return "activations only"
    kind = "FP" if weights.get("type") == "float" else "W"
    return f"{kind}{weights.get('num_bits')}A{(activations or {}).get('num_bits', 16)} {weights.get('strategy')}"
