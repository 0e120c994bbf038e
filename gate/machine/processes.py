"""Which processes belong together, from Linux's /proc.

Elsewhere, and of a process that is gone, nothing is known: no children and no parent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def family(pid: int, proc: Path = PROC) -> Iterator[int]:
    """The process and all that it started, and they started, as far as they live."""
    yield pid
    for thread in threads(pid, proc):
        children = text(proc / str(pid) / "task" / str(thread) / "children") or ""
        for child in children.split():
            yield from family(int(child), proc)


def belongs(pid: int, root: int, proc: Path = PROC) -> bool:
    """Whether `root` is the process, or one that it comes from."""
    seen: set[int] = set()
    at: int | None = pid
    while at is not None and at not in seen:
        if at == root:
            return True
        seen.add(at)
        at = parent(at, proc)
    return False


def parent(pid: int, proc: Path = PROC) -> int | None:
    """None for the first of all, too."""
    fields = stat(pid, proc)
    above = int(fields[1]) if fields else 0
    return above if above > 0 else None


def stat(pid: int, proc: Path = PROC) -> list[str]:
    """The fields of /proc/PID/stat after the name, the state first (proc_pid_stat(5)); empty when it is gone."""
    line = text(proc / str(pid) / "stat")
    return line.rpartition(")")[2].split() if line else []


def threads(pid: int, proc: Path = PROC) -> list[int]:
    try:
        return [int(entry.name) for entry in (proc / str(pid) / "task").iterdir()]
    except OSError:
        return []


def text(path: Path) -> str | None:
    """What a file of the kernel's says; None when there is none, or no more."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
