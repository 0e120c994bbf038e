"""Spoilt folders: links, pipes, devices and names that are no files of a checkpoint."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from tests.zoo.cage import refused, unusable


def instead(folder: Path, name: str) -> Path:
    """The place of a file that is taken away."""
    (folder / name).unlink()
    return folder / name


@refused("is a link out of the checkpoint, to '/etc/passwd'")
def tokenizer_linked_to_etc(folder: Path, canary: Path) -> None:
    instead(folder, "tokenizer.json").symlink_to("/etc/passwd")


@refused("is a link out of the checkpoint, to ' ~ baseline/model.safetensors'")
def weights_linked_to_the_baseline(folder: Path, canary: Path) -> None:
    instead(folder, "model.safetensors").symlink_to("../baseline/model.safetensors")


@refused("is a link that leads in a circle")
def links_in_a_circle(folder: Path, canary: Path) -> None:
    instead(folder, "config.json").symlink_to("tokenizer_config.json")
    instead(folder, "tokenizer_config.json").symlink_to("config.json")


@unusable("is a link to gone.json, which is not there")
def link_to_nothing(folder: Path, canary: Path) -> None:
    instead(folder, "config.json").symlink_to("gone.json")


@refused("is a link to a folder")
def link_to_a_folder(folder: Path, canary: Path) -> None:
    (folder / "sub").symlink_to("/etc")


@refused("config.json is neither a file nor a folder but a pipe")
def configuration_is_a_pipe(folder: Path, canary: Path) -> None:
    os.mkfifo(instead(folder, "config.json"))


@refused("model.safetensors is neither a file nor a folder but a pipe")
def weights_are_a_pipe(folder: Path, canary: Path) -> None:
    os.mkfifo(instead(folder, "model.safetensors"))


@refused("neither a file nor a folder but a socket")
def a_socket(folder: Path, canary: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
    finally:
        os.chdir(here)


@refused("neither a file nor a folder but a device")
def a_device(folder: Path, canary: Path) -> None:
    try:
        os.mknod(instead(folder, "tokenizer.json"), stat.S_IFCHR | 0o666, os.makedev(1, 5))  # endless zeros
    except PermissionError:
        pytest.skip("only root can make a device")


@refused("is a hard link: the file has another name outside the checkpoint")
def weights_with_another_name_elsewhere(folder: Path, canary: Path) -> None:
    os.link(folder / "model.safetensors", folder.parent / "other-name")


@refused(r"holds 'a\nb.json', a name that cannot be printed")
def name_with_a_line_break(folder: Path, canary: Path) -> None:
    (folder / "a\nb.json").write_text("{}")


@refused(r"holds '\x1b]0;owned\x07.json', a name")
def name_that_commands_the_terminal(folder: Path, canary: Path) -> None:
    (folder / "\x1b]0;owned\x07.json").write_text("{}")


@refused(r"holds '\udcff\udcfe.bin', a name")
def name_that_is_no_text(folder: Path, canary: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.bin")).write_bytes(b"")


@unusable("a download is unfinished")
def download_under_way(folder: Path, canary: Path) -> None:
    parts = folder / ".cache" / "huggingface" / "download"
    parts.mkdir(parents=True)
    (parts / "model.safetensors.incomplete").write_bytes(b"")


@unusable("there is no folder")
def nothing_there(folder: Path, canary: Path) -> None:
    shutil.rmtree(folder)
