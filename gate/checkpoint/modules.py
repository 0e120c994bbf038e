"""The modules of a model, each with the tensors that make up its weight: how it is stored, and in how many bits.

Reads names, dtypes and shapes, and the few bytes in which exporters write a packed weight's own shape.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gate.checkpoint.quantization import Contents
from gate.checkpoint.safetensors_header import BITS, Tensor

_SIDE = re.compile(
    r"\.(?:[a-z_]*_)?(?:scale|scale_inv|scale_2|global_scale|zero_point|zero_points|scales|qzeros|zeros|g_idx|absmax"
    r"|quant_map|SCB|weight_format|weight_shape|row_ids|inv_freq|position_ids|masked_bias)$|\.quant_state\."
)
"""Tensors that accompany weights and are no parameters: scales, zero points, code books, buffers."""

_SPARSE_SIDE = {
    **dict.fromkeys(("meta", "scale_packed"), "weight_packed"),
    **dict.fromkeys(("bitmask", "shape", "row_offsets"), "compressed"),
}
"""What compressed-tensors keeps beside weights of which it leaves out zeros, with the tensor of the weights."""

_WEIGHTS = ("weight", "weight_packed", "qweight", "_weight_qdata", "W_q", "_data")
_SCALES = (
    "weight_scale",
    "scales",
    "weight_scale_inv",
    "_weight_scale",
    "scale",
    "SCB",
    "absmax",
    "_scale",
    "scale_packed",
)
_INTEGERS = frozenset({"U8", "I8", "U16", "I16", "U32", "I32"})
_LOW_BIT_FLOATS = frozenset(d for d, bits in BITS.items() if d.startswith("F") and bits <= 8)
_MAX_NOTE_BYTES = 4096
_MAX_DIMENSIONS = 8
_MAX_WEIGHTS = 2**48
_WIDTHS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """One weight with what accompanies it.

    Attributes:
        name: as in `model.layers.0.mlp.down_proj`; a bias is a module of its own, `….down_proj.bias`.
        shape: of the unpacked weight as far as it is known, else as stored.
        n_weights: parameters after unpacking; `exact` says whether the layout is known.
        dtype: in which the weight (or its packing) is stored.
        bits: per stored weight, without scales; None in full precision.
        granularity: what one scale covers: `tensor`, `channel`, `group 128`, `block 128x128`; None without scales.
        n_scales: how many there are; 0 means codes that nobody can read.
        weight_bytes: of the weight alone; `side_bytes` of scales, zero points and code books.
        layout: name of the tensor that holds the weight, such as `weight_packed`.
    """

    name: str
    shape: tuple[int, ...]
    n_weights: int
    exact: bool
    dtype: str
    bits: float | None
    granularity: str | None
    n_scales: int
    zero_points: bool
    weight_bytes: int
    side_bytes: int
    layout: str

    @property
    def quantized(self) -> bool:
        """Is it a matrix of integers, or of floats of at most 8 bits?"""
        return self.bits is not None and self.is_matrix

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) >= 2

    @property
    def is_head(self) -> bool:
        """An output head stored on its own: it may be tied to the embedding and left out."""
        return "lm_head" in self.name.split(".") or self.name == "output"

    @property
    def is_embedding(self) -> bool:
        last = self.name.rsplit(".", 1)[-1]
        return last in ("wte", "wpe", "token_embd") or last.startswith("embed")

    @property
    def group_size(self) -> int | None:
        """Weights that share a scale, where they are cut into groups."""
        return int(self.granularity.split()[1]) if self.granularity and self.granularity.startswith("group") else None


def notes(tensors: Iterable[tuple[Path, Tensor]]) -> dict[str, bytes]:
    """What exporters write beside a packed weight about its shape, by the tensor's name."""
    wanted: dict[Path, list[Tensor]] = defaultdict(list)
    for path, tensor in tensors:
        tail = tensor.name.rsplit(".", 1)[-1]
        speaks = tail in ("weight_shape", "shape") or ".quant_state." in tensor.name
        if speaks and tensor.end - tensor.begin <= _MAX_NOTE_BYTES:
            wanted[path].append(tensor)
    found = {}
    for path, held in wanted.items():
        with path.open("rb", buffering=0) as file:
            for tensor in held:
                file.seek(tensor.begin)
                found[tensor.name] = file.read(tensor.end - tensor.begin)
    return found


def modules(tensors: Iterable[Tensor], noted: Mapping[str, bytes], bits: float | None) -> tuple[Module, ...]:
    """Group tensors by the weight they belong to, in the order of their names.

    `noted` are the bytes of `notes`; `bits` per weight is what the checkpoint declares, for packings that do not say.
    """
    held = {t.name: t for t in tensors}
    packed = {name.removesuffix(".W_q") for name in held if name.endswith(".W_q")}
    weights: dict[str, tuple[Tensor, str]] = {}
    sides: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in held.items():
        owner, part, is_weight = _place(name, held, packed)
        if is_weight:
            weights[owner] = (tensor, part)
        else:
            sides[owner][part] = tensor
    return tuple(
        _module(owner, *weights[owner], sides.pop(owner, {}), _Said(owner, noted), bits) for owner in sorted(weights)
    )


def contents(found: Sequence[Module], tensors: Iterable[Tensor]) -> Contents:
    """Counts over all modules."""
    matrices = [m for m in found if m.is_matrix]
    return Contents(
        n_parameters=sum(m.n_weights for m in found),
        n_head=sum(m.n_weights for m in found if m.is_head),
        n_quantized=sum(m.quantized for m in matrices),
        n_matrices=len(matrices),
        dtypes=dict(sorted(Counter(m.dtype for m in found).items())),
        kv_cache_scales=any(t.name.endswith((".k_scale", ".v_scale")) for t in tensors),
    )


def _place(name: str, held: Mapping[str, Tensor], packed: set[str]) -> tuple[str, str, bool]:
    """(module, part of it, is it the weight itself?)"""
    if ".quant_state." in name:
        owner, _, part = name.partition(".quant_state.")
        return owner.removesuffix(".weight"), "quant_state." + part, False
    owner, _, part = name.rpartition(".")
    if owner in packed:  # HQQ keeps a dozen settings beside the codes
        return owner, part, part == "W_q"
    for suffix, is_weight in (("_blocks", True), ("_scales", False)):  # MXFP4 as gpt-oss stores its experts
        if name.endswith(suffix) and name.removesuffix(suffix) + "_blocks" in held:
            return name.removesuffix(suffix), suffix[1:], is_weight
    if f"{owner}.{_SPARSE_SIDE.get(part)}" in held:
        return owner.removesuffix(".weight"), part, False
    if part == "compressed" and f"{owner}.bitmask" in held:
        return owner.removesuffix(".weight"), part, True
    if _SIDE.search(name):
        return owner.removesuffix(".weight"), part, False
    if part in _WEIGHTS and owner:
        return owner.removesuffix(".weight"), part, True
    return name, "parameter", True  # biases, and parameters without a module of their own


class _Said:
    """What the exporter noted about one module."""

    def __init__(self, owner: str, noted: Mapping[str, bytes]) -> None:
        self._owner, self._noted = owner, noted

    def shape(self) -> tuple[int, ...] | None:
        for part in ("weight_shape", "shape"):
            raw = self._noted.get(f"{self._owner}.{part}")
            if raw and len(raw) % 8 == 0:
                shape = struct.unpack(f"<{len(raw) // 8}q", raw)
                return shape if _is_shape(shape) else None
        listed = self._state().get("shape")
        return tuple(listed) if isinstance(listed, list) and _is_shape(listed) else None

    def block(self) -> int | None:
        """Weights under one of bitsandbytes' scales."""
        size = self._state().get("blocksize")
        return size if type(size) is int and size > 0 else None

    def _state(self) -> Mapping[str, object]:
        for kind in ("nf4", "fp4"):
            raw = self._noted.get(f"{self._owner}.weight.quant_state.bitsandbytes__{kind}")
            if raw is not None:
                try:
                    found = json.loads(raw)
                except (ValueError, RecursionError):
                    return {}
                return found if isinstance(found, dict) else {}
        return {}


def _is_shape(noted: Sequence[object]) -> bool:
    """Few lengths of which a weight may have as many elements; whatever else was noted says nothing."""
    if not 0 < len(noted) <= _MAX_DIMENSIONS:
        return False
    lengths = [n for n in noted if type(n) is int and 0 < n <= _MAX_WEIGHTS]
    return len(lengths) == len(noted) and math.prod(lengths) <= _MAX_WEIGHTS


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unpacked:
    """`transposed` weights are stored (in, out)."""

    shape: tuple[int, ...]
    bits: float | None
    exact: bool
    transposed: bool = False


def _module(
    name: str, tensor: Tensor, part: str, side: Mapping[str, Tensor], said: _Said, bits: float | None
) -> Module:
    found = _unpacked(tensor, part, side, said, bits)
    scale = next((side[s] for s in _SCALES if s in side), None)
    n_weights = math.prod(found.shape)
    granularity = None
    if scale is not None and found.bits is not None and found.exact and n_weights:
        block = said.block()
        granularity = f"group {block}" if block else _granularity(found, scale, flat=part == "W_q")
    return Module(
        name=name,
        shape=found.shape,
        n_weights=n_weights,
        exact=found.exact,
        dtype=tensor.dtype,
        bits=found.bits,
        granularity=granularity,
        n_scales=scale.numel if scale is not None else 0,
        zero_points=any("zero" in s for s in side),
        weight_bytes=tensor.end - tensor.begin,
        side_bytes=sum(t.end - t.begin for t in side.values()),
        layout=part,
    )


def _unpacked(tensor: Tensor, part: str, side: Mapping[str, Tensor], said: _Said, bits: float | None) -> _Unpacked:
    """The shape and the bits of a weight that may hold several per element."""
    stored = tensor.shape
    noted = said.shape()
    four_bit_state = any(s.startswith("quant_state.") for s in side)
    if four_bit_state:  # bitsandbytes: two weights in each byte, whatever the storage dtype
        n_weights = tensor.numel * BITS[tensor.dtype] // 4
        fits = noted is not None and n_weights - 1 <= math.prod(noted) <= n_weights
        return _Unpacked(shape=noted if fits and noted else (n_weights, 1), bits=4.0, exact=True)
    match part:
        case "compressed":
            coded = float(BITS[tensor.dtype]) if tensor.dtype in ("I8", *_LOW_BIT_FLOATS) else None
            return _Unpacked(shape=noted or stored, bits=coded, exact=False)
        case "weight_packed" if "meta" in side:  # 2:4 sparse, in the order in which a kernel reads it
            width_of_codes = bits or 4.0
            n_weights = int(2 * tensor.numel * BITS[tensor.dtype] // width_of_codes)
            return _Unpacked(shape=(n_weights, 1), bits=width_of_codes, exact=False)
        case "weight_packed" if tensor.dtype == "U8":
            return _halves(stored)
        case "weight_packed" if noted and len(noted) == len(stored) == 2:
            return _Unpacked(shape=noted, bits=_packed_width(noted[1], stored[1], bits), exact=True)
        case "qweight":
            return _gptq_or_awq(tensor, side, bits)
        case "W_q" if noted:  # HQQ packs 3-bit codes by tens into words of 32 bits
            width = tensor.numel * BITS[tensor.dtype] / math.prod(noted)
            return _Unpacked(shape=noted, bits=3.0 if 3 < width < 3.5 else round(width, 2), exact=True)
        case "blocks":
            *rows, n_blocks, n_bytes = stored if len(stored) >= 2 else (1, *stored)
            return _Unpacked(shape=(*rows, n_blocks * n_bytes * 2), bits=4.0, exact=True)
        case "weight" | "_weight_qdata" | "_data" if tensor.dtype == "U8":
            fp4 = part == "weight" and any(side[s].dtype in ("F8_E4M3", "U8") for s in ("weight_scale",) if s in side)
            if fp4 or (bits == 4 and part != "weight"):
                return _halves(stored)
    if tensor.dtype in ("I8", *_LOW_BIT_FLOATS):
        return _Unpacked(shape=stored, bits=float(BITS[tensor.dtype]), exact=True)
    if tensor.dtype not in _INTEGERS:
        return _Unpacked(shape=stored, bits=None, exact=True)
    if bits and len(stored) >= 2 and part != "weight":  # a packing that is not known here: by what is declared
        n_weights = int(tensor.numel * BITS[tensor.dtype] // bits)
        return _Unpacked(shape=(n_weights, 1), bits=bits, exact=False)
    return _Unpacked(shape=stored, bits=float(BITS[tensor.dtype]), exact=False)


def _halves(stored: tuple[int, ...]) -> _Unpacked:
    """Two 4-bit codes in each byte of the last dimension."""
    return _Unpacked(shape=(*stored[:-1], stored[-1] * 2) if stored else (2,), bits=4.0, exact=True)


def _packed_width(n_in: int, n_columns: int, declared: float | None) -> float:
    """Bits per weight of int32 columns: codes are packed densely or, by older exporters, without crossing a word."""
    fits = [b for b in _WIDTHS if n_columns == -(-n_in * b // 32)]
    fits += [b for b in _WIDTHS if n_columns == -(-n_in // (32 // b))]
    if declared is not None and declared in fits:
        return declared
    return float(fits[0]) if fits else n_columns * 32 / n_in


def _gptq_or_awq(tensor: Tensor, side: Mapping[str, Tensor], bits: float | None) -> _Unpacked:
    """`qweight` is (in · bits/32, out) as GPTQ packs it, (in, out · bits/32) as AWQ does; `scales` are (groups, out).

    The width follows from the zero points, (groups, out · bits/32), whatever the configuration says.
    """
    scales, zeros = side.get("scales"), side.get("qzeros")
    width = bits
    if scales and zeros and len(scales.shape) == len(zeros.shape) == 2 and scales.shape[1]:
        width = zeros.shape[1] * 32 / scales.shape[1]
    n_out = scales.shape[-1] if scales and scales.shape else tensor.shape[-1] if tensor.shape else 0
    if not width or not n_out or len(tensor.shape) != 2:
        return _Unpacked(shape=tensor.shape, bits=bits, exact=False)
    rows, columns = tensor.shape
    known = scales is not None and zeros is not None
    if columns == n_out:
        return _Unpacked(shape=(n_out, int(rows * 32 / width)), bits=width, exact=known, transposed=True)
    return _Unpacked(shape=(n_out, rows), bits=columns * 32 / n_out, exact=known, transposed=True)


def _granularity(weight: _Unpacked, scale: Tensor, *, flat: bool) -> str:
    """What one scale covers, from the shapes of weight and scales; `flat` scales are not in the weight's shape."""
    n_weights, (n_out, n_in) = math.prod(weight.shape), weight.shape[-2:] if len(weight.shape) >= 2 else (1, 1)
    per_scale = n_weights / scale.numel if scale.numel else math.inf
    if scale.numel <= 1 or per_scale == n_out * n_in:  # the latter: one for each expert
        return "tensor"
    if per_scale == n_in:
        return "channel"
    shape = scale.shape[::-1] if weight.transposed else scale.shape
    rows, columns = shape[-2:] if len(shape) >= 2 else (shape[0], 1)
    if flat or rows == n_out:
        return f"group {math.ceil(per_scale) if flat else -(-n_in // max(columns, 1))}"
    return f"block {-(-n_out // max(rows, 1))}x{-(-n_in // max(columns, 1))}"
