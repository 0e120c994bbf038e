"""Memory of a model that is served, taken apart by one more run of the largest batch, which nobody times.

The parts are torch's own counts, on a GPU also what the driver counts for the process.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch

from gate.backends import OutOfMemory
from gate.backends.allocations import highest_bytes
from gate.backends.hf_memory import PeakMemory, peaks, release
from gate.machine.gpus import Gpus


class Batch(NamedTuple):
    """A batch as it was timed."""

    batch_size: int
    prompt_tokens: int
    new_tokens: int
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        """What batches are compared by: tokens in the cache at the end, then tokens that are computed together."""
        return self.cached_tokens, self.batch_size * self.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """Keys and values at the end: the last token is not fed back."""
        return self.batch_size * (self.prompt_tokens + self.new_tokens - 1)


class ServingMemory:
    """Peaks of loading and serving of one model, with their parts."""

    def __init__(self, *devices: torch.device, gpus: Gpus | None) -> None:
        """Call it when the model has just been loaded."""
        self.peaks = PeakMemory(*devices)
        self._cards = [device for device in devices if device.type == "cuda"]
        self._gpus = gpus
        self._largest: Batch | None = None
        self._parts_of: Batch | None = None
        self._parts: Mapping[str, int] = {}

    def served(self, batch: Batch) -> None:
        """A batch was answered."""
        if self._largest is None or batch.size > self._largest.size:
            self._largest = batch

    def read(self, run: Callable[[Batch], object], kv_bytes_per_token: int | None) -> Mapping[str, int]:
        """In bytes, those that apply: the names of `Backend.memory_bytes`.

        Runs the largest batch served once more by `run`, unless that was done for it before.
        """
        found = {f"load_{name}": value for name, value in self.peaks.loading.items() if name.endswith("_peak_bytes")}
        if self._largest is not None and self._largest != self._parts_of:
            self._parts = self._taken_apart(self._largest, run, kv_bytes_per_token)
            self._parts_of = self._largest
        serving = self.peaks.serving()
        if self._cards:
            found["vram_unused_bytes"] = serving["vram_reserved_bytes"] - serving["vram_peak_bytes"]
        return {**found, **self.peaks.read(), **self._parts}

    def _taken_apart(
        self, batch: Batch, run: Callable[[Batch], object], kv_bytes_per_token: int | None
    ) -> Mapping[str, int]:
        """`activation_peak_bytes`: by how much memory rises, less the batch's key/value cache as it is at the end."""
        gc.collect()
        release()
        try:
            rise, parts = self._on_cards(batch, run) if self._cards else (self._on_cpu(batch, run), {})
        except OutOfMemory:  # it fitted before: another process took the memory
            return {}
        if kv_bytes_per_token is not None:
            parts["activation_peak_bytes"] = max(0, rise - batch.cached_tokens * kv_bytes_per_token)
        return parts

    def _on_cpu(self, batch: Batch, run: Callable[[Batch], object]) -> int:
        """By how much torch's own memory rises; what watching it takes does not count in the peaks."""
        with self.peaks.aside():
            return highest_bytes(partial(run, batch))

    def _on_cards(self, batch: Batch, run: Callable[[Batch], object]) -> tuple[int, dict[str, int]]:
        """By how much torch's own memory rises, and the process as the driver counts it."""
        self.peaks.begin()
        held = sum(map(torch.cuda.memory_allocated, self._cards))
        sampler = None if self._gpus is None else self._gpus.peak_of(os.getpid())
        with sampler or nullcontext():
            run(batch)
        now, parts = peaks(*self._cards), {}
        if sampler is not None and sampler.peak_bytes is not None:
            parts["vram_process_bytes"] = sampler.peak_bytes
            parts["vram_context_bytes"] = max(0, sampler.peak_bytes - now["vram_reserved_bytes"])
        return now["vram_peak_bytes"] - held, parts
