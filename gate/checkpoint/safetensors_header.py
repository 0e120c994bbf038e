"""What one safetensors file says it holds: names, dtypes, shapes and places of its tensors.

Must not trust the file: every offset is checked against the bytes that are there before anything is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate.checkpoint import strict_json
from gate.checkpoint.strict_json import shown
from gate.errors import CheckpointError, Refused

MAX_HEADER_BYTES = 10 * 2**20
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
"""How pickles begin, and the archives of them that torch.save writes."""

MAX_DIMENSIONS = 8
MAX_LENGTH = 2**40
"""Of one dimension: a tensor with another dimension of 0 has no bytes to hold it to."""

MAX_NAME_CHARACTERS = 1000

LFS_POINTER = b"version https://git-lfs"

BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One tensor of one file; it fills the bytes [begin, end) of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def read(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a safetensors file in the order of their bytes.

    Raises:
        CheckpointError: the file is a git-lfs pointer, truncated, or not safetensors at all.
        Refused: the header lies: holes, overlaps, trailing bytes, duplicate names, sizes that contradict shapes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise CheckpointError(
                f"{path} is a git-lfs pointer of {size} bytes, expected the weights: run `git lfs pull` there"
            )
        if size < 8:
            raise CheckpointError(f"{path} has {size} bytes, expected a safetensors file: download it again")
        header_bytes = int.from_bytes(start[:8], "little")
        if header_bytes > MAX_HEADER_BYTES and start.startswith(PICKLES):
            raise Refused(
                f"{path} is a pickle that runs code when loaded, whatever its name says: "
                "convert it to safetensors in a place you trust"
            )
        if header_bytes > MAX_HEADER_BYTES:
            raise Refused(
                f"{path} announces a header of {header_bytes} bytes, expected at most {MAX_HEADER_BYTES}: "
                "it is not a safetensors file, or not an honest one"
            )
        if 8 + header_bytes > size:
            raise _truncated(path, size, 8 + header_bytes)
        file.seek(8)
        raw = file.read(header_bytes)
    header = strict_json.parse(raw, f"the header of {path}")
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a header that is no JSON object: download it again")
    header.pop("__metadata__", None)
    tensors = sorted(
        (_tensor(path, name, entry, 8 + header_bytes) for name, entry in header.items()),
        key=lambda t: (t.begin, t.end),
    )
    expected = 8 + header_bytes
    for tensor in tensors:
        if tensor.begin != expected:
            raise Refused(f"{path}: tensor {shown(tensor.name)} begins at byte {tensor.begin}, expected {expected}: "
                          "the file has a hole or an overlap")  # fmt: skip
        expected = tensor.end
    if expected > size:
        raise _truncated(path, size, expected)
    if expected < size:
        raise Refused(f"{path} has {size} bytes, its header accounts for {expected}: unexplained bytes at the end")
    return tuple(tensors)


def _truncated(path: Path, size: int, expected: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is truncated: found {size} bytes, its header promises {expected}: finish or repeat the download"
    )


def check_name(path: Path, name: str) -> None:
    """Raises Refused for a tensor's name that must not reach a terminal or a log as it is."""
    if not name.isprintable() or len(name) > MAX_NAME_CHARACTERS:
        raise Refused(
            f"{path} names a tensor {shown(name)}, expected at most {MAX_NAME_CHARACTERS} printable characters"
        )


def _tensor(path: Path, name: str, entry: Any, data_begin: int) -> Tensor:
    check_name(path, name)
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        bits = BITS[dtype]
        honest = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as problem:
        raise Refused(
            f"{path}: tensor {shown(name)} is described as {shown(entry)}, "
            "expected a known dtype, a shape and two offsets"
        ) from problem
    if len(shape) > MAX_DIMENSIONS or any(type(n) is int and n > MAX_LENGTH for n in shape):
        raise Refused(f"{path}: tensor {shown(name)} has the shape {shown(list(shape))}, which no model has")
    if not honest or (end - begin) * 8 != math.prod(shape) * bits:
        raise Refused(f"{path}: tensor {shown(name)} is described as {shown(entry)}: its bytes do not fit its shape")
    return Tensor(name=name, dtype=dtype, shape=shape, begin=data_begin + begin, end=data_begin + end)
