"""SHA-256 of files and of each tensor in them, remembered by path, size, times and inode.

The memory only saves time: a missing, unreadable or unwritable one means hashing again, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gate.artifact import write_atomic
from gate.checkpoint.safetensors_header import Tensor
from gate.errors import CheckpointError, UsageError

_CHUNK_BYTES = 4 * 2**20
_VERSION = 1
_RACY_NS = 2 * 10**9
"""A file changed this recently may change again within its file system's clock tick: not remembered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """`sha256` of the file; `tensors` are (name, dtype, shape, SHA-256 of its bytes), sorted by name."""

    sha256: str
    tensors: tuple[tuple[str, str, tuple[int, ...], str], ...]


def cache_root() -> Path:
    """The gate's folder for what can be computed again: `$XDG_CACHE_HOME/quantgate`, by default under ~/.cache.

    Raises:
        UsageError: this user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "quantgate"
    except RuntimeError as problem:
        raise UsageError(
            f"found no place for the gate's cache ({problem}): set XDG_CACHE_HOME to a folder"
        ) from problem


def default_cache() -> Path:
    """Where digests are remembered.  Raises as `cache_root`."""
    return cache_root() / "digests"


def file_digest(path: Path, tensors: Sequence[Tensor], cache: Path) -> FileDigest:
    """Hash a file and, in the same pass, each of its tensors (in the order of their bytes).

    Raises:
        CheckpointError: the file cannot be read, or ends before its last tensor does.
    """
    real = path.resolve()
    status = real.stat()
    stamp = [_VERSION, str(real), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, bool(tensors)]
    entry = cache / f"{hashlib.sha256(os.fsencode(real)).hexdigest()}.json"
    known = _remembered(entry, stamp)
    if known is not None:
        return known
    found = _hash(path, tensors)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _RACY_NS:
        _remember(entry, stamp, found)
    return found


def _hash(path: Path, tensors: Sequence[Tensor]) -> FileDigest:
    whole = hashlib.sha256()
    parts = []
    try:
        with path.open("rb", buffering=0) as file:
            position = 0

            def feed(end: int | None) -> str:
                nonlocal position
                part = hashlib.sha256()
                while end is None or position < end:
                    chunk = file.read(_CHUNK_BYTES if end is None else min(_CHUNK_BYTES, end - position))
                    if not chunk:
                        break
                    position += len(chunk)
                    whole.update(chunk)
                    part.update(chunk)
                if end is not None and position < end:
                    raise CheckpointError(
                        f"{path} ended at byte {position}, expected {end}: it changed while it was read"
                    )
                return part.hexdigest()

            for tensor in tensors:
                feed(tensor.begin)
                parts.append((tensor.name, tensor.dtype, tensor.shape, feed(tensor.end)))
            feed(None)
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem}") from problem
    return FileDigest(sha256=whole.hexdigest(), tensors=tuple(sorted(parts)))


def _remembered(entry: Path, stamp: list[object]) -> FileDigest | None:
    try:
        found = json.loads(entry.read_bytes())
        if found["stamp"] != stamp:
            return None
        return FileDigest(
            sha256=found["sha256"],
            tensors=tuple((name, dtype, tuple(shape), digest) for name, dtype, shape, digest in found["tensors"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(entry: Path, stamp: list[object], found: FileDigest) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(entry, json.dumps({"stamp": stamp, **asdict(found)}).encode())
    except OSError:
        return  # a read-only home: hash again next time
