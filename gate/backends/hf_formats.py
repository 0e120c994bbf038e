"""Quantized formats under transformers: can this machine load one, and is the model then what it should be.

Facts come from `gate.formats`; nothing here reads a weight file or scores anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig, GgufConfig, PreTrainedModel, TorchAoConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from gate import formats
from gate.backends.hf_memory import is_out_of_memory
from gate.errors import CheckpointError

GROUP = 64
"""Weights that share a scale where `load.method` quantizes by groups, as NF4 does."""

_KNOWN_LAYOUT = frozenset(
    {*formats.LOAD_METHODS, "auto-round", "awq", "bitnet", "bitsandbytes", "compressed-tensors", "eetq"}
    | {"fbgemm_fp8", "fp8", "gptq", "mxfp8", "torchao"}
)
"""Formats whose layers hold tensors that `n_packed` recognizes."""

_PACKED = frozenset(
    {torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2}
)
_SIDE_TENSORS = (".weight_scale", ".weight_scale_inv", ".weight_packed", ".qweight", ".qzeros", ".scales", ".absmax")


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How a model is quantized.

    Attributes:
        method: what its files declare, if anything.
        on_load: what the policy asks for besides.
        weights: its layers should hold quantized weights, packed or not; false for a key/value cache alone.
    """

    method: str | None
    on_load: str | None
    weights: bool

    @property
    def name(self) -> str | None:
        return self.on_load or self.method


def declared(config: Any, on_load: str | None) -> Format:
    """What a transformers config declares, also where only its text model does, with what the policy asks for."""
    found = getattr(config, "quantization_config", None) or getattr(
        config.get_text_config(decoder=True), "quantization_config", None
    )
    if found is None:
        return Format(method=None, on_load=on_load, weights=on_load is not None)
    data = found if isinstance(found, Mapping) else found.to_dict()
    groups = (data.get("config_groups") or {}).values()
    cache_alone = data.get("kv_cache_scheme") and not any(group.get("weights") for group in groups)
    return Format(method=str(data.get("quant_method")), on_load=on_load, weights=not cache_alone)


def check(found: Format, device: str) -> None:
    """Raises CheckpointError for a format that transformers does not know, or that this machine cannot load.

    transformers loads what it does not know as if it were not quantized, and unpacks what it cannot run.
    """
    if found.method is not None and found.on_load is not None:
        raise CheckpointError(
            f"the checkpoint is already quantized ({found.method}), and `load` asks for {found.on_load}: "
            "remove one of them"
        )
    if found.name is None:
        return
    cuda = torch.cuda.get_device_capability(device) if device.startswith("cuda") and torch.cuda.is_available() else None
    sentence = formats.obstacle(found.name, installed=lambda name: find_spec(name) is not None, cuda=cuda)
    if sentence is not None:
        raise CheckpointError(sentence)
    known = {*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"}
    if found.method is not None and found.method not in known:
        raise CheckpointError(
            f"unknown quantization method {found.method!r} in config.json, expected one that this transformers knows: "
            f"{', '.join(sorted(known))}"
        )


def settings(found: Format, dtype: str, config: Any) -> dict[str, Any]:
    """What `from_pretrained` is told about quantization."""
    match found.on_load:
        case None:
            # unpacked, as on a CPU: what is kept packed depends on kernels that are fetched from a hub
            return {"quantization_config": GgufConfig(dequantize=True)} if found.method == "gguf" else {}
        case "bitsandbytes-nf4":
            own = getattr(config, "dtype", None) if dtype == "auto" else getattr(torch, dtype)
            nf4 = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=own or torch.bfloat16
            )
            return {"quantization_config": nf4}
        case "bitsandbytes-int8":
            return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
        case "torchao-int8" | "torchao-int4" as method:
            return {"quantization_config": _torchao(method)}
        case "hqq-4":
            return {}  # transformers 5 cannot: `quantize_loaded` does it
        case unknown:
            raise ValueError(f"load method {unknown!r} is listed in gate.formats and not made here")


def _torchao(method: str) -> TorchAoConfig:
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup

    if method == "torchao-int8":
        return TorchAoConfig(Int8WeightOnlyConfig())
    four_bits = torch.int4  # type: ignore[attr-defined]  # not in torch's stubs
    return TorchAoConfig(IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(GROUP)))


def quantize_loaded(model: PreTrainedModel, found: Format, device: str) -> None:
    """What is quantized after loading, in place."""
    if found.on_load != "hqq-4":
        return
    from hqq.core.quantize import BaseQuantizeConfig
    from hqq.models.hf.base import AutoHQQHFModel

    config = BaseQuantizeConfig(nbits=4, group_size=GROUP)
    AutoHQQHFModel.quantize_model(model, quant_config=config, compute_dtype=model.dtype, device=device)


def in_effect(model: PreTrainedModel, found: Format) -> Iterator[str]:
    """Run one token through the model and yield what the reader of the record must know of its quantization.

    Raises CheckpointError when nothing of the declared quantization is there, or its kernels cannot run here.
    """
    if found.name is None:
        return
    loaded = n_packed(model)
    if loaded == 0 and found.weights and found.name not in _KNOWN_LAYOUT:
        yield f"{found.name}: whether its layers hold quantized weights was not checked: how it holds them is not known"
    elif loaded == 0 and found.weights:
        raise CheckpointError(
            f"{found.name} is {'asked for' if found.on_load else 'declared'}, and no layer holds quantized weights "
            "after loading: nothing matched its targets, or this transformers unpacked them"
        )
    dtype = str(model.dtype).removeprefix("torch.")
    try:
        with torch.inference_mode():
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=False)
    except RuntimeError as problem:
        if is_out_of_memory(problem):
            raise
        raise CheckpointError(
            f"{found.name} is loaded, and cannot be run in {dtype} on this device: {' '.join(str(problem).split())}; "
            "many kernels run in one precision alone: try another `dtype`, such as bfloat16"
        ) from problem
    run = n_packed(model)
    if run < loaded or found.method == "gguf":
        when = "when they are loaded" if loaded == 0 else "when they are first run"
        yield (
            f"{found.name}: transformers unpacks the weights to {dtype} {when}; scores include their rounding, "
            f"memory and speed are those of {dtype} weights"
        )
    layers = [m for m in model.modules() if hasattr(m, "in_features")]  # a quantized cache is on attention modules
    if any(getattr(getattr(m, "quantization_scheme", None), "input_activations", None) for m in layers):
        yield (
            f"{found.name}: activations are rounded to the format and put back into {dtype} before each layer, at "
            f"every step: slower than {dtype} alone, and no measure of kernels that compute in the format"
        )
    if found.on_load == "torchao-int4":
        yield "torchao-int4: 4-bit weights are held in 8 bits each; memory and speed are not those of a 4-bit model"


def n_packed(model: PreTrainedModel) -> int:
    """Modules that hold a weight matrix in integers, in 8-bit floats, or in a tensor type of a quantization library."""
    return sum(
        any(_is_packed(t) for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
        or any(_is_packed(t) for t in vars(module).values() if isinstance(t, torch.Tensor))
        for module in model.modules()
    )


def _is_packed(tensor: torch.Tensor) -> bool:
    plain = type(tensor.data) is torch.Tensor
    return tensor.dim() >= 2 and (tensor.dtype in _PACKED or not plain)


def undeclared(unexpected: set[str]) -> list[str]:
    """Names of tensors that only a quantized checkpoint has, among those that the model had no place for."""
    return sorted(name for name in unexpected if name.endswith(_SIDE_TENSORS))
