"""The GPUs that hold a model, as NVIDIA's management library (NVML) sees them.

Reads only.  Nothing here raises: what the library, the driver or the device does not say is None, for all of them as
soon as one of them is silent, since a sum over some would be too low.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from gate.machine.processes import PROC, belongs

SAMPLE_SECONDS = 0.01
_MILLIJOULES = 1000
_MILLIWATTS = 1000


def open_gpus(uuids: Sequence[str], *, proc: Path = PROC) -> Gpus | None:
    """The devices of these UUIDs, with NVML's prefix (`GPU-…`, `MIG-…`) or without, as torch gives them.

    None for none, without NVML, or where one of them is not there.
    """
    nvml = library() if uuids else None
    if nvml is None:
        return None
    handles = [_handle(nvml, uuid) for uuid in uuids]
    return None if None in handles else Gpus(nvml, handles, proc=proc)


def library() -> Any | None:
    """pynvml, ready to be asked; None where it is not installed or finds no driver."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError, OSError):
        return None
    return nvml


def ask(nvml: Any, name: str, *arguments: Any) -> Any | None:
    """What a function of NVML says; None where this library has none of that name, or it fails."""
    function = getattr(nvml, name, None)
    if function is None:
        return None
    try:
        return function(*arguments)
    except (nvml.NVMLError, OSError, ValueError):
        return None


def _handle(nvml: Any, uuid: str) -> Any | None:
    bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
    names = dict.fromkeys((uuid, bare, f"GPU-{bare}", f"MIG-{bare}"))
    found = (ask(nvml, "nvmlDeviceGetHandleByUUID", name) for name in names)
    return next((handle for handle in found if handle is not None), None)


class Gpus:
    """Some devices, looked at together."""

    def __init__(self, nvml: Any, handles: Sequence[Any], *, proc: Path = PROC) -> None:
        self._nvml = nvml
        self._handles = tuple(handles)
        self._proc = proc

    def energy_joules(self) -> float | None:
        """What they have taken since the driver was loaded, together; the difference of two readings counts."""
        found = self._each("nvmlDeviceGetTotalEnergyConsumption")
        return None if found is None else sum(found) / _MILLIJOULES

    def process_bytes(self, pid: int) -> int | None:
        """Device memory of a process and all that it started, context included.

        None where NVML does not show the process: in a container it often sees no process, or others' numbers.
        """
        listed = self._processes()
        used = [size for other, size in listed or () if size is not None and belongs(other, pid, self._proc)]
        return sum(used) if used else None

    def peak_of(self, pid: int) -> Sampler:
        """`with gpus.peak_of(pid) as sampler: …` and then `sampler.peak_bytes`."""
        return Sampler(self, pid)

    def foreign_processes(self, root: int) -> int | None:
        """How many processes that `root` did not start compute on the devices too.

        None where none of those that `root` started is shown, which is how a container looks from inside: then nothing
        can be said of the others.
        """
        listed = self._processes()
        ours = {pid for pid, _ in listed or () if belongs(pid, root, self._proc)}
        return len({pid for pid, _ in listed or ()} - ours) if ours else None

    def compute_capability(self) -> float | None:
        """The lowest of the devices: 8.9."""
        found = self._each("nvmlDeviceGetCudaComputeCapability")
        return None if found is None else min(major + minor / 10 for major, minor in found)

    def clock_share(self) -> float | None:
        """The clock of the multiprocessors over the highest that the device has; the lowest of the devices."""
        kind = getattr(self._nvml, "NVML_CLOCK_SM", 1)
        now, most = self._each("nvmlDeviceGetClockInfo", kind), self._each("nvmlDeviceGetMaxClockInfo", kind)
        if now is None or most is None or min(most) <= 0:
            return None
        return float(min(clock / highest for clock, highest in zip(now, most, strict=True)))

    def temperature_celsius(self) -> float | None:
        """The highest of the devices."""
        found = self._each("nvmlDeviceGetTemperature", getattr(self._nvml, "NVML_TEMPERATURE_GPU", 0))
        return None if found is None else float(max(found))

    def power_watts(self) -> float | None:
        """Of all devices together, as the driver averages it (up to a second)."""
        found = self._each("nvmlDeviceGetPowerUsage")
        return None if found is None else sum(found) / _MILLIWATTS

    def throttle_reasons(self) -> int | None:
        """Bits of `nvmlClocksEventReason…` that hold for any of the devices now."""
        found = self._each("nvmlDeviceGetCurrentClocksEventReasons")
        if found is None:  # older drivers and libraries know them by their older name
            found = self._each("nvmlDeviceGetCurrentClocksThrottleReasons")
        bits = 0
        for reasons in found or ():
            bits |= int(reasons)
        return None if found is None else bits

    def persistence(self) -> bool | None:
        """Whether the driver stays loaded while nothing uses the devices; without it the first start is slow."""
        found = self._each("nvmlDeviceGetPersistenceMode")
        return None if found is None else all(found)

    def _each(self, name: str, *arguments: Any) -> list[Any] | None:
        found = []
        for handle in self._handles:
            answer = ask(self._nvml, name, handle, *arguments)
            if answer is None:
                return None
            found.append(answer)
        return found

    def _processes(self) -> list[tuple[int, int | None]] | None:
        """(pid, bytes) of every process that computes on one of the devices."""
        found = self._each("nvmlDeviceGetComputeRunningProcesses")
        return None if found is None else [(p.pid, p.usedGpuMemory) for running in found for p in running]


class Sampler:
    """The peak of a process's device memory while the context is open, looked at every 10 ms in a thread of its own.

    `peak_bytes` is None where NVML does not show the process.
    """

    def __init__(self, gpus: Gpus, pid: int) -> None:
        self._gpus = gpus
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nvml-peak", daemon=True)
        self.peak_bytes: int | None = None

    def __enter__(self) -> Sampler:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        used = self._gpus.process_bytes(self._pid)
        if used is not None:
            self.peak_bytes = max(used, self.peak_bytes or 0)
