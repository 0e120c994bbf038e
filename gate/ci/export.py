"""Files of one commit copied into a folder, with their layout: what judges a change, as the base branch has it.

Copies from the commit and never from the working tree; follows no link out of the repository.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from gate.ci import task_files
from gate.ci.git import Repository
from gate.ci.links import followed
from gate.errors import UsageError

MAX_FILE_BYTES = 2**30
MAX_FILES = 20_000
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)
_POINTER_BYTES = 1024


class Export:
    """What was taken out of a commit so far.

    Attributes:
        read: paths in the repository that it was taken from: a change of one of them changes what judges.
    """

    def __init__(self, repository: Repository, commit: str, into: Path) -> None:
        entries = repository.entries(commit)
        self._repository = repository
        self._into = into
        self._files = {e.path: e.blob for e in entries if e.kind == "file"}
        self._submodules = {e.path for e in entries if e.kind == "submodule"}
        self._links = dict(repository.link_targets([e for e in entries if e.kind == "link"]))
        self._folders = {p for path in (*self._files, *self._links) for p in _above(path)}
        self._copied: set[str] = set()
        self.read: set[str] = set()

    def kind(self, path: str) -> str | None:
        """`file` or `folder`, links followed; None where the commit has no such thing inside the repository."""
        place = followed(path, self._links)
        if place in self._files:
            return "file"
        return "folder" if place in self._folders else None

    def add(self, path: str, why: str) -> bool:
        """Copy a file, or a folder with all that is in it; False: the commit has no such thing.

        Raises:
            UsageError: a link leads out of the repository, a submodule lies in it, or a Git LFS file is not here.
        """
        place = followed(path, self._links)
        if place is None:
            raise UsageError(f"{why} {path!a} leads out of the repository, expected a file inside: put it there")
        self.read |= {path, place}
        if place in self._files:
            self._copy(place, path, why)
            return True
        if place not in self._folders:
            self._refuse_submodule(place, why)
            return False
        for below in self._below(place):
            self._refuse_submodule(below, why)
            at = posixpath.normpath(posixpath.join(path, posixpath.relpath(below, place)))
            # a folder that holds itself through a link ends at the limit of links, or of files
            self.add(at, why)
        return True

    def _below(self, folder: str) -> Iterator[str]:
        start = "" if folder == "." else f"{folder}/"
        for path in (*self._files, *self._links, *self._submodules):
            if path.startswith(start):
                yield path

    def _refuse_submodule(self, path: str, why: str) -> None:
        if any(path == s or path.startswith(f"{s}/") for s in self._submodules):
            raise UsageError(f"{why} {path!a} lies in a submodule, which is not read: copy it into the repository")

    def _copy(self, place: str, path: str, why: str) -> None:
        if path in self._copied:
            return
        self._copied.add(path)
        if len(self._copied) > MAX_FILES:
            raise UsageError(f"{why} {path!a}: more than {MAX_FILES:,} files judge this change, name a smaller folder")
        data = self._content(place, why)
        target = self._into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(data)
        if path.endswith(task_files.SUFFIXES):
            self._add_what_it_names(data, path)

    def _add_what_it_names(self, data: bytes, path: str) -> None:
        """A task's data and includes; what is missing is for the stage to say, which knows whether it is needed."""
        folder = posixpath.dirname(path)
        for named in task_files.named_in(data):
            inside(folder, named, f"{path!a} names")
            place = posixpath.normpath(posixpath.join(folder, named))
            if self.kind(place) and self.add(place, f"{path!a} names") and place.endswith(task_files.SUFFIXES):
                for code in [p for p in self._files if posixpath.dirname(p) == posixpath.dirname(place)]:
                    if code.endswith(".py"):  # where its `!function`s are, and what they import
                        self.add(code, f"{path!a} needs")

    def _content(self, place: str, why: str) -> bytes:
        data = self._repository.blob(self._files[place], limit_bytes=MAX_FILE_BYTES)
        found = _POINTER.fullmatch(data) if len(data) <= _POINTER_BYTES else None
        if found is None:
            return data
        digest, size_bytes = found[1].decode("ascii"), int(found[2])
        for whole in self._lfs(data, place, size_bytes):
            if whole is not None and hashlib.sha256(whole).hexdigest() == digest:
                return whole
        raise UsageError(
            f"{why} {place!a} is kept in Git LFS and its content is not here: check out with `lfs: true`, or install "
            "git-lfs and let it fetch"
        )

    def _lfs(self, pointer: bytes, place: str, size_bytes: int) -> Iterator[bytes | None]:
        """What may be the content: the caller compares digests, so even the working tree may be asked."""
        if size_bytes > MAX_FILE_BYTES:
            raise UsageError(f"{place!a} has {size_bytes:,} bytes in Git LFS, expected at most {MAX_FILE_BYTES:,}")
        here = self._repository.root / place
        if here.is_file() and here.stat().st_size == size_bytes:
            yield here.read_bytes()
        yield self._repository.smudged(pointer, place, limit_bytes=size_bytes)


def inside(folder: str, text: str, what: str) -> str:
    """A path written beside a file of `folder`, relative to the repository.

    Raises:
        UsageError: it is absolute, or leaves the repository.
    """
    place = posixpath.normpath(posixpath.join(folder, text))
    if text.startswith("/") or place.split("/")[0] == "..":
        raise UsageError(
            f"{what} {text!a}, which is outside of the repository: what judges a pull request is taken from the base "
            "branch, so put it there (large files with Git LFS) and name it by a relative path"
        )
    return place


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return [".", *("/".join(parts[:i]) for i in range(1, len(parts)))]
