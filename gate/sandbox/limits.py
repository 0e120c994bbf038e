"""How much of the machine a sandboxed program gets, and which folders of it the program sees.

Pure numbers and paths; enforces nothing.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

SCRATCH = "/sandbox-scratch"
"""Inside the sandbox: the working directory and the only place that can be written to."""

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache")
_MIB = 1024**2


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of one program.  `cpu_seconds` and `memory_bytes` hold for each of its processes.

    Time is CPU time, so that a busy machine turns no right answer into a wrong one; `idle_factor` times as much may
    pass on the clock.
    """

    cpu_seconds: int
    idle_factor: int
    memory_bytes: int
    file_bytes: int
    scratch_bytes: int
    scratch_files: int
    open_files: int
    processes: int

    @property
    def wall_seconds(self) -> float:
        return float(self.cpu_seconds * self.idle_factor)


LIMITS = Limits(
    cpu_seconds=3,  # what evaluate's code_eval allows
    idle_factor=5,
    memory_bytes=1024 * _MIB,
    file_bytes=16 * _MIB,
    scratch_bytes=64 * _MIB,
    scratch_files=4096,
    open_files=128,
    processes=16,
)


def prlimit(limits: Limits) -> list[str]:
    """The command that sets the limits and runs what follows it."""
    return [
        "prlimit",
        f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}",
        f"--as={limits.memory_bytes}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.open_files}",
        f"--nproc={limits.processes}",
        "--core=0",
        "--memlock=0",
        "--msgqueue=0",
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What of the machine's files the program sees, read-only: the system's libraries, this interpreter, its packages.

    Attributes:
        folders: shown where they are.
        links: (place, target) of symbolic links to be made again.
    """

    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def view() -> View:
    """The view of the interpreter that runs this."""
    links = tuple((place, str(Path(place).readlink())) for place in _SYSTEM if Path(place).is_symlink())
    wanted = [place for place in _SYSTEM if Path(place).exists() and not Path(place).is_symlink()]
    interpreter = os.path.realpath(sys.executable)
    libraries = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    wanted += [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *libraries]
    wanted += [os.path.dirname(interpreter)]  # noqa: PTH120  strings throughout
    folders: list[str] = []
    for place in sorted({os.path.normpath(w) for w in wanted if os.path.exists(w)}):  # noqa: PTH110
        if not any(place.startswith(f"{above}/") for above in folders):
            folders.append(place)
    return View(folders=tuple(folders), links=links)


def environment() -> dict[str, str]:
    """The program's whole environment.  Sets and dictionaries are in the same order every time."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        **one_thread,
    }
