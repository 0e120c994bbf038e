"""Moments on a device's own clock: CUDA events on its current stream, the process's clock on a CPU.

Marking does not wait for the device; reading does.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch

_SECONDS_PER_MILLISECOND = 1e-3


class Marks:
    """Call `add` at each moment, and `steps_seconds` once for the times between them."""

    def __init__(self, device: torch.device) -> None:
        """Waits for what the device still has to do, so that it does not count."""
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._found: list[Any] = []
        if self._on_gpu:
            torch.cuda.synchronize(device)

    def add(self) -> None:
        if not self._on_gpu:
            self._found.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # in its stubs
        event.record(torch.cuda.current_stream(self._device))
        self._found.append(event)

    def __len__(self) -> int:
        return len(self._found)

    def steps_seconds(self) -> tuple[float, ...]:
        """Between each mark and the next; waits for the last of them."""
        if not self._on_gpu:
            return tuple(after - before for before, after in pairwise(self._found))
        for event in self._found[-1:]:
            event.synchronize()
        return tuple(a.elapsed_time(b) * _SECONDS_PER_MILLISECOND for a, b in pairwise(self._found))
