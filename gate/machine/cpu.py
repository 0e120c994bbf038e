"""The CPUs, as Linux counts what happens on them.  Elsewhere nothing is known.

Shares are of an interval between two looks: `look` before, `look` after, `between` the two.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from gate.machine.processes import PROC, family, stat, text, threads

SYS = Path("/sys/devices/system/cpu")
MIN_TICKS = 50
"""The kernel counts the time of a CPU in ticks (of 10 ms, mostly).  With fewer a share would say little."""

_NANOSECONDS = 1e9
_STEAL = 7
_COUNTED = 8  # user nice system idle iowait irq softirq steal; what guests took is in user already
_IDLE = (3, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Counters that only grow.

    Attributes:
        seconds: of a clock that only runs forward.
        waited_ns: (process, thread) → time that it could have run and had no CPU.
        busy_ticks, stolen_ticks, all_ticks: of all CPUs; `stolen` is what a hypervisor gave to other machines.
        own_ticks: of them, what the family of processes used.
    """

    seconds: float
    waited_ns: dict[tuple[int, int], int]
    busy_ticks: int | None
    stolen_ticks: int | None
    all_ticks: int | None
    own_ticks: int


def look(pid: int, root: int, *, proc: Path = PROC) -> Look:
    """Now.

    Args:
        pid: whose threads, and whose children's, are timed.
        root: it and all that it started are not strangers on this machine.
    """
    busy, stolen, total = _ticks(proc)
    return Look(
        seconds=time.perf_counter(),
        waited_ns={key: ns for member in family(pid, proc) for key, ns in _waited(member, proc)},
        busy_ticks=busy,
        stolen_ticks=stolen,
        all_ticks=total,
        own_ticks=sum(_own_ticks(member, proc) for member in family(root, proc)),
    )


def between(before: Look, after: Look) -> dict[str, float]:
    """`cpu_wait_share`, `cpu_steal_share` and `cpu_load` of the time between; those that are known.

    `cpu_wait_share` is that of the thread that waited longest: how long it could have run and had no CPU, over the
    time that passed.  Not over the time it ran: a thread that sleeps and wakes often waits for microseconds and runs
    for microseconds, and delays nobody.  Not the sum of all: threads that meet at barriers wait side by side, and of
    many threads the few microseconds of each waking add up to what no one lost.  Threads that ended are not counted.

    `cpu_steal_share` is of the time that CPUs had something to run: in a machine that is half idle, half is no excuse.
    `cpu_load` is what other processes used of all CPUs.
    """
    found = {}
    passed_ns = (after.seconds - before.seconds) * _NANOSECONDS
    # what started in between has no count before; nor has one whose number was given to a new thread
    waited = [
        ns - at_first if (at_first := before.waited_ns.get(key, 0)) <= ns else ns for key, ns in after.waited_ns.items()
    ]
    if waited and passed_ns > 0:
        found["cpu_wait_share"] = min(1.0, max(waited) / passed_ns)
    busy, stolen, total = (
        _grown(a, b)
        for a, b in (
            (before.busy_ticks, after.busy_ticks),
            (before.stolen_ticks, after.stolen_ticks),
            (before.all_ticks, after.all_ticks),
        )
    )
    if stolen is not None and busy is not None and busy + stolen >= MIN_TICKS:
        found["cpu_steal_share"] = stolen / (busy + stolen)
    if total is not None and busy is not None and total >= MIN_TICKS:
        own = max(0, after.own_ticks - before.own_ticks)
        found["cpu_load"] = min(1.0, max(0, busy - own) / total)
    return found


def _grown(before: int | None, after: int | None) -> int | None:
    """Counters of idle CPUs have been seen to step back by a tick."""
    return None if before is None or after is None else max(0, after - before)


def _waited(pid: int, proc: Path) -> list[tuple[tuple[int, int], int]]:
    found = []
    for thread in threads(pid, proc):
        # time on a CPU, time waiting for one (both in ns), times it was given one: sched-stats.rst of the kernel
        counts = (text(proc / str(pid) / "task" / str(thread) / "schedstat") or "").split()
        if len(counts) >= 2:
            found.append(((pid, thread), int(counts[1])))
    return found


def _ticks(proc: Path) -> tuple[int | None, int | None, int | None]:
    """(busy, stolen, all) of all CPUs since the machine was started (proc_stat(5))."""
    fields = (text(proc / "stat") or "").partition("\n")[0].split()
    if fields[:1] != ["cpu"] or len(fields) <= _COUNTED:
        return None, None, None
    counts = [int(field) for field in fields[1 : _COUNTED + 1]]
    stolen = counts[_STEAL]
    return sum(counts) - stolen - sum(counts[i] for i in _IDLE), stolen, sum(counts)


def _own_ticks(pid: int, proc: Path) -> int:
    """Of a process and of its children that have ended: nothing of a family is lost when one of it ends."""
    fields = stat(pid, proc)
    return sum(map(int, fields[11:15])) if len(fields) > 15 else 0


def counted(*, proc: Path = PROC) -> int | None:
    """CPUs of the machine that Linux counts ticks of, whether this process may run on them or not."""
    lines = (text(proc / "stat") or "").splitlines()
    return sum(line[:3] == "cpu" and line[3:4].isdecimal() for line in lines) or None


def clock_hertz(*, proc: Path = PROC, sys: Path = SYS) -> float | None:
    """Of the CPU that runs fastest now: idle ones are slowed down, and say nothing of the busy one.

    On a virtual machine it is what the host says at boot.
    """
    kilohertz = [text(path) for path in sorted(sys.glob("cpufreq/policy*/scaling_cur_freq"))]
    known = [1e3 * float(value) for value in kilohertz if value is not None and value.strip().isdecimal()]
    if not known:
        said = (line.partition(":") for line in (text(proc / "cpuinfo") or "").splitlines() if "MHz" in line)
        known = [1e6 * float(value) for name, _, value in said if name.strip() == "cpu MHz" and value.strip()]
    return max(known, default=0.0) or None


def flags(*, proc: Path = PROC) -> frozenset[str] | None:
    """Instruction sets in Linux's names (`avx2`, on ARM `asimd`); None where they are not known."""
    for line in (text(proc / "cpuinfo") or "").splitlines():
        name, _, said = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(said.split())
    return None


def governors(*, sys: Path = SYS) -> tuple[str, ...]:
    """How the CPUs' clocks are set, each word once; empty where Linux does not set them, as on virtual machines."""
    found = [text(path) for path in sorted(sys.glob("cpufreq/policy*/scaling_governor"))]
    return tuple(dict.fromkeys(word.strip() for word in found if word and word.strip()))


def usable() -> int:
    """CPUs that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1
