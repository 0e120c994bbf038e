"""What disturbs a timed block so much that its figure is not worth having.

Pure: no I/O, no clock, no randomness.  The machine is looked at in `gate.machine.conditions`.

Each threshold answers one question: can this alone have moved a block by more than a tight rule allows (5 %)?  What is
merely there is no disturbance: a load on other CPUs takes nothing from threads that never waited, low clocks and a
power limit are how some machines always run, for both checkpoints alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gate.metrics import DESCRIBED
from gate.records import Measurement

MAX_WAIT_SHARE = 0.10
"""Of the block's time, that a timed thread stood ready and had no CPU.  Half of it would already move a block by 5 %,
but not the block's median: what comes and goes moves some of its runs.  A quiet machine shows well below 1 %."""

MAX_CPUS_OF_OTHERS = MAX_WAIT_SHARE
"""CPUs that others kept busy.  All of them together make a thread wait no longer than they ran themselves: with fewer,
threads that waited did so for each other (more threads than CPUs, or than a container may use).  Both checkpoints are
timed like that, and no quieter machine would help."""

MAX_STEAL_SHARE = 0.10
"""Of the CPU time that was wanted, that a hypervisor gave to other machines.  As above; and it is counted in ticks, of
all CPUs together, so smaller values are of the counting."""

MAX_FOREIGN_GPU_PROCESSES = 0
"""A GPU runs one process's kernels after another's: any that computes there takes time, memory and bandwidth."""

THROTTLED: Mapping[int, str] = MappingProxyType(
    {
        0x08: "the hardware slowed the GPU down",
        0x20: "the GPU was slowed down since it is too hot",
        0x40: "the hardware slowed the GPU down since it is too hot",
        0x80: "the power supply made the GPU slow down",
    }
)
"""Bits of NVML's clocks event reasons that halve clocks and more, without notice, and pass: HwSlowdown,
SwThermalSlowdown, HwThermalSlowdown, HwPowerBrakeSlowdown.  Not SwPowerCap: a card at its power limit is a card at
work, and a lighter format draws less, which is part of what is measured.  Not the clocks that somebody has set."""

_OF_BLOCKS = frozenset(name for name in DESCRIBED if name.startswith(("cpu_", "gpu_")))
_BLOCKS = ("block/", "again/")


def of_blocks(measurement: Measurement) -> dict[str, dict[str, float]]:
    """Item id of each block (`block/3`, `again/0`) → what the machine was like during it, as far as it is known.

    Blocks without a word are not in it.
    """
    found: dict[str, dict[str, float]] = {}
    for seen in measurement.observations:
        if seen.metric in _OF_BLOCKS and seen.item_id.startswith(_BLOCKS):
            found.setdefault(seen.item_id, {})[seen.metric] = seen.value
    return found


def disturbance(conditions: Mapping[str, float]) -> str | None:
    """What disturbed a block, as a clause without a full stop; None when nothing is known to have."""
    found = []
    waited = conditions.get("cpu_wait_share", 0.0)
    if waited > MAX_WAIT_SHARE and not crowded(conditions):
        load = conditions.get("cpu_load")
        others = "" if load is None else f" (other processes used {load:.0%} of the CPUs)"
        found.append(f"the timed threads waited {waited:.0%} of the time for a CPU{others}")
    stolen = conditions.get("cpu_steal_share", 0.0)
    if stolen > MAX_STEAL_SHARE:
        found.append(f"the host of this virtual machine took {stolen:.0%} of its CPU time")
    strangers = int(conditions.get("gpu_foreign_processes", 0.0))
    if strangers > MAX_FOREIGN_GPU_PROCESSES:
        found.append(f"{strangers} other process{'es' if strangers > 1 else ''} computed on the GPU")
    reasons = int(conditions.get("gpu_throttle_reasons", 0.0))
    found += [said for bit, said in THROTTLED.items() if reasons & bit]
    return "; ".join(found) or None


def crowded(conditions: Mapping[str, float]) -> bool:
    """Whether the timed threads waited for CPUs, and for no one but each other."""
    load, cpus = conditions.get("cpu_load"), conditions.get("cpu_count")
    if load is None or cpus is None:
        return False
    return conditions.get("cpu_wait_share", 0.0) > MAX_WAIT_SHARE and load * cpus <= MAX_CPUS_OF_OTHERS
