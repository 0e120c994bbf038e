"""A store in a local folder, which may be shared (NFS): files that appear whole or not at all, even across a crash.

Knows nothing of entries.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gate.artifact import sync_folder
from gate.store import holder
from gate.store.key import sha256

TMP = "tmp"
"""Holds what is not finished, under names that end in `@<holder>-<nonce>`; see `workspace`."""

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""How file systems without hard links say so (SMB, FAT, some of FUSE), and what is too far away for one."""


class FolderBucket:
    """See `bucket.Bucket`."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder
        self.place = str(folder)
        self._root = folder

    def names(self, under: str) -> Mapping[str, int]:
        found = {}
        for path in sorted(self._path(under).rglob("*")):
            try:
                if path.is_file():
                    found[path.relative_to(self._root).as_posix()] = path.stat().st_size
            except FileNotFoundError:
                continue  # deleted in this moment
        return found

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def read_some(self, names: Sequence[str]) -> Mapping[str, bytes]:
        found = {}
        for name in names:
            try:
                found[name] = self.read(name)
            except FileNotFoundError:
                continue
        return found

    def create(self, name: str, data: bytes) -> None:
        # unlike a rename, a link never replaces; unlike a file opened with O_EXCL, it is never half-written
        self._appear(name, lambda path: _write(path, data), _link_or_rename)

    def replace(self, name: str, data: bytes) -> None:
        self._appear(name, lambda path: _write(path, data), os.replace)

    def put(self, source: Path, name: str) -> None:
        self._appear(name, lambda path: _link_or_copy(source, path), os.replace)

    def fetch(self, name: str, target: Path) -> None:
        shutil.copyfile(self._path(name), target)

    def sha256(self, name: str) -> str:
        return sha256(self._path(name))

    def delete(self, name: str) -> None:
        path = self._path(name)
        path.unlink()
        for folder in list(path.relative_to(self._root).parents)[:-2]:  # but not what lies directly in the root
            try:
                (self._root / folder).rmdir()
            except OSError:
                break  # not empty

    def probe(self) -> None:
        with self._temporary("probe", lambda path: _write(path, b"")):
            pass

    def _path(self, name: str) -> Path:
        return self._root / name

    def _appear(self, name: str, write: Callable[[Path], None], move: Callable[[Path, Path], None]) -> None:
        target = self._path(name)
        with self._temporary(target.name, write) as finished:
            while True:
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    move(finished, target)
                    break
                except FileNotFoundError:
                    if not finished.exists():
                        raise
                    # somebody else has just pruned the folder that was made for it: make it again
        sync_folder(target.parent)

    @contextmanager
    def _temporary(self, name: str, write: Callable[[Path], None]) -> Iterator[Path]:
        """A finished file that nobody looks at; its name says whose it is, and it vanishes at the end."""
        path = self._root / TMP / f"{name}@{holder.me()}-{secrets.token_hex(4)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(path)
            yield path
        finally:
            path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link_or_rename(source: Path, target: Path) -> None:
    """Raises FileExistsError; where there are no links, two writers in one moment may both succeed."""
    try:
        os.link(source, target)
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from problem
        source.replace(target)


def _link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name where that is possible; on disk before anybody is told of it."""
    try:
        os.link(source, target)
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
