"""One file of a folder that somebody else filled: its bytes, or a sentence why it is not read.

Reads; follows no link, opens nothing but plain files, and takes no more than it was told to.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gate.errors import ArtifactError


def read_file(path: Path, *, limit_bytes: int) -> bytes:
    """The whole file.

    Raises:
        ArtifactError: it is missing, a link, a device or a pipe, shared with another name, or larger than the limit.
    """
    try:
        # a pipe without a writer must not make us wait, a link must not lead us elsewhere
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ArtifactError(f"found no {path.name}, expected the output folder of gate run") from None
    except OSError as problem:
        if path.is_symlink():
            raise ArtifactError(f"{path.name} is a link, expected a file: it was not read") from problem
        raise ArtifactError(f"{path.name} cannot be read ({problem.strerror}), expected a file") from problem
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ArtifactError(f"{path.name} is not a plain file: it was not read")
        if found.st_nlink > 1:
            raise ArtifactError(f"{path.name} has another name as well (a hard link): it was not read")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit_bytes + 1)
    except OSError as problem:
        raise ArtifactError(f"{path.name} cannot be read ({problem.strerror}), expected a file") from problem
    finally:
        os.close(descriptor)
    if len(data) > limit_bytes:
        raise ArtifactError(f"{path.name} has more than {limit_bytes:,} bytes: it was not read")
    return data


def is_folder(path: Path) -> bool:
    """A folder itself, no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False
