"""What the tensors say against the declaration: a finding for each kind of disagreement, none where they agree.

Pure.  Speaks only of layouts that are known here: what cannot be read is not held against a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gate.checkpoint.layout import names_of
from gate.checkpoint.modules import Module
from gate.checkpoint.quantization import Contents
from gate.checkpoint.scheme import Declaration, Scheme

_FLOATS = ("8-bit floats", lambda m: m.dtype.startswith("F8"))
_PACKED_FLOATS = ("packed 4-bit floats in `weight_packed`", lambda m: m.dtype == "U8")
_QWEIGHT = ("packed integers in `qweight`", lambda m: m.layout == "qweight" or not m.exact)
_LAYOUTS: dict[str, tuple[str, Callable[[Module], bool]]] = {
    "pack-quantized": ("packed integers in `weight_packed`", lambda m: (m.layout, m.dtype) == ("weight_packed", "I32")),
    "int-quantized": ("8-bit integers", lambda m: m.dtype == "I8"),
    "float-quantized": _FLOATS,
    "nvfp4-pack-quantized": _PACKED_FLOATS,
    "mxfp4-pack-quantized": _PACKED_FLOATS,
    "fp8": _FLOATS,
    "fbgemm_fp8": _FLOATS,
    "gptq": _QWEIGHT,
    "awq": _QWEIGHT,
}
"""How a quantized weight is stored, by compressed-tensors' format or else by method."""

_WIDTH_IS_STORED = frozenset({"compressed-tensors", "gptq", "awq", "auto-round", "hqq", "mxfp4", "modelopt"})
"""Methods whose tensors take the declared bits (torchao may keep 4-bit codes in bytes)."""

_GGUF_WIDTH = re.compile(r"I?Q(\d)_")
_GGUF_SLACK_BITS = 2.0
"""llama.cpp's mixtures keep some tensors in more bits than their name: Q2_K takes 3.4 in a small model."""

_GROUPS_ARE_STORED = frozenset({"compressed-tensors", "gptq", "awq", "auto-round", "hqq"})
_SCALED = frozenset({"compressed-tensors", "gptq", "awq", "auto-round", "bitsandbytes", "hqq", "fp8", "mxfp4"})


def contradictions(said: Declaration, modules: Sequence[Module], shown: Contents) -> tuple[str, ...]:
    """Each finding says what is declared and what was found, with the first modules it is about."""
    quantized = [m for m in modules if m.quantized]
    if not quantized:
        if said.kv_cache and not said.schemes:
            return ()  # only the cache, as declared
        found = ", ".join(shown.dtypes)
        none = f"0 of {shown.n_matrices} weight matrices are quantized (stored as {found})"
        return (f"it declares {said.method}, but {none}",)
    findings = [
        _layout(said, quantized),
        _four_bit_state(said, quantized),
        _widths(said, quantized),
        _groups(said, quantized),
        _scales(said, quantized),
        _zero_points(said, quantized),
    ]
    return tuple(f for f in findings if f is not None)


def misnamed(scheme: str, modules: Sequence[Module]) -> tuple[str, ...]:
    """The same for a GGUF file, whose only declaration is the scheme in its name, such as `Q4_K_M`."""
    width = _GGUF_WIDTH.match(scheme)
    if width is None:
        return ()
    quantized = [m for m in modules if m.quantized]
    n_weights = sum(m.n_weights for m in quantized)
    if not n_weights:
        found = ", ".join(sorted({m.dtype for m in modules}))
        n_matrices = sum(m.is_matrix for m in modules)
        return (f"its name declares {scheme}, but 0 of {n_matrices} weight matrices are quantized (stored as {found})",)
    bits = 8 * sum(m.weight_bytes for m in quantized) / n_weights
    if abs(bits - int(width[1])) <= _GGUF_SLACK_BITS:
        return ()
    kinds = ", ".join(sorted({m.dtype for m in quantized}))
    return (f"its name declares {scheme}, but its quantized weights take {bits:.1f} bits each ({kinds})",)


def left_alone(said: Declaration, modules: Sequence[Module]) -> str | None:
    """A remark on matrices that compressed-tensors' targets and ignore list do not explain; None if there are none."""
    if said.method != "compressed-tensors" or any(s.targets != ("Linear",) for s in said.schemes):
        return None
    if any(name.startswith("re:") for name in said.ignored):
        return None
    ignored = set(said.ignored)
    missed = [
        m for m in modules
        if m.is_matrix and len(m.shape) == 2 and not m.quantized and m.layout == "weight"
        and not (m.is_embedding or m.is_head or ignored & {m.name, m.name.rsplit(".", 1)[-1]})
    ]  # fmt: skip
    if not missed or not said.schemes:
        return None
    return f"declared as quantized, but stored in full precision: {names_of(missed)}"


def _layout(said: Declaration, quantized: Sequence[Module]) -> str | None:
    name = said.layout if said.method == "compressed-tensors" else said.method
    if name not in _LAYOUTS:
        return None
    words, fits = _LAYOUTS[name]
    wrong = [m for m in quantized if not fits(m)]
    return _but(f"it declares {name} ({words})", wrong, lambda m: f"{m.dtype} in `{m.layout}`")


def _four_bit_state(said: Declaration, quantized: Sequence[Module]) -> str | None:
    if said.method != "bitsandbytes" or not any(s.bits == 4 for s in said.schemes):
        return None
    wrong = [m for m in quantized if m.bits != 4]
    return _but("it declares bitsandbytes in 4 bits", wrong, lambda m: f"{m.dtype} without a quant_state")


def _widths(said: Declaration, quantized: Sequence[Module]) -> str | None:
    widths = [s.bits for s in said.schemes if s.bits is not None]
    if said.method not in _WIDTH_IS_STORED or len(widths) < len(said.schemes) or not widths or said.exceptions:
        return None
    wrong = [m for m in _inner(quantized) if m.bits not in widths]
    declared = " or ".join(f"{w:g}" for w in sorted(set(widths)))
    return _but(f"it declares {declared}-bit weights", wrong, lambda m: f"{m.bits:g} bits")


def _groups(said: Declaration, quantized: Sequence[Module]) -> str | None:
    if said.method not in _GROUPS_ARE_STORED or not said.schemes or said.exceptions:
        return None
    wrong = [m for m in _inner(quantized) if m.granularity and not any(_covers(s, m) for s in said.schemes)]
    declared = " or ".join(dict.fromkeys(s.granularity or "tensor" for s in said.schemes))
    return _but(f"it declares a scale per {declared}", wrong, lambda m: f"one per {m.granularity}")


def _inner(quantized: Sequence[Module]) -> list[Module]:
    """Modules of known layout; heads and embeddings may have settings of their own."""
    return [m for m in quantized if m.exact and not (m.is_head or m.is_embedding)]


def _covers(scheme: Scheme, module: Module) -> bool:
    """Could this scheme have given this module its scales?"""
    found, n_in = module.granularity or "", module.shape[-1]
    if scheme.group_size is not None:
        if found.startswith("group"):
            return module.group_size == scheme.group_size
        return found in ("channel", "tensor") and n_in <= scheme.group_size  # a row may be shorter than a group
    if scheme.granularity == "channel":
        return found == "channel" or (found == "tensor" and module.shape[-2] == 1)
    return True


def _scales(said: Declaration, quantized: Sequence[Module]) -> str | None:
    wrong = [m for m in quantized if m.n_scales == 0] if said.method in _SCALED else []
    return _but(f"it declares {said.method}", wrong, lambda m: f"{m.dtype} codes without a scale")


def _zero_points(said: Declaration, quantized: Sequence[Module]) -> str | None:
    if said.method != "compressed-tensors" or not said.schemes or any(s.symmetric is not False for s in said.schemes):
        return None
    wrong = [m for m in quantized if not m.zero_points]
    return _but("it declares asymmetric weights", wrong, lambda m: f"{m.dtype} without zero points")


def _but(declared: str, wrong: Sequence[Module], what: Callable[[Module], str]) -> str | None:
    """`declared`, but that many modules hold something else; None if none does."""
    if not wrong:
        return None
    first = wrong[0]
    noun = "1 module holds" if len(wrong) == 1 else f"{len(wrong)} modules hold"
    return f"{declared}, but {noun} {what(first)}: {names_of(wrong)}"
