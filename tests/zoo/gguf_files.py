"""Spoilt GGUF files: headers that promise what is not there, and lengths that would take all memory."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.zoo.cage import refused, unusable

NAME = "m-Q8_0.gguf"
LOAD = {"load": {"gguf_file": NAME}}
TENSORS = {"token_embd.weight": ((64, 4), 8, 272), "output_norm.weight": ((64,), 0, 256)}


def write(folder: Path, content: bytes) -> None:
    (folder / NAME).write_bytes(content)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def with_settings(*settings: tuple[str, bytes]) -> bytes:
    """A GGUF file without fault but for its settings: keys, and types with values."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(TENSORS), 1 + len(settings))
    head += b"".join(text(key) + value for key, value in (("general.architecture", of_text("llama")), *settings))
    offset = 0
    for name, (shape, kind, n_bytes) in TENSORS.items():
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += -(-n_bytes // 32) * 32
    return head + bytes(-len(head) % 32) + bytes(offset)


def of_text(value: str) -> bytes:
    return struct.pack("<I", 8) + text(value)


def one_tensor(shape: tuple[int, ...], kind: int, *, offset: int = 0, data: bytes = b"", times: int = 1) -> bytes:
    """A GGUF file with a tensor that may lie, without settings."""
    head = b"GGUF" + struct.pack("<IQQ", 3, times, 0)
    head += (text("w") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)) * times
    return head + bytes(-len(head) % 32) + data


@unusable("does not begin with GGUF", **LOAD)
def gguf_of_another_kind(folder: Path, canary: Path) -> None:
    write(folder, b"GGML" + bytes(100))


@unusable("is GGUF version 50331648", **LOAD)
def gguf_in_big_endian(folder: Path, canary: Path) -> None:
    write(folder, b"GGUF" + struct.pack(">IQQ", 3, 1, 1))


@refused(f"announces {2**60} tensors", **LOAD)
def gguf_with_endless_tensors(folder: Path, canary: Path) -> None:
    write(folder, b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0))


@unusable(f"a text of {2**62} bytes", **LOAD)
def gguf_with_an_endless_text(folder: Path, canary: Path) -> None:
    write(folder, b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62))


@unusable("an array of 1 values of type 9", **LOAD)
def gguf_with_nested_arrays(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("a", struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100_000)))


@unusable("an array of 1099511627776 values of type 8", **LOAD)
def gguf_with_an_endless_array(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("a", struct.pack("<IIQ", 9, 8, 2**40))))


@unusable("a value of unknown type 99", **LOAD)
def gguf_with_an_unknown_value(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("a", struct.pack("<I", 99))))


@refused("gives 'general.architecture' twice", **LOAD)
def gguf_with_a_setting_twice(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("general.architecture", of_text("mamba"))))


@refused("aligned to 0 bytes", **LOAD)
def gguf_aligned_to_nothing(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("general.alignment", struct.pack("<II", 4, 0))))


@refused("promises llama.block_count 1000000000, and holds 2 tensors", **LOAD)
def gguf_with_a_billion_layers(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("llama.block_count", struct.pack("<II", 4, 10**9))))


@refused("has 9 dimensions", **LOAD)
def gguf_with_nine_dimensions(folder: Path, canary: Path) -> None:
    write(folder, one_tensor((1,) * 9, 0, data=bytes(4)))


@refused("is of ggml type 77", **LOAD)
def gguf_of_an_unknown_type(folder: Path, canary: Path) -> None:
    write(folder, one_tensor((64,), 77, data=bytes(64)))


@refused(r"has the shape (33,), which ggml type 8 cannot hold", **LOAD)
def gguf_with_half_a_block(folder: Path, canary: Path) -> None:
    write(folder, one_tensor((33,), 8, data=bytes(68)))


@refused("'w' begins at byte 160, expected 64", **LOAD)
def gguf_with_a_hole(folder: Path, canary: Path) -> None:
    write(folder, one_tensor((8,), 0, offset=96, data=bytes(128)))


@refused("holds tensor 'w' twice", **LOAD)
def gguf_with_a_tensor_twice(folder: Path, canary: Path) -> None:
    write(folder, one_tensor((8,), 0, data=bytes(32), times=2))


@unusable("tensor 'w' ends at byte 32832, the file at 128", **LOAD)
def gguf_cut_off(folder: Path, canary: Path) -> None:
    write(folder, one_tensor((8192,), 0, data=bytes(64)))


@refused("m-Q8_0.gguf has 800 bytes, its header accounts for 736", **LOAD)
def gguf_with_more_than_it_says(folder: Path, canary: Path) -> None:
    write(folder, with_settings() + bytes(64))


@unusable("found no 'm-Q8_0.gguf'", **LOAD)
def gguf_that_is_not_there(folder: Path, canary: Path) -> None:
    pass


@refused("names gguf_file '../baseline/m.gguf'", load={"gguf_file": "../baseline/m.gguf"})
def gguf_of_the_baseline(folder: Path, canary: Path) -> None:
    (folder.parent / "baseline" / "m.gguf").write_bytes(with_settings())


@refused(r"m-Q8_0.gguf names a tensor 'a\n::error::b'", **LOAD)
def gguf_with_a_name_that_commands_a_build_server(folder: Path, canary: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("a\n::error::b") + struct.pack("<IQIQ", 1, 8, 0, 0)
    write(folder, head + bytes(-len(head) % 32) + bytes(32))


@unusable(f"values of {8 * 2**61} bytes", **LOAD)
def gguf_with_an_array_that_no_file_holds(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("a", struct.pack("<IIQ", 9, 10, 2**61))))


@unusable(f"values of {2**63} bytes", **LOAD)
def gguf_with_a_text_in_an_array_that_no_file_holds(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("a", struct.pack("<IIQQ", 9, 8, 1, 2**63))))


@refused("aligned to True bytes", **LOAD)
def gguf_aligned_to_a_truth(folder: Path, canary: Path) -> None:
    write(folder, with_settings(("general.alignment", struct.pack("<I?", 7, True))))
