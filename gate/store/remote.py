"""A store behind a URL that fsspec understands: S3, Google Cloud Storage, Azure, memory, any file system of its kind.

Knows nothing of entries.  Asks no store for renames, locks or links.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gate.errors import UsageError

EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gcs")),
    **dict.fromkeys(("az", "abfs", "abfss"), ("adlfs", "azure")),
}
"""Protocol → (package, extra of ours that brings it).  None of them has folders, so none is made there."""

_PROBE = "tmp/probe"
_CHUNK_BYTES = 8 * 2**20


class RemoteBucket:
    """See `bucket.Bucket`.  `place` is the URL as it may be shown."""

    folder: Path | None = None

    def __init__(self, url: str, place: str) -> None:
        from fsspec.core import url_to_fs

        scheme = url.partition("://")[0].rpartition("::")[2]
        try:
            # nothing that was listed before counts: other writers are at work
            self._fs: Any
            self._fs, path = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as problem:
            raise UsageError(_missing(place, scheme, problem)) from problem
        except ValueError as problem:
            known = ", ".join(f"{p}://" for p in ("s3", "gs", "az", "file"))
            raise UsageError(
                f"--store {place!r} cannot be opened ({problem}): expected a folder or a URL such as {known}"
            ) from problem
        self.place = place
        self._root = path.rstrip("/")
        self._has_folders = scheme not in EXTRAS

    def names(self, under: str) -> Mapping[str, int]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._path(under), detail=True)
        except FileNotFoundError:
            return {}
        start = len(self._root) + 1
        return {path[start:]: int(info.get("size") or 0) for path, info in sorted(found.items())}

    def read(self, name: str) -> bytes:
        data: bytes = self._fs.cat_file(self._path(name))
        return data

    def read_some(self, names: Sequence[str]) -> Mapping[str, bytes]:
        found = self._fs.cat([self._path(n) for n in names], on_error="return")  # many at a time where it can
        read = {}
        for name in names:
            data = found[self._path(name)]
            if isinstance(data, bytes):
                read[name] = data
            elif not isinstance(data, FileNotFoundError):
                raise data
        return read

    def create(self, name: str, data: bytes) -> None:
        self._make_folder(name)
        self._fs.pipe_file(self._path(name), data, mode="create")  # a conditional write on S3, GCS and Azure

    def replace(self, name: str, data: bytes) -> None:
        self._make_folder(name)
        self._fs.pipe_file(self._path(name), data)

    def put(self, source: Path, name: str) -> None:
        self._make_folder(name)
        self._fs.put_file(str(source), self._path(name))

    def fetch(self, name: str, target: Path) -> None:
        self._fs.get_file(self._path(name), str(target))

    def sha256(self, name: str) -> str:
        whole = hashlib.sha256()
        with self._fs.open(self._path(name), "rb", block_size=_CHUNK_BYTES) as file:
            while chunk := file.read(_CHUNK_BYTES):
                whole.update(chunk)
        return whole.hexdigest()

    def delete(self, name: str) -> None:
        self._fs.rm_file(self._path(name))

    def probe(self) -> None:
        self.replace(_PROBE, b"")
        with contextlib.suppress(OSError):  # who may write need not be allowed to delete
            self.delete(_PROBE)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_folder(self, name: str) -> None:
        if self._has_folders:
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)


def _missing(place: str, scheme: str, problem: ImportError) -> str:
    if scheme in EXTRAS:
        package, extra = EXTRAS[scheme]
        return f"--store {place!r} needs the package {package}: pip install 'quantgate[{extra}]'"
    return f"--store {place!r} needs a package that is not installed: {problem}"
