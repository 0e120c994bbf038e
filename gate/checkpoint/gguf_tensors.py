"""The tensors of a GGUF file with their ggml types, and what its settings say about where it comes from.

Reads a header that `gguf_header.read` has checked: sizes and counts are taken as they are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gate.checkpoint.modules import Module
from gate.checkpoint.safetensors_header import Tensor
from gate.errors import CheckpointError

TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 28: ("F64", 1, 8), 30: ("BF16", 1, 2),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""ggml type → llama.cpp's name, weights and bytes per block."""

FULL_PRECISION = frozenset({"F32", "F16", "F64", "BF16"})
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufTensors:
    """`settings` are the file's single values; of arrays only the length is kept."""

    tensors: tuple[Tensor, ...]
    settings: Mapping[str, object]


def read(path: Path) -> GgufTensors:
    """In the order of their bytes; shapes as PyTorch writes them, last dimension first in the file.

    Raises:
        CheckpointError: the file changed since its header was checked.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (struct.error, ValueError, KeyError, OverflowError, OSError) as problem:
        raise CheckpointError(f"{path} changed while it was read ({problem!r}): inspect it again") from problem


def modules(tensors: tuple[Tensor, ...]) -> tuple[Module, ...]:
    """Each tensor is a module; scales are inside its blocks."""
    blocks = {name: (weights, n_bytes) for name, weights, n_bytes in TYPES.values()}
    found = []
    for tensor in tensors:
        weights, n_bytes = blocks[tensor.dtype]
        full = tensor.dtype in FULL_PRECISION
        found.append(
            Module(
                name=tensor.name.removesuffix(".weight"),
                shape=tensor.shape,
                n_weights=tensor.numel,
                exact=True,
                dtype=tensor.dtype,
                bits=None if full else 8 * n_bytes / weights,
                granularity=None,
                n_scales=0 if full else tensor.numel // weights,
                zero_points=False,
                weight_bytes=tensor.end - tensor.begin,
                side_bytes=0,
                layout="ggml",
            )
        )
    return tuple(sorted(found, key=lambda m: m.name))


def base_names(settings: Mapping[str, object]) -> tuple[str, ...]:
    """What it says it was made from: `general.base_model.0.repo_url` and the like."""
    keys = ("repo_url", "name")
    said = [settings.get(f"general.base_model.{i}.{key}") for i in range(4) for key in keys]
    return tuple(str(s).removeprefix("https://huggingface.co/") for s in said if isinstance(s, str))


def _read(file: BinaryIO) -> GgufTensors:
    _, _, n_tensors, n_values = _unpack(file, "4sIQQ")
    settings = {}
    for _ in range(int(n_values)):
        key = _string(file)
        settings[key] = _value(file, int(_unpack(file, "I")[0]))
    entries = []
    for _ in range(int(n_tensors)):
        name = _string(file)
        (n_dimensions,) = _unpack(file, "I")
        shape = tuple(int(n) for n in _unpack(file, f"{n_dimensions}Q"))
        kind, offset = _unpack(file, "IQ")
        entries.append((name, shape, *TYPES[int(kind)], int(offset)))
    alignment = int(str(settings.get(_ALIGNMENT, 32)))
    begin = -(-file.tell() // alignment) * alignment
    tensors = [
        Tensor(
            name=name,
            dtype=dtype,
            shape=shape[::-1],
            begin=begin + offset,
            end=begin + offset + math.prod(shape) // weights * n_bytes,
        )
        for name, shape, dtype, weights, n_bytes, offset in entries
    ]
    return GgufTensors(tensors=tuple(sorted(tensors, key=lambda t: t.begin)), settings=settings)


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack("<" + layout, file.read(struct.calcsize("<" + layout)))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    return str(file.read(length), "utf-8")


def _value(file: BinaryIO, kind: int) -> object:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _unpack(file, _SCALARS[kind])[0]
    inner, length = _unpack(file, "IQ")
    if inner == _STRING:
        for _ in range(length):
            file.seek(_unpack(file, "Q")[0], 1)
    else:
        file.seek(length * struct.calcsize("<" + _SCALARS[inner]), 1)
    return length
