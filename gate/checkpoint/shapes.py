"""Do the sizes that config.json promises agree with the tensors that are there?

Looks at names and shapes alone: a loader builds what the configuration promises before it reads a single tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gate.checkpoint.safetensors_header import BITS, Tensor
from gate.checkpoint.strict_json import shown
from gate.errors import CheckpointError, Refused

_LAYERS = frozenset({"num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"})
_WIDTHS = frozenset({"hidden_size", "n_embd", "d_model", "embedding_size", "word_embed_proj_dim", "emb_dim"})
_VOCABULARY = frozenset({"vocab_size"})
_OTHERS = frozenset(
    "intermediate_size moe_intermediate_size ffn_dim d_ff n_inner head_dim num_attention_heads num_key_value_heads "
    "n_head num_heads num_experts num_local_experts n_routed_experts".split()
)
_OTHER_TOWERS = re.compile("vision|visual|audio|image|speech|mtp")
"""Parts of a model, and of its configuration, that have widths and layers of their own."""

_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d{1,9})\.")
_FULL_PRECISION = frozenset({"F64", "F32", "F16", "BF16"})


def check(config: Mapping[str, Any], tensors: Iterable[Tensor], where: Path) -> None:
    """`where` is the configuration's file.

    Raises:
        CheckpointError: a size is no size.
        Refused: the configuration promises a larger vocabulary, another width or more than the tensors hold.
    """
    sizes = {name: set(_sizes(config, name, where)) for name in sorted(_LAYERS | _WIDTHS | _VOCABULARY | _OTHERS)}
    own = [t for t in tensors if not _OTHER_TOWERS.search(t.name)]
    room = sum(t.numel * BITS[t.dtype] for t in own)  # no weight takes less than a bit
    for name, found in sizes.items():
        if found and max(found) > room:
            raise Refused(
                f"{where} promises {name} {max(found)}, and all tensors together have {room} bits: they do not fit it"
            )
    for tensor in own:
        if _EMBEDDING.search(tensor.name) and tensor.dtype in _FULL_PRECISION and len(tensor.shape) == 2:
            rows, width = tensor.shape
            vocabulary, widths = _all(sizes, _VOCABULARY), _all(sizes, _WIDTHS)
            if vocabulary and rows < min(vocabulary):  # more of them are padding, or tokens of images
                raise _misfit("vocab_size", vocabulary, tensor, where)
            if widths and width not in widths:
                raise _misfit("hidden_size", widths, tensor, where)
    _check_layers(_all(sizes, _LAYERS), own, where)


def _misfit(words: str, promised: set[int], tensor: Tensor, where: Path) -> Refused:
    return Refused(
        f"{where} promises {words} {' or '.join(map(str, sorted(promised)))}, and the embedding "
        f"{shown(tensor.name)} is {'x'.join(map(str, tensor.shape))}: they are not of one model"
    )


def _check_layers(promised: set[int], tensors: list[Tensor], where: Path) -> None:
    numbers = {int(n) for t in tensors for n in _LAYER.findall(t.name)}
    if promised and numbers and max(promised) > len(numbers):
        raise Refused(f"{where} promises {max(promised)} layers, and the tensors hold {len(numbers)} of them")


def _all(sizes: Mapping[str, set[int]], names: Iterable[str]) -> set[int]:
    return {size for name in names for size in sizes[name]}


def _sizes(config: Mapping[str, Any], name: str, where: Path) -> Iterator[int]:
    """What the language model's part of a configuration says of a size: one number, or one per layer."""
    for key, value in config.items():
        if isinstance(value, dict) and key.endswith("_config") and not _OTHER_TOWERS.search(key):
            yield from _sizes(value, name, where)
        elif key == name and value is not None:
            for number in value if isinstance(value, list) else [value]:
                if type(number) is not int or number < 0:
                    raise CheckpointError(f"{where} promises {name} {shown(number)}, expected a whole number")
                yield number
