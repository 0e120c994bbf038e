"""What a checkpoint declares about its quantization, as the record keeps it, and the counts of what its tensors show.

Pure reading of configurations: loads nothing and trusts no declaration without its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gate.checkpoint import scheme
from gate.checkpoint.scheme import Declaration
from gate.errors import CheckpointError, Refused
from gate.records import Quantization

KNOWN_METHODS = frozenset(
    "aqlm auto-round awq bitnet bitsandbytes compressed-tensors eetq fbgemm_fp8 fouroversix fp8 fp_quant gemma gguf "
    "gptq higgs hqq modelopt modelopt_fp4 mxfp4 mxfp8 nvfp4 quanto quark sinq spqr torchao vptq".split()
)
"""Methods that transformers or vLLM can load."""


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


def declaration(config: Mapping[str, Any]) -> Declaration | None:
    """How the checkpoint says it was quantized; None if it says nothing.

    Raises:
        Refused: a method that no loader knows.
        CheckpointError: a declaration that cannot be read.
    """
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
        return scheme.read(method, found)
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(f"config.json: quantization_config of {method} is malformed ({problem})") from problem


def declared(config: Mapping[str, Any], load: Mapping[str, Any]) -> Quantization | None:
    """The same for the record; with load-time settings, how it will be quantized.  Raises as `declaration`."""
    if load.get("method"):
        method, _, kind = str(load["method"]).partition("-")
        digits = re.search(r"\d+$", kind)
        return Quantization(
            method=method,
            bits=float(load["bits"]) if "bits" in load else float(digits[0]) if digits else None,
            group_size=load.get("group_size"),
            scheme=kind or None,
        )
    said = declaration(config)
    if said is None:
        return None
    bits = {s.bits for s in said.schemes}
    sizes = {s.group_size for s in said.schemes}
    return Quantization(
        method=said.method,
        bits=bits.pop() if len(bits) == 1 else None,
        group_size=sizes.pop() if len(sizes) == 1 else None,
        scheme=_name(said, config.get("quantization_config") or config.get("compression_config") or {}),
    )


def _name(said: Declaration, found: Mapping[str, Any]) -> str | None:
    """What people call it."""
    if not said.schemes:
        return "KV cache" if said.kv_cache else None
    first = said.schemes[0]
    match said.method:
        case "compressed-tensors":
            names = {_short(g) for g in (found.get("config_groups") or {}).values() if isinstance(g, dict)}
            name = names.pop() if len(names) == 1 else "mixed"
            return f"{name} ({said.layout})" if said.layout else name
        case "bitsandbytes":
            return f"int{first.bits:.0f}" if first.number == "int" else first.number
        case "fp8" | "fbgemm_fp8" | "mxfp8" if first.granularity:
            return first.granularity.removeprefix("block ") + " blocks"
        case "awq" | "gptq" | "auto-round" if first.bits is not None:
            return f"W{first.bits:.0f}A16"
        case "torchao":
            kind = found.get("quant_type")
            kind = kind.get("default", kind) if isinstance(kind, dict) else kind
            return str(kind.get("_type") if isinstance(kind, dict) else kind).removesuffix("Config")
        case "modelopt":
            inner = found.get("quantization")
            return str((inner if isinstance(inner, dict) else found).get("quant_algo"))
    return None


def _short(group: Mapping[str, Any]) -> str:
    weights, activations = group.get("weights"), group.get("input_activations")
    if not weights:
        return "activations only"
    kind = "FP" if weights.get("type") == "float" else "W"
    return f"{kind}{weights.get('num_bits')}A{(activations or {}).get('num_bits', 16)} {weights.get('strategy')}"
