"""What a device can do at most, measured here and now: bytes copied and multiplications of matrices in a second.

The limits that a model's speed is held against.  Takes about a second and a bounded part of the free memory, which
counts in the peaks of the process unless the caller puts it aside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from gate.backends import DeviceRates
from gate.backends.hf_memory import free_bytes, is_out_of_memory
from gate.backends.marks import Marks

_MIB = 2**20
_BUFFER_BYTES = {"cpu": 256 * _MIB, "cuda": 1024 * _MIB}  # several times the largest caches
_LARGEST_SIDE = {"cpu": 2048, "cuda": 8192}
_SMALLEST_SIDE = 256
_SHARE = 8  # of the free memory: one part in so many
_LONG_ENOUGH_SECONDS = 0.02
_SECONDS = 0.3  # of repeating, for each of the two
_MIN_TIMES, _MAX_TIMES = 3, 50


def measured(device: torch.device, dtype: torch.dtype) -> DeviceRates:
    """The best of several copies of a large buffer (bytes read and written) and of several square products in `dtype`.

    With the threads that torch has in this process; in bfloat16 or float32 where `dtype` is only stored (FP8, ints).
    The best, because whatever else runs can only slow it down.
    """
    return DeviceRates(
        copy_bytes_per_second=_copy_bytes_per_second(device),
        matmul_flops_per_second=_matmul_flops_per_second(device, _multiplied(device, dtype)),
    )


def _multiplied(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The first dtype in which matrices are multiplied here."""
    wanted = [dtype] if dtype.is_floating_point and dtype.itemsize > 1 else []  # others need scales
    for each in (*wanted, torch.bfloat16):
        try:
            one = torch.ones((16, 16), device=device).to(each)
            torch.matmul(one, one, out=torch.empty_like(one))
        except RuntimeError as problem:
            if is_out_of_memory(problem):
                raise
            continue
        return each
    return torch.float32


def _copy_bytes_per_second(device: torch.device) -> float:
    n_bytes = max(_MIB, min(_BUFFER_BYTES[device.type], free_bytes(device) // _SHARE))
    source = torch.ones(n_bytes // 4, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_seconds(device, lambda: target.copy_(source))


def _matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """With the smallest matrices that take long enough, or the largest that are allowed."""
    affordable = int((free_bytes(device) // _SHARE / 3 / dtype.itemsize) ** 0.5)
    side = _SMALLEST_SIDE
    while True:
        left, right = (torch.randn((side, side), device=device).to(dtype) for _ in range(2))
        multiply = partial(torch.matmul, left, right, out=torch.empty_like(left))
        is_last = side * 2 > min(_LARGEST_SIDE[device.type], affordable)
        if is_last or _best_seconds(device, multiply, seconds=0) >= _LONG_ENOUGH_SECONDS:
            return 2 * side**3 / _best_seconds(device, multiply)
        side *= 2


def _best_seconds(device: torch.device, work: Callable[[], object], *, seconds: float = _SECONDS) -> float:
    """Shortest of the times that fit into `seconds`, three at least; the first run is thrown away."""
    work()
    best, spent, times = float("inf"), 0.0, 0
    while times < _MIN_TIMES or (spent < seconds and times < _MAX_TIMES):
        marks = Marks(device)
        marks.add()
        work()
        marks.add()
        (took,) = marks.steps_seconds()
        best, spent, times = min(best, took), spent + took, times + 1
    return best
