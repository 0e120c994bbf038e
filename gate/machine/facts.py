"""What a machine is, as far as it decides how a number format runs or how steady its times are.

Reads only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gate.machine import cpu, gpus
from gate.machine.processes import PROC
from gate.metrics import CPU_FLAGS


def facts(device: str, uuids: Sequence[str], *, proc: Path = PROC) -> dict[str, float]:
    """For a CPU `cpu_has_…` (1 or 0) of each of `metrics.CPU_FLAGS`, for GPUs `gpu_compute_capability`; if known."""
    if device.startswith("cuda"):
        opened = gpus.open_gpus(uuids, proc=proc)
        capability = opened.compute_capability() if opened is not None else None
        return {} if capability is None else {"gpu_compute_capability": capability}
    known = cpu.flags(proc=proc) if device.startswith("cpu") else None
    return {} if known is None else {f"cpu_has_{flag}": float(flag in known) for flag in CPU_FLAGS}


def notes(device: str, uuids: Sequence[str], *, proc: Path = PROC, sys: Path = cpu.SYS) -> tuple[str, ...]:
    """What a reader of times should know of this machine and no number says, a sentence each."""
    found = _of_gpus(uuids, proc) if device.startswith("cuda") else []
    governors = cpu.governors(sys=sys)
    if governors and set(governors) != {"performance"}:
        found.append(
            f"CPU governor {' and '.join(governors)}: clocks follow the load. For steadier times set it to performance "
            "(`cpupower frequency-set -g performance`)."
        )
    elif governors:
        found.append("CPU governor performance.")
    return tuple(found)


def _of_gpus(uuids: Sequence[str], proc: Path) -> list[str]:
    opened = gpus.open_gpus(uuids, proc=proc)
    if opened is None:
        return [
            "NVML could not be asked about the GPU (nvidia-ml-py or the driver's libnvidia-ml is missing, or it does "
            "not know the device): no energy, no clocks, no temperature, and other processes on the GPU are not seen."
        ]
    found = []
    if opened.process_bytes(os.getpid()) is None:
        found.append(
            "NVML does not show this process among those on the GPU, as inside a container: the memory of the process "
            "and other processes on the GPU are not known."
        )
    if opened.energy_joules() is None:
        found.append("NVML counts no energy on this GPU.")
    if opened.persistence() is False:
        found.append(
            "Persistence mode is off: the first use of the GPU is slower (`nvidia-smi -pm 1` keeps the driver loaded)."
        )
    return found
