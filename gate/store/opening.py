"""Which store a command uses: `--store`, or what the environment names, or a folder in the user's cache.

The only place that reads the environment for the store.
"""

from __future__ import annotations

import os

from gate.checkpoint.digests import cache_root
from gate.errors import ArtifactError, UsageError
from gate.store.seal import signing_key
from gate.store.store import Store

ROOT, READ_ONLY, KEY = "QUANTGATE_STORE", "QUANTGATE_STORE_READONLY", "QUANTGATE_STORE_KEY"

_YES, _NO = frozenset({"1", "true", "yes"}), frozenset({"", "0", "false", "no"})


def default_root() -> str:
    """`$QUANTGATE_STORE`, else in the user's cache.  Raises as `cache_root`."""
    return os.environ.get(ROOT) or str(cache_root() / "store")


def open_store(root: str | None, *, read_only: bool = False) -> Store:
    """The store at a folder or URL.  Nothing is read or written yet.

    Args:
        root: None: `default_root()`.
        read_only: so does `$QUANTGATE_STORE_READONLY`, which no option takes back.

    Raises:
        UsageError: it cannot be a store, or the environment says something that makes no sense.
    """
    said = os.environ.get(READ_ONLY, "").strip().lower()
    if said not in _YES | _NO:
        raise UsageError(f"found {READ_ONLY}={said!r}, expected 1 or 0")
    try:
        return Store(
            root or default_root(),
            read_only=read_only or said in _YES,
            signing_key=signing_key(os.environ.get(KEY)),
        )
    except ArtifactError as problem:
        raise UsageError(f"{problem}: name another one with --store or {ROOT}") from problem


def existing_store(root: str | None) -> Store:
    """The same for commands that read: UsageError where it does not answer, or a folder that was named is not there.

    The folder in the user's cache is made by the first run: until then there is nothing in it.
    """
    store = open_store(root)
    named = root or os.environ.get(ROOT)
    if named and store.bucket.folder is not None and not store.bucket.folder.is_dir():
        raise UsageError(
            f"found no folder {store.place!r}, expected a baseline store: name another one with --store or {ROOT}"
        )
    store.check_readable()
    return store


def ready_store(root: str | None, *, read_only: bool = False) -> Store:
    """The same for a run: UsageError now, not after a model was loaded, when it cannot be used."""
    store = open_store(root, read_only=read_only)
    if store.read_only:
        store.check_readable()
    else:
        store.check_writable()
    return store
