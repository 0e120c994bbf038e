"""Is every number of a tensor a number?  NaN and infinities, found in the raw bytes of any float type.

Pure: bytes → count.  Looks at bit patterns where numpy has no such type.
"""

from __future__ import annotations

from collections.abc import Callable

Count = Callable[[bytes], int]
"""Bytes of whole elements → how many of them are NaN or infinite."""

_MASKS = {
    "F16": ("<u2", 0x7C00),  # all bits of the exponent set: NaN or infinity
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),  # has NaN, but no infinity
}
_CODES = {"F8_E4M3FNUZ": 0x80, "F8_E5M2FNUZ": 0x80, "F8_E8M0": 0xFF}
"""The one code of NaN of a byte type."""


_HALVES = {
    "Q4_0": (18, (0,)), "Q4_1": (20, (0, 2)), "Q5_0": (22, (0,)), "Q5_1": (24, (0, 2)), "Q8_0": (34, (0,)),
    "Q2_K": (84, (80, 82)), "Q3_K": (110, (108,)), "Q4_K": (144, (0, 2)), "Q5_K": (176, (0, 2)), "Q6_K": (210, (208,)),
    "IQ4_NL": (18, (0,)), "IQ4_XS": (136, (0,)),
}  # fmt: skip
"""ggml's blocks: their bytes, and where in them the scales lie, in half precision."""


def element_bytes(dtype: str) -> int:
    """What must not be cut in two when a tensor is read in pieces; 1 where nothing is counted."""
    return _HALVES[dtype][0] if dtype in _HALVES else 8


def counter(name: str, dtype: str) -> Count | None:
    """How to count in a tensor of this name and safetensors dtype; None for integers, and for attention masks."""
    if "mask" in name.rsplit(".", 1)[-1]:
        return None  # infinities are what they are made of
    if dtype == "U8" and name.endswith(("weight_scale", "_scales")):
        dtype = "F8_E8M0"  # MX formats store their scales as bytes
    import numpy as np  # here: `gate --help` need not wait for it

    if dtype in ("F32", "F64", "C64"):
        native = np.dtype("<f8" if dtype == "F64" else "<f4")

        def by_type(raw: bytes) -> int:
            finite = np.isfinite(np.frombuffer(raw, native))
            return 0 if finite.all() else int(finite.size - np.count_nonzero(finite))

        return by_type
    if dtype in _MASKS:
        layout, bits = _MASKS[dtype]
        mask = np.dtype(layout).type(bits)

        def by_mask(raw: bytes) -> int:
            hits = np.frombuffer(raw, layout) & mask == mask
            return int(np.count_nonzero(hits)) if hits.any() else 0

        return by_mask
    if dtype in _HALVES:
        n_bytes, places = _HALVES[dtype]

        def by_block(raw: bytes) -> int:
            blocks = np.frombuffer(raw, np.uint8).reshape(-1, n_bytes)
            found = [blocks[:, p + 1] & 0x7C == 0x7C for p in places]  # the high byte holds the exponent
            return sum(int(np.count_nonzero(hits)) for hits in found)

        return by_block
    if dtype in _CODES:
        code = np.uint8(_CODES[dtype])
        return lambda raw: int(np.count_nonzero(np.frombuffer(raw, np.uint8) == code))
    return None
