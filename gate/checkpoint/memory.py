"""How much memory the weights are expected to take once they are loaded.

Pure arithmetic on what the headers show; nothing is loaded, and activations and caches come on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.checkpoint import config_facts
from gate.checkpoint.modules import Module
from gate.checkpoint.safetensors_header import BITS

_BITS_OF = {"float32": 32, "bfloat16": 16, "float16": 16, "float64": 64}
_ON_LOAD = {
    "bitsandbytes-nf4": 4 + 32 / 64,  # a 32-bit scale for every 64 weights
    "bitsandbytes-fp4": 4 + 32 / 64,
    "bitsandbytes-int8": 8.0,
    "torchao-int8": 8.0,
    "torchao-int4": 8 + 24 / 64,  # in bytes, whatever its name says; a scale and a zero point for every 64
    "hqq-4": 4 + 32 / 64,
    "fp8": 8.0,  # vLLM's `quantization: fp8`
}
"""Bits per weight after quantizing on load, scales of groups included."""

_ROW_SCALES = frozenset({"bitsandbytes-int8", "torchao-int8", "fp8"})
"""With a 32-bit scale for each row besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightMemory:
    """In bytes.

    Attributes:
        loaded: with packed weights kept packed, and after quantizing on load where that is asked for.
        unpacked: what a loader takes that restores full precision; None where nothing is packed.
        on_load_bits: per weight after quantizing on load; None where it is not asked for or not known.
    """

    loaded: int
    unpacked: int | None
    on_load_bits: float | None


def expected(modules: Sequence[Module], config: Mapping[str, Any], dtype: str, method: str | None) -> WeightMemory:
    """`dtype` is what the policy asks for (`auto`: as config.json says), `method` its load-time quantization."""
    width = _BITS_OF.get(config_facts.dtype(config) or "" if dtype == "auto" else dtype)
    tied = config_facts.text_model(config).get("tie_word_embeddings") is True
    kept = [m for m in modules if not (tied and m.is_head)]
    on_load = _ON_LOAD.get(method) if method else None
    loaded = unpacked = 0.0
    for module in kept:
        own = BITS.get(module.dtype, 32) if module.bits is None else 16
        full = module.n_weights * (width or own) / 8
        unpacked += full
        inner = module.is_matrix and not (module.is_embedding or module.is_head)
        if module.bits is not None:
            loaded += module.weight_bytes + module.side_bytes
        elif on_load is not None and inner:
            n_rows = module.n_weights / max(module.shape[-1], 1)
            loaded += module.n_weights * on_load / 8 + (4 * n_rows if method in _ROW_SCALES else 0)
        else:
            loaded += full
    packed = any(m.bits is not None for m in kept)
    return WeightMemory(
        loaded=round(loaded), unpacked=round(unpacked) if packed or on_load else None, on_load_bits=on_load
    )
