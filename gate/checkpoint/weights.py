"""Which files of a folder hold the model's weights, and whether all of them are there.

Reads directory entries, JSON and safetensors headers only; never unpickles, never executes, never downloads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gate.checkpoint import safetensors_header, strict_json
from gate.checkpoint.folder import read_bytes, stays_inside
from gate.checkpoint.folder import regular_files as regular_files
from gate.checkpoint.safetensors_header import Tensor
from gate.checkpoint.strict_json import shown
from gate.errors import CheckpointError, Refused

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_JSON_BYTES = 50 * 2**20
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint.  Raises CheckpointError, and Refused as `strict_json.parse`."""
    return json_object(read_bytes(path, limit_bytes=MAX_JSON_BYTES), path)


def json_object(raw: bytes, path: Path) -> dict[str, Any]:
    """The object that the bytes of `path` hold.  Raises as `read_json`."""
    found = strict_json.parse(raw, str(path))
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, expected a JSON object")
    return found


def files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that a loader reads, sorted.

    Raises:
        CheckpointError: weights or shards are missing, or it is unclear which files count.
        Refused: weights exist as pickles only (loading runs code), or the index points out of the folder.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() and index.is_file():
        raise CheckpointError(
            f"{folder} holds both {SINGLE} and {INDEX}, and loaders disagree on which one counts: remove one of them"
        )
    if single.is_file():
        return (single,)
    if index.is_file():
        return _sharded(folder, index)
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    shards = [name for name in others if _SHARD.search(name)]
    if shards:
        raise CheckpointError(f"{folder} holds {shards[0]} but no {INDEX}: the download is incomplete, repeat it")
    if "adapter_model.safetensors" in others:
        raise CheckpointError(f"{folder} holds an adapter, expected a whole model: merge it into its base model first")
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PICKLES)
    if pickles:
        raise Refused(
            f"{folder} has its weights only as {pickles[0]}, a pickle that runs code when loaded: "
            "convert them to safetensors in a place you trust"
        )
    found = f"found {', '.join(others)}" if others else "found no weights"
    raise CheckpointError(
        f"{folder}: {found}, expected {SINGLE} or {INDEX}: download the checkpoint again, or, if it holds its weights "
        "only in another format such as pickles (which are never downloaded), name one that has safetensors"
    )


def tensors(weight_files: tuple[Path, ...]) -> tuple[tuple[Path, Tensor], ...]:
    """Every tensor with its file.  Raises as `safetensors_header.read`, and Refused for a name in two shards."""
    seen: dict[str, Path] = {}
    found = []
    for path in weight_files:
        for tensor in safetensors_header.read(path):
            if tensor.name in seen:
                raise Refused(
                    f"tensor {shown(tensor.name)} is in {seen[tensor.name].name} and in {path.name}, expected once"
                )
            seen[tensor.name] = path
            found.append((path, tensor))
    if not found:
        raise CheckpointError(f"{weight_files[0]} holds no tensors, expected a model's weights")
    return tuple(found)


def _sharded(folder: Path, index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} has no usable weight_map, expected tensor names with their files")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not stays_inside(name) or not name.endswith(".safetensors"):
            raise Refused(f"{index} points to {shown(name)}, expected safetensors files inside the checkpoint's folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(names)} weight files named in {INDEX} are missing, first {missing[0]}: "
            "finish or repeat the download"
        )
    paths = tuple(folder / name for name in names)
    held = {name: {t.name for t in safetensors_header.read(path)} for name, path in zip(names, paths, strict=True)}
    for tensor, name in weight_map.items():
        if tensor not in held[name]:
            raise CheckpointError(
                f"{index} places {shown(tensor)} in {name}, which does not hold it: "
                "the shards are from different exports"
            )
    return paths
