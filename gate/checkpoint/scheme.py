"""How a checkpoint says it was quantized: method, groups of modules with their widths, what is left out.

Pure reading of configurations: what the tensors show is in `modules`, and whether the two agree in `contradictions`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.checkpoint.strict_json import shown

_MAX_BITS = 64
_GROUP = re.compile(r"group (\d{1,9})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """What is declared for a group of modules; None where it is not said.

    Attributes:
        bits: per weight.
        number: `int` or `float`, or a code book's name such as `nf4`.
        granularity: in the words of `modules.Module`.
        symmetric: are there no zero points?
        activations: such as `8-bit int per token, dynamic`; None means that they stay as they are.
        order: in which columns were quantized (GPTQ's activation order).
        targets: module names, classes or `re:` patterns.
    """

    bits: float | None
    number: str
    granularity: str | None
    symmetric: bool | None
    activations: str | None
    order: str | None
    targets: tuple[str, ...]

    @property
    def group_size(self) -> int | None:
        sized = _GROUP.fullmatch(self.granularity or "")
        return int(sized[1]) if sized else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """The whole of it.

    Attributes:
        layout: compressed-tensors' format of the stored weights, such as `pack-quantized`.
        schemes: one for each group; empty where the method says nothing about its weights.
        ignored: modules that are declared to be left alone.
        exceptions: modules with settings of their own (auto-round, GPTQModel).
        kv_cache: how the key/value cache is quantized, in words.
    """

    method: str
    layout: str | None
    schemes: tuple[Scheme, ...]
    ignored: tuple[str, ...]
    exceptions: int
    kv_cache: str | None


def read(method: str, found: Mapping[str, Any]) -> Declaration:
    """From a `quantization_config`.  Raises AttributeError, TypeError or ValueError where it is malformed."""
    inner = found.get("quantization")  # modelopt writes one object into another
    found = {**found, **inner} if isinstance(inner, dict) else found
    groups = found.get("config_groups")
    if isinstance(groups, dict) and groups:
        schemes = tuple(_group(g) for g in groups.values() if isinstance(g, dict) and g.get("weights"))
    else:
        schemes = _schemes(method, found)
    return Declaration(
        method=method,
        layout=str(found["format"]) if found.get("format") else None,
        schemes=schemes,
        ignored=_ignored(found),
        exceptions=len(found.get("extra_config") or {}) + len(found.get("dynamic") or {}),
        kv_cache=_kv_cache(found),
    )


def _ignored(found: Mapping[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    for key in ("ignore", "modules_to_not_convert", "llm_int8_skip_modules", "skip_modules", "exclude_modules"):
        listed = found.get(key)
        names += map(str, listed) if isinstance(listed, Sequence) and not isinstance(listed, str) else []
    return tuple(dict.fromkeys(names))


def _kv_cache(found: Mapping[str, Any]) -> str | None:
    scheme = found.get("kv_cache_scheme") or found.get("kv_cache_quant_algo")
    return arguments(scheme) if isinstance(scheme, dict) else str(scheme) if scheme else None


def _group(group: Mapping[str, Any]) -> Scheme:
    weights, activations = group["weights"], group.get("input_activations")
    order = weights.get("actorder")
    return Scheme(
        bits=_bits(weights.get("num_bits")),
        number=str(weights.get("type", "int")),
        granularity=_granularity(weights),
        symmetric=bool(weights["symmetric"]) if weights.get("symmetric") is not None else None,
        activations=arguments(activations) if activations else None,
        order=str(order) if order not in (None, False) else None,
        targets=tuple(map(str, group.get("targets") or ())),
    )


def arguments(found: Mapping[str, Any]) -> str:
    """compressed-tensors' quantization arguments in words: `8-bit float per tensor, static`."""
    how = "dynamic" if found.get("dynamic") else "static"
    return f"{found.get('num_bits')}-bit {found.get('type', 'int')} per {_granularity(found) or 'tensor'}, {how}"


def _bits(found: Any) -> float | None:
    """Per weight.  Raises TypeError or ValueError for what no weight can have, NaN among it."""
    if found is None:
        return None
    try:
        bits = float(found)
    except OverflowError:
        bits = math.inf
    if isinstance(found, bool) or not 1 <= bits <= _MAX_BITS:
        raise ValueError(f"weights of {shown(found)} bits, expected 1 to {_MAX_BITS}")
    return bits


def _granularity(weights: Mapping[str, Any]) -> str | None:
    strategy, size, block = weights.get("strategy"), weights.get("group_size"), weights.get("block_structure")
    if block:
        return "block " + (str(block) if isinstance(block, str) else "x".join(map(str, block)))
    if size is not None and int(size) > 0:
        return f"group {int(size)}"
    return str(strategy) if strategy else "channel" if size is not None and int(size) == -1 else None


def _schemes(method: str, found: Mapping[str, Any]) -> tuple[Scheme, ...]:
    """Of the methods that declare one scheme for the whole model."""
    match method:
        case "compressed-tensors":
            return ()
        case "bitsandbytes":
            four = bool(found.get("load_in_4bit"))
            number = str(found.get("bnb_4bit_quant_type", "fp4")) if four else "int"
            return (_one(4 if four else 8, number, None if four else "channel", symmetric=True),)
        case "fp8" | "fbgemm_fp8" | "mxfp8":
            block = found.get("weight_block_size")
            how = found.get("activation_scheme")
            activations = f"8-bit float, {how}" if how else None
            return (
                _one(8, "float", _granularity({"block_structure": block}), symmetric=True, activations=activations),
            )
        case "mxfp4" | "nvfp4" | "modelopt_fp4":
            return (_one(4, "float", "group 32" if method == "mxfp4" else "group 16", symmetric=True),)
        case "modelopt":
            return _modelopt(found)
        case "torchao":
            return _torchao(found)
        case "hqq":
            return _hqq(found)
        case "quanto" | "eetq":
            width = re.search(r"\d+$", str(found.get("weights", "int8")))
            return (_one(float(width[0]) if width else None, str(found.get("weights", "int8"))[:-1], None),)
    bits = found.get("bits", found.get("w_bit", found.get("nbits")))
    size = found.get("group_size", found.get("q_group_size"))
    symmetric = found.get("sym")
    if symmetric is None and found.get("zero_point") is not None:
        symmetric = not found["zero_point"]
    return (
        _one(
            bits,
            "float" if "fp" in str(found.get("data_type", "")) else "int",
            _granularity({"group_size": size}),
            symmetric=symmetric,
            order="desc_act" if found.get("desc_act") else None,
        ),
    )


def _one(
    bits: Any,
    number: str,
    granularity: str | None,
    *,
    symmetric: Any = None,
    activations: str | None = None,
    order: str | None = None,
) -> Scheme:
    return Scheme(
        bits=_bits(bits),
        number=number,
        granularity=granularity,
        symmetric=bool(symmetric) if symmetric is not None else None,
        activations=activations,
        order=order,
        targets=(),
    )


def _modelopt(found: Mapping[str, Any]) -> tuple[Scheme, ...]:
    algorithm = str(found.get("quant_algo") or "").upper()
    width = re.search(r"W(\d+)A|(?:FP|INT)(\d+)", algorithm)
    if width is None:
        return ()
    bits = float(width[1] or width[2])
    number = "float" if "FP" in algorithm and not algorithm.startswith("W4A16_AWQ") else "int"
    size = found.get("group_size") or (16 if "NVFP4" in algorithm else 32 if "MXFP" in algorithm else None)
    return (_one(bits, number, _granularity({"group_size": size})),)


def _torchao(found: Mapping[str, Any]) -> tuple[Scheme, ...]:
    """`quant_type` is a name, or the class and the fields of torchao's configuration."""
    kind = found.get("quant_type")
    if isinstance(kind, dict):
        kind = kind.get("default", kind)
    name, data = (str(kind.get("_type", "")), kind.get("_data") or {}) if isinstance(kind, dict) else (str(kind), {})
    dtype = data.get("weight_dtype")
    told = str(dtype["_data"]) if isinstance(dtype, dict) and "_data" in dtype else name
    width = re.search(r"(?i)(?:int|float)(\d+)_?weight", told) or re.match(r"u?(?:int|float)(\d+)", told)
    inner = data.get("granularity")
    size = data.get("group_size") or (inner["_data"].get("group_size") if isinstance(inner, dict) else None)
    row = isinstance(inner, dict) and inner.get("_type") == "PerRow"
    if width is None:
        return ()
    number = "float" if "float" in told.lower() else "int"
    dynamic = "DynamicActivation" in name
    return (
        _one(
            width[1],
            number,
            "channel" if row else _granularity({"group_size": size}),
            activations="8-bit, dynamic" if dynamic else None,
        ),
    )


def _hqq(found: Mapping[str, Any]) -> tuple[Scheme, ...]:
    """`quant_config` holds the weights' parameters, or those of each kind of layer."""
    settings = found.get("quant_config") or found
    each = [settings] if "weight_quant_params" in settings or "nbits" in settings else list(settings.values())
    schemes = []
    for one in each:
        inner = one.get("weight_quant_params", one) if isinstance(one, dict) else {}
        if inner.get("nbits") is not None:
            granularity = _granularity({"group_size": inner.get("group_size")})
            schemes.append(_one(inner["nbits"], "int", granularity, symmetric=False))
    return tuple(dict.fromkeys(schemes))
