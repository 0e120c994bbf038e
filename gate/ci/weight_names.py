"""Names of a folder's files → do some of them look like a model's weights, in whatever format?

Pure: knows names alone, in any mixture of capitals, and opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gate.checkpoint.view import CONFIGURATIONS
from gate.checkpoint.weights import PICKLES

_SHARED = (".bin", ".pkl", ".pickle", ".h5", ".hdf5", ".msgpack", ".npz")
"""Formats of many things: they count beside a model's configuration, or with a name that weights have."""

_OF_MODELS = (
    *(".safetensors", ".gguf", ".ggml", ".llamafile", ".tensors", ".distcp"),
    *(suffix for suffix in PICKLES if suffix not in _SHARED),
    *(".pt2", ".ptl", ".pte", ".nemo", ".onnx", ".onnx_data", ".tflite", ".keras", ".pdparams"),
)
_CONFIGURATIONS = frozenset({*CONFIGURATIONS, "adapter_config.json", "tokenizer.json", "params.json"})
_INDEX = ".index.json"
_WRAPPED = re.compile(r"(?:\.index(?:\.\w+)?\.json|\.(?:gz|bz2|xz|zst|lz4|zip|\d{1,5})|[.-]part[\w.-]*)\Z")
_TELLING = re.compile(
    r"model|weight|adapter|lora|consolidated|param|checkpoint|ckpt|pytorch|torch|flax|ggml|shard|quant|llama"
    r"|\d{2,}-of-\d{2,}|(?:^|[._-])[qw]\d|\dbit"
)


def holds_weights(names: Sequence[str]) -> bool:
    """Whether one of the files in a folder could be a model's weights, a list of their parts, or a part of them."""
    plain = [name.casefold() for name in names]
    configured = is_configured(plain)
    for name in plain:
        bare = _WRAPPED.sub("", name)
        if bare.endswith(_OF_MODELS) or (configured and name.endswith(_INDEX)):
            return True
        if bare.endswith(_SHARED) and (configured or _TELLING.search(bare)):
            return True
    return False


def is_configured(names: Sequence[str]) -> bool:
    """Whether a model's configuration or tokenizer lies in the folder, so that it is more than a folder of files."""
    return any(name.casefold() in _CONFIGURATIONS for name in names)
