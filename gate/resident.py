"""How much memory a process and everything that it started hold, and how much this machine has to give.

Looks; ends nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from gate.machine.processes import family

_HELD = re.compile(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", re.MULTILINE)


def available_bytes() -> int:
    """What processes can still take before this machine has nothing left, swap included."""
    return int(psutil.virtual_memory().available + psutil.swap_memory().free)


def held_bytes(pid: int) -> int:
    """What a process and its descendants hold; pages of files, which can be read again, are not counted.

    0 for a process that is gone, and where the system does not say (other than Linux).
    """
    return sum(_own_bytes(member) for member in family(pid))


def _own_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return 1024 * sum(int(kilobytes) for kilobytes in _HELD.findall(status))
