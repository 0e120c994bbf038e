"""Spoilt weights: safetensors files and indices that lie, break off, point elsewhere or are not there at all."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

from tests.checkpoint_factory import with_header
from tests.zoo.cage import (
    SHARDS,
    full_precision,
    pickled,
    refused,
    safetensors,
    sharded,
    unusable,
    with_index,
    with_weights,
)

TWO = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@refused("only as pytorch_model.bin, a pickle that runs code")
def pickle_only(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(canary))


@refused("only as model.CKPT, a pickle")
def pickle_in_capital_letters(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.CKPT").write_bytes(pickled(canary))


@refused("is a pickle that runs code when loaded, whatever its name says")
def pickle_called_safetensors(folder: Path, canary: Path) -> None:
    with_weights(folder, pickled(canary))


@unusable("found no weights, expected model.safetensors")
def no_weights(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()


@unusable("has 0 bytes, expected a safetensors file")
def empty_file(folder: Path, canary: Path) -> None:
    with_weights(folder, b"")


@unusable("holds no tensors, expected a model's weights")
def file_without_tensors(folder: Path, canary: Path) -> None:
    with_weights(folder, with_header({"__metadata__": {"format": "pt"}}, b""))


@unusable("is a git-lfs pointer")
def git_lfs_pointer(folder: Path, canary: Path) -> None:
    with_weights(folder, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")


@unusable("is truncated: found 1000 bytes")
def truncated_file(folder: Path, canary: Path) -> None:
    with_weights(folder, (folder / "model.safetensors").read_bytes()[:1000])


@refused(f"announces a header of {2**63} bytes")
def header_of_eight_exabytes(folder: Path, canary: Path) -> None:
    with_weights(folder, struct.pack("<Q", 2**63) + b"{}")


@refused("announces a header of 10485761 bytes")
def header_over_ten_megabytes(folder: Path, canary: Path) -> None:
    raw = b"{}".ljust(10 * 2**20 + 1)
    with_weights(folder, struct.pack("<Q", len(raw)) + raw)


@unusable("its header promises 5008")
def header_longer_than_the_file(folder: Path, canary: Path) -> None:
    with_weights(folder, struct.pack("<Q", 5000) + b"{}" * 10)


@unusable("is not readable JSON (Expecting property name")
def header_is_not_json(folder: Path, canary: Path) -> None:
    with_weights(folder, struct.pack("<Q", 8) + b"{tensors")


@unusable("has a header that is no JSON object")
def header_is_a_list(folder: Path, canary: Path) -> None:
    with_weights(folder, struct.pack("<Q", 2) + b"[]")


@refused("the header of ~ is nested deeper than 64 levels")
def header_nested_deeply(folder: Path, canary: Path) -> None:
    raw = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    with_weights(folder, struct.pack("<Q", len(raw)) + raw)


@refused("names 'w' twice in one object")
def header_names_a_tensor_twice(folder: Path, canary: Path) -> None:
    entry = json.dumps(TWO).encode()
    raw = b'{"w":' + entry + b',"w":' + entry + b"}"
    with_weights(folder, struct.pack("<Q", len(raw)) + raw + bytes(8))


@refused("'w' begins at byte 74, expected 70")
def hole(folder: Path, canary: Path) -> None:
    with_weights(folder, with_header({"w": TWO | {"data_offsets": [4, 12]}}, bytes(12)))


@refused("'b' begins at byte ~ the file has a hole or an overlap")
def overlap(folder: Path, canary: Path) -> None:
    with_weights(folder, with_header({"a": TWO, "b": TWO | {"data_offsets": [4, 12]}}, bytes(12)))


@refused("candidate/model.safetensors has ~ unexplained bytes at the end")
def trailing_bytes(folder: Path, canary: Path) -> None:
    with_weights(folder, safetensors(full_precision()) + pickled(canary))


@refused(r"'shape': [-1, -2] ~ do not fit its shape")
def negative_shape(folder: Path, canary: Path) -> None:
    with_weights(folder, with_header({"w": TWO | {"shape": [-1, -2]}}, bytes(8)))


@refused(r"has the shape [9223372036854775808, 0], which no model has")
def shape_that_overflows(folder: Path, canary: Path) -> None:
    with_weights(folder, with_header({"w": TWO | {"shape": [2**63, 0], "data_offsets": [0, 0]}}, b""))


@refused(r"'shape': [3] ~ do not fit its shape")
def shape_against_bytes(folder: Path, canary: Path) -> None:
    with_weights(folder, with_header({"w": TWO | {"shape": [3]}}, bytes(8)))


@refused(r"'dtype': 'PICKLE' ~ expected a known dtype")
def unknown_dtype(folder: Path, canary: Path) -> None:
    with_weights(folder, with_header({"w": TWO | {"dtype": "PICKLE"}}, bytes(8)))


@refused("the header of ~ holds a number with thousands of digits")
def offset_of_five_thousand_digits(folder: Path, canary: Path) -> None:
    raw = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,' + b"9" * 5000 + b"]}}"
    with_weights(folder, struct.pack("<Q", len(raw)) + raw + bytes(8))


@refused(r"tensor '\x1b[2J\n::error::gone'")
def tensor_name_that_clears_the_screen(folder: Path, canary: Path) -> None:
    with_weights(folder, with_header({"\x1b[2J\n::error::gone": TWO | {"shape": [5]}}, bytes(8)))


@unusable("loaders disagree on which one counts: remove")
def single_and_sharded(folder: Path, canary: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    sharded(folder)
    with_weights(folder, whole)


@unusable("1 of 2 weight files named in")
def shard_missing(folder: Path, canary: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


@unusable("but no model.safetensors.index.json")
def index_missing(folder: Path, canary: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").unlink()


@unusable("which does not hold it: the shards are from different exports")
def shards_of_two_exports(folder: Path, canary: Path) -> None:
    sharded(folder)
    first, second = SHARDS
    shutil.copy(folder / first, folder / second)


@refused("is in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors, expected once")
def tensor_in_two_shards(folder: Path, canary: Path) -> None:
    sharded(folder)
    second = "model-00002-of-00002.safetensors"
    held = {n: full_precision()[n] for n in (*SHARDS[second], "model.norm.weight")}
    (folder / second).write_bytes(safetensors(held))


@refused("points to '../baseline/model.safetensors'")
def index_points_to_the_baseline(folder: Path, canary: Path) -> None:
    with_index(folder, "../baseline/model.safetensors")


@refused("points to '/etc/passwd.safetensors'")
def index_with_an_absolute_path(folder: Path, canary: Path) -> None:
    with_index(folder, "/etc/passwd.safetensors")


@refused("points to 'weights.bin'")
def index_of_pickles(folder: Path, canary: Path) -> None:
    (folder / "weights.bin").write_bytes(pickled(canary))
    with_index(folder, "weights.bin")


@refused("points to '" + "a" * 119 + "…")
def index_with_an_endless_name(folder: Path, canary: Path) -> None:
    with_index(folder, "a" * 100_000 + ".safetensors")


@unusable("has no usable weight_map")
def index_without_a_map(folder: Path, canary: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": ["a.safetensors"]}}')


@unusable("holds an adapter, expected a whole model")
def adapter_only(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


@refused(r"names a tensor 'm.a\n::error::b.weight', expected at most 1000 printable characters")
def name_that_commands_a_build_server(folder: Path, canary: Path) -> None:
    with_weights(folder, safetensors(full_precision() | {"m.a\n::error::b.weight": ("F32", (1,), bytes(4))}))


@refused("names a tensor 'wwwwwwwwww ~ …, expected at most 1000 printable characters")
def name_without_end(folder: Path, canary: Path) -> None:
    with_weights(folder, safetensors(full_precision() | {"w" * 5000: ("F32", (1,), bytes(4))}))
