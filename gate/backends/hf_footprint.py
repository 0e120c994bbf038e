"""What a loaded transformers model is made of: bytes of its weights and of its key/value cache, flops of a token.

Counts what is held, which is not what the files hold where a format is unpacked on loading.  Runs two short prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from gate.backends import Footprint
from gate.backends.hf_load import devices
from gate.backends.hf_memory import total_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LIBRARIES = ("bitsandbytes.", "hqq.")
"""Their layers keep scales in objects of their own, which are no parameters or buffers."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_PROMPTS = (8, 24)  # tokens; fewer than any sliding window has


def footprint(model: PreTrainedModel) -> Footprint:
    """Measure it.

    Of a mixture of experts, what a token reads and multiplies depends on the experts that it is sent to: None.  Where
    weights wait outside the devices until they are needed, what they take is not known: None.
    """
    held = sum(map(_nbytes, _tensors(model.modules()).values()))
    looked_up = sum(map(_nbytes, _only_looked_up(model).values()))
    is_here = all(p.device.type != "meta" for p in model.parameters())
    is_dense = not any(getattr(model.config.get_text_config(decoder=True), name, None) for name in _EXPERTS)
    return Footprint(
        weights_bytes=held if is_here else None,
        weights_read_bytes=held - looked_up if is_here and is_dense else None,
        kv_bytes_per_token=kv_bytes_per_token(model),
        flops_per_token=_flops_per_token(model) if is_dense else None,
        kv_cache_reserved_bytes=None,
        kv_cache_tokens=None,
        max_sequences=None,
        device_memory_bytes=sum(map(total_bytes, devices(model))),
    )


def kv_bytes_per_token(model: PreTrainedModel) -> int | None:
    """By how much a real cache grows for each token of a sequence; None when the model keeps none.

    States that do not grow (of linear attention) do not count.  A layer with a sliding window grows up to its window
    only, so that longer contexts of such models are counted too high here, as engines without windows hold them.
    """
    short, long = (_cache_bytes(model, n) for n in _PROMPTS)
    if short is None or long is None:
        return None
    return (long - short) // (_PROMPTS[1] - _PROMPTS[0])


@torch.inference_mode()
def _cache_bytes(model: PreTrainedModel, n_tokens: int) -> int | None:
    ids = torch.zeros((1, n_tokens), dtype=torch.long, device=model.device)
    cache = getattr(model(input_ids=ids, use_cache=True), "past_key_values", None)
    if cache is None or not hasattr(cache, "layers"):
        return None
    # sizes of the tensors themselves: a layer may hand out a view of what it projected
    return sum(
        t.numel() * t.element_size()
        for layer in cache.layers
        for t in vars(layer).values()
        if isinstance(t, torch.Tensor)
    )


def _flops_per_token(model: PreTrainedModel) -> int:
    """Two for each weight of each matrix in its unpacked shape, without the one that gives the logits."""
    total = 0
    head = model.get_output_embeddings()
    for module in model.modules():
        if module is head:
            continue
        sides = (getattr(module, "in_features", None), getattr(module, "out_features", None))
        if type(module).__name__ == "Conv1D":  # of GPT-2 and its like
            sides = (getattr(module, "nx", None), getattr(module, "nf", None))
        if isinstance(sides[0], int) and isinstance(sides[1], int):
            total += 2 * sides[0] * sides[1]
    return total


def _only_looked_up(model: PreTrainedModel) -> dict[Any, torch.Tensor]:
    """Embedding tables that no other layer multiplies with."""
    modules = list(model.modules())
    tables = [m for m in modules if isinstance(m, torch.nn.Embedding)]
    multiplied = _tensors(m for m in modules if not isinstance(m, torch.nn.Embedding))
    return {key: t for key, t in _tensors(tables).items() if key not in multiplied}


def _tensors(modules: Iterable[torch.nn.Module]) -> dict[Any, torch.Tensor]:
    """One tensor of every storage that the modules themselves hold, by device and address."""
    found: dict[Any, torch.Tensor] = {}
    for module in modules:
        for tensor in chain.from_iterable(map(_plain, vars(module).values())):  # parameters and buffers among them
            found.setdefault((tensor.device, tensor.untyped_storage().data_ptr()), tensor)
    return found


def _nbytes(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().nbytes())


def _plain(thing: Any) -> Iterator[torch.Tensor]:
    """Tensors that hold the bytes of a parameter: its own, those of a packed type, and scales beside it."""
    if isinstance(thing, torch.nn.Module) or thing is None:
        return  # counted by itself
    if isinstance(thing, torch.Tensor):
        if hasattr(thing, "__tensor_flatten__"):
            names, _ = thing.__tensor_flatten__()
            yield from chain.from_iterable(_plain(getattr(thing, name)) for name in names)
        elif thing.device.type != "meta":
            yield thing.data
        if _is_of_a_library(thing):
            yield from chain.from_iterable(map(_plain, vars(thing).values()))
    elif isinstance(thing, Mapping):
        yield from chain.from_iterable(map(_plain, thing.values()))
    elif isinstance(thing, (list, tuple)):
        yield from chain.from_iterable(map(_plain, thing))
    elif _is_of_a_library(thing):
        yield from chain.from_iterable(map(_plain, vars(thing).values()))


def _is_of_a_library(thing: Any) -> bool:
    return f"{type(thing).__module__}.".startswith(_LIBRARIES) and hasattr(thing, "__dict__")
