"""The ways in which a fake model can fail, each like the real thing.

Only the worker may call this: most of it ends the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import assert_never

from gate.backends import OutOfMemory
from gate.backends.fake_settings import Fault

EXIT_STATUS = 7
_FOR_EVER_SECONDS = 86_400


class Faults:
    """Counts the items of each operation and strikes when a fault's time has come."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults
        self._done: Counter[str] = Counter()

    def strike(self, op: str, items: int) -> None:
        """Called before `items` of operation `op` are carried out."""
        self._done[op] += items
        for fault in self._faults:
            if fault.op == op and self._done[op] > fault.after:
                _act(fault)


def _act(fault: Fault) -> None:
    match fault.action:
        case "raise":
            raise RuntimeError(f"fault injected in {fault.op}")
        case "memory_error":
            raise MemoryError
        case "out_of_memory":
            raise OutOfMemory(f"fault injected in {fault.op}: CUDA out of memory")
        case "sigkill":
            print("last words of the fake", file=sys.stderr, flush=True)  # noqa: T201 - what a dying library does
            os.kill(os.getpid(), signal.SIGKILL)
        case "sigsegv":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            sys.exit(EXIT_STATUS)
        case "hang":
            time.sleep(_FOR_EVER_SECONDS)
        case "freeze":
            ctypes.PyDLL(None).sleep(_FOR_EVER_SECONDS)  # PyDLL keeps the interpreter lock, as stuck native code does
        case unexpected:
            assert_never(unexpected)
