"""What one GGUF file says it holds: architecture, tensors, their types and sizes.

Must not trust the file: counts and lengths are checked before anything is read or built.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gate.checkpoint.quantization import Contents
from gate.errors import CheckpointError

_FULL_PRECISION = {0: "F32", 1: "F16", 28: "F64", 30: "BF16"}
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 28: (1, 8), 30: (1, 2),
    2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
}  # fmt: skip
"""ggml type → (weights, bytes) per block, for the types whose layout is known here."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_ENTRIES = 1_000_000
_MAX_STRING_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Gguf:
    """`architecture` is llama.cpp's name for it."""

    architecture: str
    contents: Contents


def read(path: Path) -> Gguf:
    """Raises CheckpointError: not a GGUF file, damaged, or truncated."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            return _read(file, path, size)
    except (struct.error, UnicodeDecodeError, OverflowError) as problem:
        raise CheckpointError(f"{path} has a damaged or truncated header ({problem}): download it again") from problem


def _read(file: BinaryIO, path: Path, size: int) -> Gguf:
    if file.read(4) != b"GGUF":
        raise CheckpointError(f"{path} does not begin with GGUF, expected a GGUF file: download it again")
    version, n_tensors, n_values = _unpack(file, "IQQ")
    if version not in (2, 3) or max(n_tensors, n_values) > _MAX_ENTRIES:
        raise CheckpointError(f"{path} is GGUF version {version} with {n_tensors} tensors, expected version 2 or 3")
    values = {}
    for _ in range(n_values):
        key = _string(file)
        values[key] = _value(file, *_unpack(file, "I"))
    found = []
    for _ in range(n_tensors):
        name = _string(file)
        (n_dimensions,) = _unpack(file, "I")
        shape = _unpack(file, f"{min(n_dimensions, 8)}Q")
        kind, offset = _unpack(file, "IQ")
        found.append((name, shape, kind, offset))
    alignment = values.get("general.alignment", 32)
    begin = -(-file.tell() // int(str(alignment))) * int(str(alignment))
    for name, shape, kind, offset in found:
        weights, n_bytes = _BLOCKS.get(kind, (1, 0))
        end = begin + offset + math.prod(shape) // weights * n_bytes
        if end > size:
            raise CheckpointError(
                f"{path} is truncated: tensor {name!r} ends at byte {end}, the file at {size}: finish the download"
            )
    kinds = [kind for _, _, kind, _ in found]
    matrices = [kind for _, shape, kind, _ in found if len(shape) >= 2]
    return Gguf(
        architecture=str(values.get("general.architecture", "unknown")),
        contents=Contents(
            n_parameters=sum(math.prod(shape) for _, shape, _, _ in found),
            n_head=sum(math.prod(shape) for name, shape, _, _ in found if name == "output.weight"),
            n_quantized=sum(kind not in _FULL_PRECISION for kind in matrices),
            n_matrices=len(matrices),
            dtypes={name: kinds.count(k) for k, name in _names(kinds).items()},
            kv_cache_scales=False,
        ),
    )


def _names(kinds: list[int]) -> dict[int, str]:
    return {k: _FULL_PRECISION.get(k, f"ggml type {k}") for k in sorted(set(kinds))}


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack("<" + layout, file.read(struct.calcsize("<" + layout)))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > _MAX_STRING_BYTES:
        raise OverflowError(f"a text of {length} bytes")
    (raw,) = struct.unpack(f"<{length}s", file.read(length))
    return str(raw, "utf-8")


def _value(file: BinaryIO, kind: int) -> object:
    """One metadata value; arrays are skipped over and come back as their length."""
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        inner, length = _unpack(file, "IQ")
        if inner in _SCALARS:
            file.seek(length * struct.calcsize("<" + _SCALARS[inner]), 1)
        else:
            for _ in range(length):
                _value(file, inner)
        return length
    if kind not in _SCALARS:
        raise OverflowError(f"a value of unknown type {kind}")
    return _unpack(file, _SCALARS[kind])[0]
