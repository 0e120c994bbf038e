"""The files of a checkpoint's folder, each of them a plain file that belongs to it, and their bytes read safely.

Follows no link out of the checkpoint, opens nothing that could block or change, executes nothing.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gate.checkpoint.strict_json import shown
from gate.errors import CheckpointError, Refused

MAX_FILES = 20_000
MAX_NAME_CHARACTERS = 200
SKIPPED_FOLDERS = frozenset({".git", ".cache"})
"""Version control and download caches: no part of the checkpoint, and no loader looks into them."""

_PACKAGE = Path(__file__).resolve().parents[1]


def regular_files(folder: Path) -> Iterator[Path]:
    """Every file that belongs to the checkpoint, sorted; version control and download caches are left out.

    Raises:
        CheckpointError: a download is unfinished, or a link leads nowhere.
        Refused: something that is no file of this checkpoint: a pipe, a device, a socket, a link out of it, a file
            that has a second name elsewhere, a name that cannot be printed.
    """
    found = sorted(_walk(folder))
    downloading = (folder / ".cache").rglob("*.incomplete")  # where `hf download --local-dir` keeps its parts
    unfinished = sorted(path.name for path in (*found, *downloading) if path.suffix == ".incomplete")
    if unfinished:
        raise CheckpointError(
            f"{folder} holds {unfinished[0]}: a download is unfinished, complete it with `gate fetch`"
        )
    root = declared_root(folder)
    names: dict[tuple[int, int], set[str]] = defaultdict(set)
    linked: dict[tuple[int, int], tuple[Path, int]] = {}
    for path in found:
        real, status = _checked(path, folder, root)
        if status.st_nlink > 1 and not real.is_relative_to(_PACKAGE):  # installers hardlink what ships with the gate
            names[status.st_dev, status.st_ino].add(str(real))
            linked[status.st_dev, status.st_ino] = path, status.st_nlink
    for inode, (path, n_links) in linked.items():
        if len(names[inode]) < n_links:
            raise Refused(
                f"{path} is a hard link: the file has another name outside the checkpoint, through which it can "
                f"change after it was checked; put a copy in its place: cp {path.name} x && mv x {path.name}"
            )
    yield from found


def declared_root(folder: Path) -> Path:
    """How far links may lead: the folder, or the hub cache's folder of that repository, which keeps the files."""
    real = folder.resolve()
    repository = real.parent.parent
    is_snapshot = real.parent.name == "snapshots" and repository.name.startswith("models--")
    return repository if is_snapshot else real


def stays_inside(name: str) -> bool:
    """Whether a file name that somebody wrote down stays in the folder that it is relative to, on every system."""
    pure = PurePosixPath(name)
    leaves = pure.is_absolute() or {"..", *SKIPPED_FOLDERS}.intersection(pure.parts) or name.startswith("~")
    return bool(name) and not leaves and name.isprintable() and "\\" not in name and len(name) <= MAX_NAME_CHARACTERS


def read_bytes(path: Path, *, limit_bytes: int) -> bytes:
    """All of a small file.

    Raises:
        CheckpointError: it is missing or unreadable.
        Refused: it is too large, or no plain file.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise Refused(f"{path} is {_kind(mode)}, expected a file")
        # if it has become a pipe meanwhile, opening it must not block
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            raw = file.read(limit_bytes + 1)
    except FileNotFoundError as problem:
        raise CheckpointError(f"{path} is missing: the checkpoint is incomplete, download it again") from problem
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read ({problem.strerror}): check its permissions") from problem
    if len(raw) > limit_bytes:
        raise Refused(f"{path} is larger than {limit_bytes} bytes, expected a small file")
    return raw


def _walk(folder: Path) -> Iterator[Path]:
    """What lies in the folder and is not a folder, in no order; links to folders come too."""
    count = 0
    waiting = [folder]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except OSError as problem:
            raise CheckpointError(
                f"{problem.filename} cannot be listed ({problem.strerror}): check its permissions"
            ) from problem
        with entries:
            for entry in entries:
                if entry.name in SKIPPED_FOLDERS:
                    continue
                if not entry.name.isprintable():
                    raise Refused(
                        f"{folder} holds {shown(entry.name)}, a name that cannot be printed: rename or remove it"
                    )
                count += 1
                if count > MAX_FILES:
                    raise Refused(f"{folder} holds more than {MAX_FILES} files, expected a checkpoint")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    yield Path(entry.path)


def _checked(path: Path, folder: Path, root: Path) -> tuple[Path, os.stat_result]:
    """(real place, status) of a plain file inside `root`."""
    status = path.lstat()
    real = path
    if stat.S_ISLNK(status.st_mode):
        try:
            real = path.resolve(strict=True)
            status = real.stat()
        except FileNotFoundError as problem:
            raise CheckpointError(
                f"{path} is a link to {shown(str(path.readlink()))[1:-1]}, which is not there: download it again"
            ) from problem
        except (OSError, RuntimeError) as problem:
            raise Refused(f"{path} is a link that leads in a circle, expected a file: remove it") from problem
        if stat.S_ISDIR(status.st_mode):
            raise Refused(f"{path} is a link to a folder, expected a checkpoint to hold its own files: copy them in")
        if not real.is_relative_to(root):
            raise Refused(
                f"{path} is a link out of the checkpoint, to {shown(str(real))}: put a copy of the file in its place"
            )
    if not stat.S_ISREG(status.st_mode):
        kind = _kind(status.st_mode)
        raise Refused(f"{path} is neither a file nor a folder but {kind}, expected only those: remove it")
    return real, status


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
        stat.S_IFDIR: "a folder",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
