"""A stand-in for pynvml: devices with settable answers, of which any can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """As the driver raises it."""


@dataclass
class Device:
    uuid: str = "GPU-aaaa"
    name: str = "NVIDIA L40S"
    capability: tuple[int, int] = (8, 9)
    energy_mj: int = 1_000
    clock: int = 1_200
    max_clock: int = 2_400
    temperature: int = 40
    power_mw: int = 90_000
    reasons: int = 0
    persistence: int = 1
    processes: list[tuple[int, int | None]] = field(default_factory=list)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "nvmlDeviceGetUUID": lambda d: d.uuid,
    "nvmlDeviceGetName": lambda d: d.name,
    "nvmlDeviceGetMemoryInfo": lambda d: SimpleNamespace(total=48 * 2**30),
    "nvmlDeviceGetCudaComputeCapability": lambda d: d.capability,
    "nvmlDeviceGetTotalEnergyConsumption": lambda d: d.energy_mj,
    "nvmlDeviceGetClockInfo": lambda d, kind: d.clock,
    "nvmlDeviceGetMaxClockInfo": lambda d, kind: d.max_clock,
    "nvmlDeviceGetTemperature": lambda d, kind: d.temperature,
    "nvmlDeviceGetPowerUsage": lambda d: d.power_mw,
    "nvmlDeviceGetCurrentClocksEventReasons": lambda d: d.reasons,
    "nvmlDeviceGetPersistenceMode": lambda d: d.persistence,
    "nvmlDeviceGetComputeRunningProcesses": lambda d: [
        SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in d.processes
    ],
}
OF_A_DEVICE = tuple(_ANSWERS)


class Nvml:
    """What `import pynvml` gives.  `failing`: names of functions that raise; `missing`: those it does not have."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *devices: Device) -> None:
        self.devices = list(devices)
        self.failing: set[str] = set()
        self.missing: set[str] = set()
        self.calls: list[str] = []

    def nvmlInit(self) -> None:  # noqa: N802
        self._called("nvmlInit")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._called("nvmlDeviceGetCount")
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:  # noqa: N802
        self._called("nvmlDeviceGetHandleByIndex")
        return self.devices[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Device:  # noqa: N802
        self._called("nvmlDeviceGetHandleByUUID")
        for device in self.devices:
            if device.uuid == uuid:
                return device
        raise NVMLError("not found")

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        self._called("nvmlSystemGetDriverVersion")
        return b"580.1"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        self._called("nvmlSystemGetCudaDriverVersion")
        return 13_010

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in _ANSWERS or name in self.__dict__.get("missing", ()):
            raise AttributeError(name)

        def ask(device: Device, *arguments: Any) -> Any:
            self._called(name)
            return _ANSWERS[name](device, *arguments)

        return ask

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise NVMLError(f"{name} failed")
