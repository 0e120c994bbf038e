"""The NVIDIA devices of this machine, and what a container leaves of its CPUs and memory.

Reads only.  Nothing here raises: what cannot be found out is None, or is not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gate.machine.gpus import Gpus, ask, library
from gate.machine.processes import PROC, text

CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60
"""cgroup v1 writes a number near 2⁶³ for no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A device as NVML tells of it."""

    uuid: str
    name: str
    memory_bytes: int | None
    compute_capability: float | None
    persistence: bool | None
    counts_energy: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Nvml:
    """What NVML says; `driver` is the version of NVIDIA's kernel driver, `cuda` the newest that it runs."""

    driver: str | None
    cuda: str | None
    cards: tuple[Card, ...]


def nvml() -> Nvml | None:
    """None where the library or the driver is missing."""
    asked = library()
    if asked is None:
        return None
    cards = []
    for index in range(ask(asked, "nvmlDeviceGetCount") or 0):
        handle = ask(asked, "nvmlDeviceGetHandleByIndex", index)
        if handle is None:  # a device that fell off the bus
            continue
        one, memory = Gpus(asked, [handle]), ask(asked, "nvmlDeviceGetMemoryInfo", handle)
        cards.append(
            Card(
                uuid=_word(ask(asked, "nvmlDeviceGetUUID", handle)) or f"device {index}",
                name=_word(ask(asked, "nvmlDeviceGetName", handle)) or "a device without a name",
                memory_bytes=int(memory.total) if memory is not None else None,
                compute_capability=one.compute_capability(),
                persistence=one.persistence(),
                counts_energy=one.energy_joules() is not None,
            )
        )
    cuda = ask(asked, "nvmlSystemGetCudaDriverVersion")
    return Nvml(
        driver=_word(ask(asked, "nvmlSystemGetDriverVersion")),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda is not None else None,
        cards=tuple(cards),
    )


def _word(said: object) -> str | None:
    """Older libraries answer in bytes."""
    if said is None:
        return None
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def container(environ: Mapping[str, str], *, root: Path = Path("/"), proc: Path = PROC) -> str | None:
    """What this process runs in, as far as it shows from inside; None is no proof that it is not in one."""
    if (root / ".dockerenv").exists():
        return "Docker"
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "Kubernetes"
    if (root / "run/.containerenv").exists():
        return "Podman"
    if environ.get("SINGULARITY_NAME") or environ.get("APPTAINER_NAME"):
        return "Apptainer"
    named = text(proc / "1" / "cgroup") or ""
    return next((word for word in ("docker", "kubepods", "lxc", "containerd") if word in named), None)


def cpu_limit(*, cgroup: Path = CGROUP) -> float | None:
    """CPUs' worth of time that the container may use; None without a limit."""
    v2 = (text(cgroup / "cpu.max") or "").split()
    v1 = [(text(cgroup / "cpu" / f"cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period")]
    quota, period = v2 if len(v2) == 2 else v1
    if not (quota.isdecimal() and period.isdecimal() and int(period) > 0):  # `max`, -1, or nothing
        return None
    return int(quota) / int(period)


def memory_limit_bytes(*, cgroup: Path = CGROUP) -> int | None:
    """What the container may hold; None without a limit."""
    for place in ("memory.max", "memory/memory.limit_in_bytes"):
        said = (text(cgroup / place) or "").strip()
        if said.isdecimal() and int(said) < _UNLIMITED_BYTES:
            return int(said)
    return None


def is_virtual(*, proc: Path = PROC) -> bool:
    """Whether the CPU says that a hypervisor runs below."""
    return any(
        line.startswith("flags") and " hypervisor" in line for line in (text(proc / "cpuinfo") or "").splitlines()
    )


def counts_waiting(*, proc: Path = PROC) -> bool:
    """Whether the kernel tells how long threads wait for a CPU."""
    return text(proc / "self" / "schedstat") is not None
