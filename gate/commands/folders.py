"""Output folders that must not swallow what is read.

Looks at paths only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gate.errors import UsageError


def check_apart(out: Path, read: Sequence[Path]) -> None:
    """Raises UsageError when `out` is one of the folders that are read, or inside one, or around one."""
    for folder in read:
        inner, outer = sorted((out.resolve(), folder.resolve()), key=lambda p: len(p.parts), reverse=True)
        if inner.is_relative_to(outer):
            raise UsageError(
                f"--out {str(out)!r} and {str(folder)!r}, which is read, lie in each other: choose another folder"
            )
