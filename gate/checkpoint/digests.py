"""SHA-256 of files and of each tensor in them, and what in them is not a number, in one pass over the bytes.

Remembered by path, size, times and inode.  The memory only saves time: a missing, unreadable or unwritable one means
reading again, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from gate.artifact import write_atomic
from gate.checkpoint import finite
from gate.checkpoint.safetensors_header import Tensor
from gate.errors import CheckpointError, UsageError

_CHUNK_BYTES = 4 * 2**20
_VERSION = 2
_RACY_NS = 2 * 10**9
"""A file changed this recently may change again within its file system's clock tick: not remembered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """What one pass over a file finds.

    Attributes:
        sha256: of the file.
        tensors: (name, dtype, shape, SHA-256 of its bytes), sorted by name.
        not_finite: (name, how many values are NaN or infinite) of the float tensors that hold any, sorted by name.
    """

    sha256: str
    tensors: tuple[tuple[str, str, tuple[int, ...], str], ...]
    not_finite: tuple[tuple[str, int], ...]


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
    """Hash a file and, in the same pass, each of its tensors (in the order of their bytes), and look for NaN in them.

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
    parts, not_finite = [], []
    try:
        # hashlib lets go of the interpreter: the two digests of the same bytes are made on two cores
        with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as beside:
            position = 0

            def feed(end: int | None, count: finite.Count | None = None, whole_bytes: int = 1) -> tuple[str, int]:
                nonlocal position
                part, found = hashlib.sha256(), 0
                at_once = _CHUNK_BYTES // whole_bytes * whole_bytes
                while end is None or position < end:
                    chunk = _read(file, at_once if end is None else min(at_once, end - position))
                    if not chunk:
                        break
                    position += len(chunk)
                    if end is None:
                        whole.update(chunk)
                        continue
                    hashed = beside.submit(whole.update, chunk)
                    part.update(chunk)
                    if count is not None and (position == end or len(chunk) == at_once):
                        found += count(chunk)
                    hashed.result()
                if end is not None and position < end:
                    raise CheckpointError(
                        f"{path} ended at byte {position}, expected {end}: it changed while it was read"
                    )
                return part.hexdigest(), found

            for tensor in tensors:
                feed(tensor.begin)
                kind = tensor.dtype
                digest, found = feed(tensor.end, finite.counter(tensor.name, kind), finite.element_bytes(kind))
                parts.append((tensor.name, tensor.dtype, tensor.shape, digest))
                if found:
                    not_finite.append((tensor.name, found))
            feed(None)
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem}") from problem
    return FileDigest(sha256=whole.hexdigest(), tensors=tuple(sorted(parts)), not_finite=tuple(sorted(not_finite)))


def _read(file: BinaryIO, n_bytes: int) -> bytes:
    """That many bytes, fewer only at the end of the file: elements must not be cut in two."""
    chunk = file.read(n_bytes)
    while len(chunk) < n_bytes:
        more = file.read(n_bytes - len(chunk))
        if not more:
            break
        chunk += more
    return chunk


def _remembered(entry: Path, stamp: list[object]) -> FileDigest | None:
    try:
        found = json.loads(entry.read_bytes())
        if found["stamp"] != stamp:
            return None
        return FileDigest(
            sha256=found["sha256"],
            tensors=tuple((name, dtype, tuple(shape), digest) for name, dtype, shape, digest in found["tensors"]),
            not_finite=tuple((str(name), int(count)) for name, count in found["not_finite"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(entry: Path, stamp: list[object], found: FileDigest) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(entry, json.dumps({"stamp": stamp, **asdict(found)}).encode())
    except OSError:
        return  # a read-only home: hash again next time
