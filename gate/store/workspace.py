"""A store's scratch on this machine: folders to measure into, copies of what was downloaded, and what is in use.

Only saves work: whatever lies here may vanish at any time while nobody holds it.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gate.store import holder
from gate.store.folder import TMP

UNUSED_SECONDS = 30 * 86400.0
"""Copies that nobody asked for in so long are dropped."""


class Workspace:
    """`tmp/` holds what is under way, `use/` a mark for whatever a process reads, `copies/` the files of entries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copies = folder / "copies"

    @contextmanager
    def slot(self, name: str) -> Iterator[Path]:
        """A private folder, which vanishes at the end.  Raises OSError when it cannot be made."""
        folder = self.folder / TMP / f"{name}@{holder.me()}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def hold(self, content: str) -> None:
        """Keep the files of an entry from being dropped or pruned while this process lives.

        Best effort: in a folder that cannot be written nothing is held.
        """
        with suppress(OSError):
            mark = self.folder / "use" / f"{content}@{holder.me()}"
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            if (self.copies / content).is_dir():
                (self.copies / content).touch()

    def held(self) -> frozenset[str]:
        """What processes that may be alive hold."""
        marks = (path for path in _inside(self.folder / "use") if not _is_over(path))
        return frozenset(path.name.partition("@")[0] for path in marks)

    def sweep(self) -> int:
        """Drop what killed processes left, and copies that nobody wants; returns how many things that were.

        What may belong to a living process stays (see `holder.is_gone`).
        """
        over = [path for name in (TMP, "use") for path in _inside(self.folder / name) if _is_over(path)]
        held = self.held()
        over += [c for c in _inside(self.copies) if c.name not in held and _age_seconds(c) > UNUSED_SECONDS]
        for path in over:
            _remove(path)
        return len(over)


def _is_over(path: Path) -> bool:
    """Whether the process in the name of something in `tmp/` (name@holder-nonce) or `use/` (name@holder) is gone."""
    who = path.name.rpartition("@")[2]
    if path.parent.name == TMP:
        who = who.rpartition("-")[0]
    return holder.is_gone(who, _age_seconds(path))


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0  # gone in this moment: nothing to do


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
