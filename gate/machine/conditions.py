"""What the machine was like while a block was timed.

Reads only.  Judges nothing: `gate.decide.conditions` says what disturbs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gate.machine import cpu
from gate.machine.gpus import Gpus, open_gpus
from gate.machine.processes import PROC, parent


class Watch:
    """`start` right before a block and `finish` right after it, in the process that times it; any number of times.

    Both take about a millisecond (more with many threads), outside of what is timed; nothing runs in between.

    The gate's own processes, the other role's worker among them, are those that this process's parent started.
    """

    def __init__(
        self,
        device: str,
        uuids: Sequence[str],
        *,
        pid: int | None = None,
        proc: Path = PROC,
        sys: Path = cpu.SYS,
        gpus: Callable[[Sequence[str]], Gpus | None] = open_gpus,
    ) -> None:
        """`device` as a backend names it; `uuids` are NVML's names of the GPUs that hold the model."""
        self._pid = os.getpid() if pid is None else pid
        self._proc = proc
        self._sys = sys
        self._root = parent(self._pid, proc) or self._pid
        self._gpus = gpus(uuids) if device.startswith("cuda") else None
        self._before: tuple[cpu.Look, Mapping[str, float]] | None = None

    def start(self) -> None:
        self._before = self._look(), self._of_gpus()

    def finish(self) -> dict[str, float]:
        """What is known of the time since `start`, by the names of `metrics.DESCRIBED`.

        Raises ValueError when it was not started.
        """
        if self._before is None:
            raise ValueError("finish without start: found no look at the machine from before the block")
        before, gpus_before = self._before
        self._before = None
        found = {**gpus_before, **(now := self._of_gpus())}
        for name in gpus_before.keys() & now.keys() & {"gpu_temperature_celsius", "gpu_foreign_processes"}:
            found[name] = max(gpus_before[name], now[name])
        if "gpu_throttle_reasons" in gpus_before and "gpu_throttle_reasons" in now:
            bits = int(gpus_before["gpu_throttle_reasons"]) | int(now["gpu_throttle_reasons"])
            found["gpu_throttle_reasons"] = float(bits)
        hertz = cpu.clock_hertz(proc=self._proc, sys=self._sys)
        cpus = cpu.counted(proc=self._proc)
        return {
            **cpu.between(before, self._look()),
            **({} if cpus is None else {"cpu_count": float(cpus)}),
            **({} if hertz is None else {"cpu_clock_hertz": hertz}),
            **found,
        }

    def _look(self) -> cpu.Look:
        return cpu.look(self._pid, self._root, proc=self._proc)

    def _of_gpus(self) -> dict[str, float]:
        if self._gpus is None:
            return {}
        found = {
            "gpu_clock_share": self._gpus.clock_share(),
            "gpu_temperature_celsius": self._gpus.temperature_celsius(),
            "gpu_power_watts": self._gpus.power_watts(),
            "gpu_throttle_reasons": self._gpus.throttle_reasons(),
            "gpu_foreign_processes": self._gpus.foreign_processes(self._root),
        }
        return {name: float(value) for name, value in found.items() if value is not None}
