"""Who works in a shared folder: a name for this process, and whether the process behind a name is surely gone.

Takes no locks: nobody who dies or hangs can keep others out.
"""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

import psutil

ABANDONED_SECONDS = 7 * 86400.0
"""No measurement takes longer: what another machine, or another container, left this long ago is left for good."""


def me() -> str:
    """`<machine>-<process id>`: the same for the whole life of this process, and no other's meanwhile."""
    return f"{_machine()}-{os.getpid()}"


def is_gone(name: str, age_seconds: float) -> bool:
    """Whether the holder `name` can no longer be at work on what it touched `age_seconds` ago.

    Of processes elsewhere (another machine or another process namespace shares the folder) only age tells.
    """
    if age_seconds > ABANDONED_SECONDS:
        return True
    machine, _, pid = name.rpartition("-")
    return machine == _machine() and pid.isdecimal() and not psutil.pid_exists(int(pid))


@cache
def _machine() -> str:
    """Within what this is constant, a process id means one process at a time: a boot and a namespace."""
    parts = [platform.node()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            link = Path(path)
            parts.append(str(link.readlink()) if link.is_symlink() else link.read_text(encoding="ascii"))
        except OSError:
            continue  # not Linux
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
