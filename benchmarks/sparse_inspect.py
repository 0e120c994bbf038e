"""How long `gate inspect` takes on a 70 B checkpoint: real headers of a Llama, sparse files of the full size.

    python benchmarks/sparse_inspect.py [--shards 30] [--folder DIR]

The files take no disk space: their bytes are holes, and inspecting must not read them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

LAYERS, HIDDEN, INNER, VOCABULARY, KV = 80, 8192, 28672, 128256, 1024
GROUP = 128
BYTES = {"BF16": 2, "I32": 4, "I64": 8}
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
SCHEME = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
QUANTIZATION = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": SCHEME, "input_activations": None}},
    "ignore": ["lm_head"],
    "kv_cache_scheme": None,
}
Named = tuple[str, str, tuple[int, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="where to put the checkpoints for a while; default: the system's")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        print("| checkpoint | tensors | size | disk used | seconds | of them computing |\n|---|---|---|---|---|---|")
        base = sparse_llama(Path(folder) / "bf16", packed=False, shards=chosen.shards)
        w4a16 = sparse_llama(Path(folder) / "w4a16", packed=True, shards=chosen.shards)
        against = ["--baseline", base]
        for name, path, extra in (("BF16", base, []), ("W4A16", w4a16, []), ("W4A16 against BF16", w4a16, against)):
            files = list(path.glob("*.safetensors"))
            size = sum(f.stat().st_size for f in files)
            used = sum(f.stat().st_blocks * 512 for f in files)
            index = json.loads((path / "model.safetensors.index.json").read_text())
            wall, processor = min(timed(["inspect", path, *extra]) for _ in range(3))
            n = len(index["weight_map"])
            print(f"| {name} | {n:,} | {size / 1e9:.1f} GB | {used / 1e6:.1f} MB | {wall:.2f} | {processor:.2f} |")


def timed(arguments: list[Any]) -> tuple[float, float]:
    """(seconds on the wall, seconds of the processor): on a busy machine only the second means much."""
    begun, before = perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "gate", *map(str, arguments)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return perf_counter() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sparse_llama(folder: Path, *, packed: bool, shards: int) -> Path:
    """A Llama of 70 billion parameters whose tensors are holes; only the shapes of packed weights are written."""
    folder.mkdir(parents=True)
    listed = list(tensors(packed=packed))
    weight_map = {}
    for i in range(shards):
        held = listed[i * len(listed) // shards : (i + 1) * len(listed) // shards]
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        weight_map |= dict.fromkeys((n for n, _, _ in held), name)
        write_sparse(folder / name, held)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0},
        "tie_word_embeddings": False,
    }
    if packed:
        config["quantization_config"] = QUANTIZATION
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = {f"token{i}": i for i in range(VOCABULARY)}
    tokenizer = {"added_tokens": [], "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def tensors(*, packed: bool) -> Iterator[Named]:
    """Names, dtypes and shapes in the order of the model."""
    yield "model.embed_tokens.weight", "BF16", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name, (n_out, n_in) in LINEAR.items():
            if packed:
                yield f"{prefix}.{name}.weight_packed", "I32", (n_out, n_in // 8)
                yield f"{prefix}.{name}.weight_scale", "BF16", (n_out, n_in // GROUP)
                yield f"{prefix}.{name}.weight_shape", "I64", (2,)
            else:
                yield f"{prefix}.{name}.weight", "BF16", (n_out, n_in)
        yield f"{prefix}.input_layernorm.weight", "BF16", (HIDDEN,)
        yield f"{prefix}.post_attention_layernorm.weight", "BF16", (HIDDEN,)
    yield "model.norm.weight", "BF16", (HIDDEN,)
    yield "lm_head.weight", "BF16", (VOCABULARY, HIDDEN)


def write_sparse(path: Path, held: list[Named]) -> None:
    """A safetensors file: its header, holes in the place of the tensors, and the shapes of packed weights."""
    entries, position, noted = {}, 0, []
    for name, dtype, shape in held:
        n_bytes = BYTES[dtype]
        for n in shape:
            n_bytes *= n
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + n_bytes]}
        if name.endswith(".weight_shape"):
            kind = name.removesuffix(".weight_shape").split(".", 3)[3]
            noted.append((position, struct.pack("<2q", *LINEAR[kind])))
        position += n_bytes
    raw = json.dumps(entries).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for place, content in noted:
            file.seek(8 + len(raw) + place)
            file.write(content)
    os.truncate(path, 8 + len(raw) + position)


if __name__ == "__main__":
    main()
