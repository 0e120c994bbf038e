"""What one GGUF file says it holds: architecture, tensors, their types and sizes.

Must not trust the file: counts, lengths and offsets are checked before anything is read or built.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gate.checkpoint.gguf_tensors import FULL_PRECISION, TYPES
from gate.checkpoint.quantization import Contents
from gate.checkpoint.safetensors_header import check_name
from gate.checkpoint.strict_json import shown
from gate.errors import CheckpointError, Refused

_BLOCKS = {kind: (weights, n_bytes) for kind, (_, weights, n_bytes) in TYPES.items()}
_FULL_PRECISION = {kind: name for kind, (name, _, _) in TYPES.items() if name in FULL_PRECISION}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_ENTRIES = 1_000_000
_MAX_TEXTS = 2_000_000
"""In one array: a vocabulary, or its merges."""

_MAX_HEADER_BYTES = 64 * 2**20

_PROMISES = (".block_count", ".embedding_length", ".feed_forward_length", ".expert_count", ".vocab_size", "head_count")
_MAX_STRING_BYTES = 16 * 2**20
_MAX_DIMENSIONS = 4
_MAX_LENGTH = 2**40
_MAX_ALIGNMENT = 2**16
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Gguf:
    """`architecture` is llama.cpp's name for it."""

    architecture: str
    contents: Contents


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tensor:
    """`offset` is relative to the end of the header."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def n_bytes(self) -> int:
        weights, n_bytes = _BLOCKS[self.kind]
        return math.prod(self.shape) // weights * n_bytes


def read(path: Path) -> Gguf:
    """Raises CheckpointError: not a GGUF file, damaged, truncated; Refused: its header lies."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            return _read(file, path, size)
    except (struct.error, UnicodeDecodeError, OverflowError, OSError) as problem:
        raise CheckpointError(f"{path} has a damaged or truncated header ({problem}): download it again") from problem


def _read(file: BinaryIO, path: Path, size: int) -> Gguf:
    if file.read(4) != b"GGUF":
        raise CheckpointError(f"{path} does not begin with GGUF, expected a GGUF file: download it again")
    (version,) = _unpack(file, "I")
    if version not in (2, 3):
        raise CheckpointError(f"{path} is GGUF version {version}, expected version 2 or 3 in little-endian order")
    n_tensors, n_values = _unpack(file, "QQ")
    if max(n_tensors, n_values) > _MAX_ENTRIES:
        raise Refused(f"{path} announces {n_tensors} tensors and {n_values} settings, expected under {_MAX_ENTRIES}")
    values: dict[str, object] = {}
    for _ in range(n_values):
        key = _string(file)
        if key in values:
            raise Refused(f"{path} gives {shown(key)} twice, and readers disagree on which one counts")
        values[key] = _value(file, *_unpack(file, "I"), size=size)
        if file.tell() > _MAX_HEADER_BYTES:
            raise Refused(f"{path} has settings of more than {_MAX_HEADER_BYTES} bytes, expected a vocabulary at most")
    found = [_tensor(file, path) for _ in range(n_tensors)]
    _check_places(
        path, found, begin=file.tell(), alignment=values.get("general.alignment", _DEFAULT_ALIGNMENT), size=size
    )
    if not found:
        raise CheckpointError(f"{path} holds no tensors, expected a model's weights")
    _check_promises(path, values, found)
    kinds = [t.kind for t in found]
    matrices = [t.kind for t in found if len(t.shape) >= 2]
    return Gguf(
        architecture=str(values.get("general.architecture", "unknown")),
        contents=Contents(
            n_parameters=sum(math.prod(t.shape) for t in found),
            n_head=sum(math.prod(t.shape) for t in found if t.name == "output.weight"),
            n_quantized=sum(kind not in _FULL_PRECISION for kind in matrices),
            n_matrices=len(matrices),
            dtypes={name: kinds.count(k) for k, name in _names(kinds).items()},
            kv_cache_scales=False,
        ),
    )


def _tensor(file: BinaryIO, path: Path) -> _Tensor:
    name = _string(file)
    check_name(path, name)
    (n_dimensions,) = _unpack(file, "I")
    if n_dimensions > _MAX_DIMENSIONS:
        raise Refused(f"{path}: tensor {shown(name)} has {n_dimensions} dimensions, expected at most {_MAX_DIMENSIONS}")
    shape = _unpack(file, f"{n_dimensions}Q")
    kind, offset = _unpack(file, "IQ")
    if kind not in _BLOCKS:
        raise Refused(f"{path}: tensor {shown(name)} is of ggml type {kind}, which is not known here")
    if any(not 0 < n <= _MAX_LENGTH for n in shape) or (shape and shape[0] % _BLOCKS[kind][0]):
        raise Refused(f"{path}: tensor {shown(name)} has the shape {shown(shape)}, which ggml type {kind} cannot hold")
    return _Tensor(name=name, shape=shape, kind=kind, offset=offset)


def _check_places(path: Path, found: list[_Tensor], *, begin: int, alignment: object, size: int) -> None:
    """Raises unless the tensors fill the rest of the file, one after the other, each name once."""
    if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise Refused(f"{path} wants its tensors aligned to {shown(alignment)} bytes, expected a power of two")

    def aligned(place: int) -> int:
        return -(-place // alignment) * alignment

    names: set[str] = set()
    expected = aligned(begin)
    end = expected
    for tensor in sorted(found, key=lambda t: t.offset):
        if tensor.name in names:
            raise Refused(f"{path} holds tensor {shown(tensor.name)} twice, expected every name once")
        names.add(tensor.name)
        if aligned(begin) + tensor.offset != expected:
            raise Refused(
                f"{path}: tensor {shown(tensor.name)} begins at byte {aligned(begin) + tensor.offset}, expected "
                f"{expected}: the file has a hole or an overlap"
            )
        end = expected + tensor.n_bytes
        expected = aligned(end)
        if end > size:
            raise CheckpointError(
                f"{path} is truncated: tensor {shown(tensor.name)} ends at byte {end}, the file at {size}: "
                "finish the download"
            )
    if size > expected:
        raise Refused(f"{path} has {size} bytes, its header accounts for {end}: unexplained bytes at the end")


def _check_promises(path: Path, values: dict[str, object], found: list[_Tensor]) -> None:
    """A loader builds what the settings promise before it looks at the tensors: they must not promise more."""
    n_weights = sum(math.prod(t.shape) for t in found)
    for key, value in values.items():
        most = len(found) if key.endswith(".block_count") else n_weights
        if key.endswith(_PROMISES) and not (type(value) is int and 0 <= value <= most):
            raise Refused(
                f"{path} promises {shown(key)[1:-1]} {shown(value)}, and holds {len(found)} tensors of "
                f"{n_weights} weights"
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


def _skip(file: BinaryIO, n_bytes: int, size: int) -> None:
    """Raises OverflowError where less is left, before a position is computed that no file has."""
    if n_bytes > size - file.tell():
        raise OverflowError(f"values of {n_bytes} bytes, where {size - file.tell()} are left")
    file.seek(n_bytes, 1)


def _value(file: BinaryIO, kind: int, *, size: int) -> object:
    """One metadata value; arrays are skipped over and come back as their length."""
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        inner, length = _unpack(file, "IQ")
        if inner in _SCALARS:
            _skip(file, length * struct.calcsize("<" + _SCALARS[inner]), size)
        elif inner == _STRING and length <= _MAX_TEXTS:
            for _ in range(length):
                (n_bytes,) = _unpack(file, "Q")
                _skip(file, n_bytes, size)
        else:
            raise OverflowError(f"an array of {length} values of type {inner}")
        return length
    if kind not in _SCALARS:
        raise OverflowError(f"a value of unknown type {kind}")
    return _unpack(file, _SCALARS[kind])[0]
