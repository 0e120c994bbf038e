"""What the weights of a loaded vLLM model take, what a decoding step reads of them, and what a token computes.

On CPUs vLLM's kernels pack matrices into memory of their own and empty, or keep, the parameters they were loaded into:
both are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

_FEWEST_PACKED = 8
"""Numbers of the narrowest format with a kernel on CPUs, 4 bits, that one stored int32 holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Of one process.  What a step reads and computes is None for a mixture of experts: it depends on the tokens."""

    bytes: int
    read_bytes: int | None
    flops_per_token: int | None


def weights(model: Any) -> Weights:
    """Of a model, or the part of one, that this process holds."""
    from vllm.model_executor.layers.linear import LinearBase
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    modules = list(model.modules())
    has_head = any(isinstance(module, ParallelLMHead) for module in modules)
    is_mixture = any("moe" in type(module).__name__.lower() for module in modules)
    held = read = elements = 0
    seen: set[int] = set()  # tied weights are one tensor in two modules
    for module in modules:
        own = list(module.parameters(recurse=False))
        tensors = [t for t in (*own, *module.buffers(recurse=False)) if id(t) not in seen]
        seen |= {id(t) for t in tensors}
        is_table = isinstance(module, VocabParallelEmbedding)
        multiplies = isinstance(module, LinearBase) or (
            is_table and (isinstance(module, ParallelLMHead) or not has_head)
        )
        size = _elements(module) if isinstance(module, LinearBase) or is_table else 0
        packed = _packed_bytes(module, own, size)
        held += _bytes(tensors) + packed
        elements += size if isinstance(module, LinearBase) else 0
        if multiplies or not (is_table or isinstance(module, torch.nn.Embedding)):
            left_aside = [module.weight] if packed and getattr(module, "weight", None) is not None else []
            read += _bytes(own) - _bytes(left_aside) + packed
    return Weights(
        bytes=held,
        read_bytes=None if is_mixture else read,
        flops_per_token=None if is_mixture else 2 * elements,
    )


def _elements(module: Any) -> int:
    """Of the matrix of a linear layer or a table of tokens, or of this process's part of it."""
    if hasattr(module, "embedding_dim"):
        return int(module.num_embeddings_per_partition) * int(module.embedding_dim)
    rows = getattr(module, "input_size_per_partition", module.input_size)
    columns = getattr(module, "output_size_per_partition", module.output_size)
    return int(rows) * int(columns)


def _packed_bytes(module: Any, own: Iterable[torch.Tensor], elements: int) -> int:
    """What a CPU kernel packed of a matrix for itself, outside of the module's own tensors."""
    if elements == 0 or any(t.device.type != "cpu" for t in own):
        return 0
    if hasattr(module, "cpu_linear"):
        keeps = getattr(module.cpu_linear, "__closure__", None) is not None  # else it multiplies the parameter itself
        return elements * int(module.weight.element_size()) if keeps else 0
    stored = sum(t.numel() for t in own)
    return elements if stored * _FEWEST_PACKED < elements else 0  # 8-bit weights: the parameter was taken away


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
