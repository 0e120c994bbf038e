"""Which files of a folder hold the model's weights, and whether all of them are there.

Reads directory entries, JSON and safetensors headers only; never unpickles, never executes, never downloads.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from gate.checkpoint import safetensors_header
from gate.checkpoint.safetensors_header import Tensor
from gate.errors import CheckpointError, Refused

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_JSON_BYTES = 50 * 2**20
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
_SKIPPED_FOLDERS = frozenset({".git", ".cache"})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint.  Raises CheckpointError."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_JSON_BYTES} bytes, expected a small JSON file")
        raw = path.read_bytes()
        found = json.loads(raw)
    except FileNotFoundError as problem:
        raise CheckpointError(f"{path} is missing: the checkpoint is incomplete, download it again") from problem
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as problem:
        raise CheckpointError(f"{path} is not readable JSON ({problem}): download it again") from problem
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, expected a JSON object")
    return found


def regular_files(folder: Path) -> Iterator[Path]:
    """Every file that belongs to the checkpoint, sorted; version control and download caches are left out.

    Raises:
        CheckpointError: a download is unfinished, or a link leads nowhere.
        Refused: something that is neither a file nor a folder (a pipe would block whoever reads it).
    """
    unfinished = sorted(p.name for p in folder.rglob("*.incomplete") if ".git" not in p.parts)
    if unfinished:
        raise CheckpointError(
            f"{folder} holds {unfinished[0]}: a download is unfinished, complete it with `gate fetch`"
        )
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if _SKIPPED_FOLDERS.intersection(inside.parts):
            continue
        if path.is_dir():
            if path.is_symlink():
                raise Refused(
                    f"{path} is a link to a folder, expected a checkpoint to hold its own files: copy them in"
                )
        elif path.is_file():
            yield path
        elif path.is_symlink():
            raise CheckpointError(f"{path} is a link to {path.readlink()}, which is not there: download it again")
        else:
            raise Refused(f"{path} is neither a file nor a folder, expected a checkpoint to hold only those: remove it")


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
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise Refused(
            f"{folder} has its weights only as {pickles[0]}, a pickle that runs code when loaded: "
            "convert them to safetensors in a place you trust"
        )
    found = f"found {', '.join(others)}" if others else "found no weights"
    raise CheckpointError(f"{folder}: {found}, expected {SINGLE} or {INDEX}: download the checkpoint again")


def tensors(weight_files: tuple[Path, ...]) -> tuple[tuple[Path, Tensor], ...]:
    """Every tensor with its file.  Raises as `safetensors_header.read`, and Refused for a name in two shards."""
    seen: dict[str, Path] = {}
    found = []
    for path in weight_files:
        for tensor in safetensors_header.read(path):
            if tensor.name in seen:
                raise Refused(
                    f"tensor {tensor.name!r} is in {seen[tensor.name].name} and in {path.name}, expected once"
                )
            seen[tensor.name] = path
            found.append((path, tensor))
    if not found:
        raise CheckpointError(f"{weight_files[0]} holds no tensors, expected a model's weights")
    return tuple(found)


def unpacked_shapes(found: tuple[tuple[Path, Tensor], ...]) -> dict[str, tuple[int, ...]]:
    """The shapes that compressed-tensors stores beside packed weights (`M.weight_shape`), by module M."""
    shapes = {}
    for path, tensor in found:
        if tensor.name.endswith(".weight_shape") and tensor.dtype == "I64" and tensor.numel <= 4:
            with path.open("rb") as file:
                file.seek(tensor.begin)
                shapes[tensor.name.removesuffix(".weight_shape")] = struct.unpack(
                    f"<{tensor.numel}q", file.read(tensor.end - tensor.begin)
                )
    return shapes


def _sharded(folder: Path, index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} has no usable weight_map, expected tensor names with their files")
    names = sorted(set(weight_map.values()))
    for name in names:
        pure = PurePosixPath(name)
        outside = pure.is_absolute() or "\\" in name or {"..", *_SKIPPED_FOLDERS}.intersection(pure.parts)
        if outside or not name.endswith(".safetensors"):
            raise Refused(f"{index} points to {name!r}, expected safetensors files inside the checkpoint's folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(names)} weight files named in {INDEX} are missing, first {missing[0]}: "
            "finish or repeat the download"
        )
    paths = tuple(folder / name for name in names)
    held = {tensor.name: path.name for path in paths for tensor in safetensors_header.read(path)}
    for tensor, name in weight_map.items():
        if held.get(tensor) != name:
            raise CheckpointError(
                f"{index} places {tensor!r} in {name}, which does not hold it: the shards are from different exports"
            )
    return paths
