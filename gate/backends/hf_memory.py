"""Running out of memory: telling it from other failures, and working in smaller batches after it.

Frees nothing but torch's cache; the model stays loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from gate.backends import OutOfMemory
from gate.errors import UsageError
from gate.units import dimension, quantity

_T = TypeVar("_T")
_R = TypeVar("_R")

PREFIX_SHARE = "25%"
_CGROUP = Path("/sys/fs/cgroup")
_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "allocation_failed")
"""Lower case; the last two are of libraries: CUBLAS_STATUS_ALLOC_FAILED and its like."""


def is_out_of_memory(problem: BaseException) -> bool:
    """Of the device, or of the machine when torch's CPU allocator says so."""
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
        return True
    return isinstance(problem, RuntimeError) and any(t in str(problem).lower() for t in _TEXTS)


def release() -> None:
    """Give back what torch and the C library hold of memory that was freed."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library than GNU's has no such call
            ctypes.CDLL(None).malloc_trim(0)


def prefix_budget_bytes(setting: str | float | None, devices: Iterable[torch.device]) -> int:
    """Memory for what prompts share: bytes, a share of what is free on the devices, or None for the usual share.

    Raises UsageError for anything else.
    """
    text = PREFIX_SHARE if setting is None else str(setting)
    kind = dimension(text)
    if kind == "share":
        return int(quantity(text) * sum(map(free_bytes, devices)))
    if kind == "seconds":
        raise UsageError(f"prefix_cache: found {text!r}, expected memory such as 2GiB, or a share such as 25%")
    return int(quantity(text))


def free_bytes(device: torch.device) -> int:
    """What a device has left; for the CPU, within the limit of the container that this process runs in."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = int(psutil.virtual_memory().available)
    limit, used = _container_bytes(), _CGROUP / "memory.current"
    if limit is not None and used.is_file():
        # the page cache of files that were read counts as used, and goes when memory is wanted
        available = min(available, max(0, limit - int(used.read_text()) + _reclaimable_bytes()))
    return available


def total_bytes(device: torch.device) -> int:
    """What a device has; for the CPU, the machine's memory within the limit of the container."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine, limit = int(psutil.virtual_memory().total), _container_bytes()
    return machine if limit is None else min(machine, limit)


def device_uuid(device: torch.device) -> str:
    """As torch says it: without NVML's prefix, which tells a whole GPU from a part of one."""
    return str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-").removeprefix("MIG-")


def compute_capability(devices: Iterable[torch.device]) -> float | None:
    """The lowest of the GPUs among them (8.9), by torch; None without one."""
    found = [torch.cuda.get_device_capability(device) for device in devices if device.type == "cuda"]
    return min((major + minor / 10 for major, minor in found), default=None)


def _container_bytes() -> int | None:
    limit = _CGROUP / "memory.max"
    text = limit.read_text().strip() if limit.is_file() else ""
    return int(text) if text.isdecimal() else None


def _reclaimable_bytes() -> int:
    statistics = _CGROUP / "memory.stat"
    lines = statistics.read_text().splitlines() if statistics.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


class Batches:
    """Runs work in batches of at most `size` items; halves `size` for good when memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, items: Sequence[_T], work: Callable[[Sequence[_T]], Sequence[_R]]) -> Iterator[_R]:
        """`work` returns one result per item, in order.  Raises OutOfMemory when a single item does not fit."""
        at = 0
        while at < len(items):
            batch = items[at : at + self.size]
            results = self.attempt(partial(work, batch), len(batch))
            if results is not None:
                yield from results
                at += len(batch)

    def attempt(self, call: Callable[[], _R], used: int) -> _R | None:
        """The result of `call`, or None when it ran out of memory and `size` was halved for another try.

        Args:
            used: how many items `call` handles at once.
        """
        try:
            return call()
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            if used <= 1:
                raise OutOfMemory(f"out of memory at batch size 1: {str(problem)[:200]}") from problem
        # outside the handler: the traceback kept the tensors of the failed call alive
        self.size = max(1, min(self.size, used) // 2)
        release()
        return None


class PeakMemory:
    """Peaks of loading and of serving: what scoring kept for itself in between (prompt prefixes) is not the model's."""

    def __init__(self, *devices: torch.device) -> None:
        """Call it when the model has just been loaded."""
        self.loading = peaks(*devices)
        self._devices = devices
        self._kept: Mapping[str, int] = {}  # from before counting last began afresh
        self._is_serving = False

    def serve(self) -> None:
        """From now on the model does what it would do when it is served; counts afresh when first called."""
        if self._is_serving:
            return
        self._is_serving = True
        self._kept = {}
        release()
        restart(*self._devices)

    def begin(self) -> None:
        """Count afresh from here, and keep what was counted."""
        self._kept = self.serving()
        restart(*self._devices)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens meanwhile does not count."""
        self._kept = self.serving()
        try:
            yield
        finally:
            release()
            restart(*self._devices)

    def serving(self) -> Mapping[str, int]:
        """In bytes, since serving began, or so far when nothing was served."""
        return {name: max(value, self._kept.get(name, 0)) for name, value in peaks(*self._devices).items()}

    def read(self) -> Mapping[str, int]:
        """In bytes; the larger of loading and serving."""
        return {name: max(value, self.loading.get(name, 0)) for name, value in self.serving().items()}


def restart(*devices: torch.device) -> None:
    """Let peaks count from what is held now."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # Linux: 5 resets the peak of the resident set (proc_pid_clear_refs(5))
        Path("/proc/self/clear_refs").write_bytes(b"5")


def peaks(*devices: torch.device) -> Mapping[str, int]:
    """Peak memory of this process so far, in bytes; of CUDA devices the sum over those that hold the model."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"rss_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    gpus = [device for device in devices if device.type == "cuda"]
    if gpus:
        found["vram_peak_bytes"] = sum(map(torch.cuda.max_memory_allocated, gpus))
        found["vram_reserved_bytes"] = sum(map(torch.cuda.max_memory_reserved, gpus))
    return found
