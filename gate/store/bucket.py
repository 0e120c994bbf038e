"""Where a store's files lie: a local folder or what a URL names, behind the few operations that both can do safely.

Knows nothing of entries.  No renames and no locks: object stores have neither.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Unanswered
from pathlib import Path
from typing import Protocol, TypeVar

from gate.errors import ArtifactError, GateError, UsageError

T = TypeVar("T")

ANSWER_SECONDS = 60.0
"""How long a store may take for one operation, besides what its bytes take."""

BYTES_PER_SECOND = 1_000_000.0
"""A store slower than this counts as hanging."""

_CREDENTIALS = re.compile(r"://[^/\s@]*@")


class Unavailable(ArtifactError):
    """The store cannot be reached, read or written, or does not answer."""


class Bucket(Protocol):
    """Files by name (`folder/file`, never starting with a slash).  Raises OSError, and whatever its library raises."""

    @property
    def place(self) -> str:
        """For messages: without credentials."""
        ...

    @property
    def folder(self) -> Path | None:
        """Where the files lie on this machine; None where they have to be copied to it."""
        ...

    def names(self, under: str) -> Mapping[str, int]:
        """Name → bytes of every file below a folder; empty where there is no such folder."""
        ...

    def read(self, name: str) -> bytes: ...

    def read_some(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Those of them that are there."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Make the file appear, whole.  Raises FileExistsError when there is one: the first writer wins.

        Where a file system offers no such thing the last one may win instead.
        """
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Make the file appear, whole, in place of what was there."""
        ...

    def put(self, source: Path, name: str) -> None:
        """Copy a local file in; nobody knows its name yet, so it may be seen half-written."""
        ...

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file out; its folder exists."""
        ...

    def sha256(self, name: str) -> str:
        """Of a file where it lies, in hex."""
        ...

    def delete(self, name: str) -> None:
        """Raises FileNotFoundError when there is none."""
        ...

    def probe(self) -> None:
        """Raises when nothing can be written; leaves nothing behind."""
        ...


def open_bucket(root: Path | str, *, answer_seconds: float) -> GuardedBucket:
    """What a folder or URL names.

    Raises:
        UsageError: no such kind of URL, or the package for it is not installed.
        Unavailable: it cannot be opened.
    """
    folder = _local(root)
    if folder is not None:
        from gate.store.folder import FolderBucket

        return GuardedBucket(FolderBucket(folder), answer_seconds)
    from gate.store.remote import RemoteBucket

    url, place = str(root), redacted(str(root))
    # some libraries ask the network for an identity as soon as they are opened
    return GuardedBucket(_answer(place, answer_seconds, lambda: RemoteBucket(url, place)), answer_seconds)


def redacted(text: str) -> str:
    """Without what a URL may hold before its `@`."""
    return _CREDENTIALS.sub("://…@", text)


class GuardedBucket:
    """A bucket that answers in time or not at all, and whose failures are all `Unavailable`.

    FileNotFoundError and FileExistsError pass: they are answers.  One that hung once is not asked again.
    """

    def __init__(self, inner: Bucket, answer_seconds: float) -> None:
        self._inner = inner
        self._seconds = answer_seconds
        self._hung = False
        self.place = inner.place
        self.folder = inner.folder

    def answers(self) -> None:
        """Raises Unavailable when it has hung: asking anything of it would cost the time again."""
        if self._hung:
            raise Unavailable(f"the baseline store {self.place} did not answer before, and is not asked again")

    def names(self, under: str) -> Mapping[str, int]:
        return self._ask(lambda: self._inner.names(under))

    def read(self, name: str) -> bytes:
        return self._ask(lambda: self._inner.read(name))

    def read_some(self, names: Sequence[str]) -> Mapping[str, bytes]:
        return self._ask(lambda: self._inner.read_some(names), 10_000 * len(names)) if names else {}

    def create(self, name: str, data: bytes) -> None:
        self._ask(lambda: self._inner.create(name, data))

    def replace(self, name: str, data: bytes) -> None:
        self._ask(lambda: self._inner.replace(name, data))

    def put(self, source: Path, name: str, n_bytes: int) -> None:
        self._ask(lambda: self._inner.put(source, name), n_bytes)

    def fetch(self, name: str, target: Path, n_bytes: int) -> None:
        self._ask(lambda: self._inner.fetch(name, target), n_bytes)

    def sha256(self, name: str, n_bytes: int) -> str:
        return self._ask(lambda: self._inner.sha256(name), n_bytes)

    def delete(self, name: str) -> None:
        self._ask(lambda: self._inner.delete(name))

    def probe(self) -> None:
        self._ask(self._inner.probe)

    def _ask(self, action: Callable[[], T], n_bytes: int = 0) -> T:
        """The answer.  Raises Unavailable, FileNotFoundError, FileExistsError."""
        self.answers()
        try:
            return _answer(self.place, self._seconds + n_bytes / BYTES_PER_SECOND, action)
        except _Hung:
            self._hung = True
            raise


class _Hung(Unavailable):
    """It may answer one day; nobody waits for it."""


def _answer(place: str, seconds: float, action: Callable[[], T]) -> T:
    """What `action` returns; one that hangs is left behind in its thread.

    Raises:
        Unavailable: it failed in whatever way, or did not answer in time.
        FileNotFoundError, FileExistsError, GateError: as raised by it.
    """
    done: Future[T] = Future()

    def act() -> None:
        try:
            done.set_result(action())
        except BaseException as problem:  # noqa: BLE001  (every library has its own; it is raised again below)
            done.set_exception(problem)

    threading.Thread(target=act, name="baseline store", daemon=True).start()
    try:
        problem = done.exception(seconds)
    except Unanswered:
        raise _Hung(f"the baseline store {place} did not answer within {seconds:.0f} s") from None
    if problem is None:
        return done.result()
    if isinstance(problem, FileNotFoundError | FileExistsError | GateError):
        raise problem
    said = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    raise Unavailable(f"the baseline store {place} failed: {redacted(said)}") from problem


def _local(root: Path | str) -> Path | None:
    """The folder, if that is what is named."""
    if isinstance(root, Path):
        return root
    scheme, found, rest = root.partition("://")
    if not found:
        return Path(os.path.expanduser(root))  # noqa: PTH111  (pathlib's raises for a user who does not exist)
    if scheme in ("file", "local"):
        if not rest.startswith("/"):
            raise UsageError(f"found {root!r}, expected a whole path after the scheme, such as file:///srv/baselines")
        return Path(rest)
    return None
