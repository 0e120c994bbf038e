"""Checkpoint folders for tests: a few small tensors, configurations and tokenizers, written by hand.

Builders only; nothing here is loaded by a model library.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gate.checkpoint import ResolvedCheckpoint
from gate.checkpoint.safetensors_header import BITS

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]
"""Name → (dtype, shape, bytes)."""

HIDDEN, VOCABULARY = 8, 6
PACKED_W4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 4},
            "input_activations": None,
        }
    },
    "kv_cache_scheme": None,
}


def filled(dtype: str, shape: tuple[int, ...], byte: int) -> tuple[str, tuple[int, ...], bytes]:
    """A tensor of which every byte is `byte`."""
    size = BITS[dtype]
    for n in shape:
        size *= n
    return dtype, shape, bytes([byte]) * (size // 8)


def full_precision(byte: int = 1, dtype: str = "F32") -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """176 parameters: an embedding, an output head, a norm, one linear layer with a matrix and a bias."""
    return {
        "model.embed_tokens.weight": filled(dtype, (VOCABULARY, HIDDEN), 9),
        "model.layers.0.mlp.up.weight": filled(dtype, (HIDDEN, HIDDEN), byte),
        "model.layers.0.mlp.up.bias": filled(dtype, (HIDDEN,), 3),
        "model.norm.weight": filled(dtype, (HIDDEN,), 5),
        "lm_head.weight": filled(dtype, (VOCABULARY, HIDDEN), 7),
    }


def packed_w4() -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The same 176 parameters with the matrix in 4 bits."""
    tensors = full_precision()
    del tensors["model.layers.0.mlp.up.weight"]
    tensors["model.layers.0.mlp.up.weight_packed"] = filled("I32", (HIDDEN, 1), 0x5A)
    tensors["model.layers.0.mlp.up.weight_scale"] = filled("F32", (HIDDEN, 2), 4)
    tensors["model.layers.0.mlp.up.weight_shape"] = ("I64", (2,), struct.pack("<2q", HIDDEN, HIDDEN))
    return tensors


def safetensors(tensors: Tensors) -> bytes:
    """One safetensors file."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    entries: dict[str, Any] = dict(header)
    for name, (dtype, shape, content) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return with_header(entries, data)


def with_header(entries: Mapping[str, Any], data: bytes) -> bytes:
    """A safetensors file with a header that may lie."""
    raw = json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def gguf(tensors: Mapping[str, tuple[tuple[int, ...], int, int]]) -> bytes:
    """A GGUF file; tensors are (shape, ggml type, bytes)."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 3)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("<s>") + text("a")
    head += text("tokenizer.ggml.scores") + struct.pack("<IIQ2f", 9, 6, 2, 0.0, 1.0)
    offset = 0
    for name, (shape, kind, n_bytes) in tensors.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += -(-n_bytes // 32) * 32
    return head + bytes(-len(head) % 32) + bytes(offset)


def tokenizer_json(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel"},
        "post_processor": None,
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5},
            "merges": [["a", "b"], ["b", "c"]],
        },
    }
    return document | changes


def write_checkpoint(
    folder: Path,
    tensors: Tensors | None = None,
    *,
    quantization: Mapping[str, Any] | None = None,
    architecture: str = "LlamaForCausalLM",
    tokenizer: Mapping[str, Any] | None = None,
    tokenizer_config: Mapping[str, Any] | None = None,
    shards: Mapping[str, tuple[str, ...]] | None = None,
) -> Path:
    """A whole checkpoint; `shards` maps file names to the tensors they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = full_precision() if tensors is None else tensors
    config: dict[str, Any] = {"architectures": [architecture], "model_type": "llama"}
    if quantization is not None:
        config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer or tokenizer_json()))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config or {"bos_token": "<s>"}))
    if shards is None:
        (folder / "model.safetensors").write_bytes(safetensors(tensors))
        return folder
    for name, held in shards.items():
        (folder / name).write_bytes(safetensors({n: tensors[n] for n in held}))
    weight_map = {n: name for name, held in shards.items() for n in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def resolved(folder: Path, **changes: Any) -> ResolvedCheckpoint:
    fields: dict[str, Any] = {
        "path": folder,
        "load": {},
        "dtype": "auto",
        "tokenizer": None,
        "uri": folder.name,
        "revision": None,
    }
    return ResolvedCheckpoint(**fields | changes)
