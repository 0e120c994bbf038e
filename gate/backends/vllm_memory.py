"""What a vLLM engine holds and takes, from its own accounting, summed over the processes that hold the model.

Measures nothing by the clock.  On a GPU vLLM fills its share of the memory with key/value cache whether requests need
it or not: `vram_reserved_bytes` is that reservation, `vram_peak_bytes` is what was needed of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from gate.backends import DeviceRates, Footprint, OutOfMemory
from gate.backends.allocations import highest_bytes
from gate.backends.hf_memory import PeakMemory, compute_capability, device_uuid, total_bytes
from gate.backends.rates import measured
from gate.backends.vllm_weights import weights
from gate.machine.gpus import Gpus, open_gpus

_Part = dict[str, Any]


class Memory:
    """Made when the engine has just been loaded: peaks until then are those of loading."""

    def __init__(self, llm: Any) -> None:
        config = llm.llm_engine.vllm_config
        self._llm = llm
        self._cache = config.cache_config
        self._max_sequences = int(config.scheduler_config.max_num_seqs)
        self._dtype = config.model_config.dtype
        self._parts: list[_Part] = llm.collective_rpc(_books)
        # a model in one process is in this one; where it is spread, this one only keeps the requests
        self._is_spread = int(config.parallel_config.world_size) > 1
        self._here: PeakMemory = PeakMemory() if self._is_spread else llm.collective_rpc(_peak_memory)[0]
        self._load_rss_peak_bytes = self._rss_peak_bytes()
        self._is_serving = False
        self._held_tokens = 0
        self._largest: tuple[int, int] | None = None
        self._allocated: tuple[tuple[int, int], int] | None = None
        self.device_uuids = tuple(part["uuid"] for part in self._parts if part["uuid"] is not None)
        self.gpus: Gpus | None = open_gpus(self.device_uuids)
        known = [part["compute_capability"] for part in self._parts if part["compute_capability"] is not None]
        self.compute_capability: float | None = min(known, default=None)

    def serve(self) -> None:
        """From now on the engine does what it would do when it is served; peaks count afresh when first called."""
        if self._is_serving:
            return
        self._is_serving = True
        self._llm.collective_rpc(_serve)
        if self._is_spread:
            self._here.serve()

    def held(self, lengths: Sequence[int]) -> None:
        """Sequences of so many tokens were in the key/value cache together."""
        self._held_tokens = max(self._held_tokens, self.rounded(lengths))

    def timed(self, batch_size: int, prompt_tokens: int) -> None:
        """A batch of this shape was timed."""
        asked = (batch_size, prompt_tokens)
        if self._largest is None or batch_size * prompt_tokens > self._largest[0] * self._largest[1]:
            self._largest = asked

    def rounded(self, lengths: Sequence[int]) -> int:
        """Tokens that sequences take in the key/value cache: whole blocks."""
        block = int(self._cache.block_size)
        return sum(-(-tokens // block) * block for tokens in lengths)

    def cache_holds(self, lengths: Sequence[int]) -> bool:
        """Whether sequences of so many tokens each fit into the key/value cache together."""
        return self.rounded(lengths) <= int(self._cache.kv_cache_size_tokens)

    def footprint(self) -> Footprint:
        reserved = self._sum("kv_reserved_bytes")
        return Footprint(
            weights_bytes=self._sum("weights_bytes"),
            weights_read_bytes=self._sum("weights_read_bytes"),
            kv_bytes_per_token=self._sum("kv_bytes_per_token"),
            flops_per_token=self._sum("flops_per_token"),
            kv_cache_reserved_bytes=reserved,
            kv_cache_tokens=int(self._cache.kv_cache_size_tokens) if reserved else None,
            max_sequences=self._max_sequences,
            device_memory_bytes=self._device_memory_bytes(),
            kv_block_tokens=int(self._cache.block_size),
            device_share=float(self._cache.gpu_memory_utilization) if self.device_uuids else None,
        )

    def peaks(self, run: Callable[[int, int], object]) -> Mapping[str, int]:
        """The names of `Backend.memory_bytes` that are known here.

        Args:
            run: answers a batch of a given size and prompt length.  On a CPU, where vLLM profiles no activations, the
                largest batch that was timed runs once more, and what torch allocates for it is counted.
        """
        found = {"load_rss_peak_bytes": self._load_rss_peak_bytes, "rss_peak_bytes": self._rss_peak_bytes()}
        activations = self._sum("activation_peak_bytes") if self.device_uuids else self._allocated_bytes(run)
        if activations is not None:
            found["activation_peak_bytes"] = activations
        if not self.device_uuids:
            return found
        reserved = sum(self._llm.collective_rpc(_vram_reserved_bytes))
        found["vram_reserved_bytes"] = reserved
        holds, kv_bytes = self._sum("weights_bytes"), self._sum("kv_bytes_per_token")
        if holds is not None and activations is not None and kv_bytes is not None:
            found["vram_peak_bytes"] = holds + activations + self._held_tokens * kv_bytes
        cache = self._sum("kv_reserved_bytes")
        if holds is not None and activations is not None and cache is not None:
            # the cache is there to be filled: what of it is idle is not unused
            found["vram_unused_bytes"] = max(0, reserved - holds - activations - cache)
        process = None if self.gpus is None else self.gpus.process_bytes(os.getpid())
        if process is not None:
            found["vram_process_bytes"] = process
            found["vram_context_bytes"] = max(0, process - reserved)
        return found

    def rates(self) -> DeviceRates:
        """Of all processes of the engine together, each on its own device."""
        found: list[DeviceRates] = self._llm.collective_rpc(_rates, args=(self._dtype,))
        return DeviceRates(
            copy_bytes_per_second=sum(each.copy_bytes_per_second for each in found),
            matmul_flops_per_second=sum(each.matmul_flops_per_second for each in found),
        )

    def _allocated_bytes(self, run: Callable[[int, int], object]) -> int | None:
        """Peak of activations on a CPU; None before a batch was timed and for a model in other processes."""
        if self._largest is None or self._is_spread:
            return None
        if self._allocated is None or self._allocated[0] != self._largest:
            try:
                with self._here.aside():
                    allocated = highest_bytes(partial(run, *self._largest))
            except OutOfMemory:  # it fitted before: another process took the memory
                return None
            self._allocated = (self._largest, allocated)
        return self._allocated[1]

    def _sum(self, name: str) -> int | None:
        found = [part[name] for part in self._parts]
        return None if None in found else sum(found)

    def _device_memory_bytes(self) -> int:
        found = [part["device_memory_bytes"] for part in self._parts]
        return sum(found) if self.device_uuids else max(found)  # processes on CPUs share the machine's

    def _rss_peak_bytes(self) -> int:
        others: list[int] = self._llm.collective_rpc(_worker_rss_peak_bytes) if self._is_spread else []
        return self._here.read()["rss_peak_bytes"] + sum(others)


def _books(worker: Any) -> _Part:
    """In each process that holds a part of the model, as all functions below: what it holds there."""
    runner, on_gpu = worker.model_runner, worker.device.type == "cuda"
    worker.quantgate_peaks = PeakMemory(worker.device)
    held = weights(runner.get_model())
    return {
        # vLLM's own figure counts what its kernels repack; it keeps none on a CPU
        "weights_bytes": int(runner.model_memory_usage) if on_gpu else held.bytes,
        "weights_read_bytes": held.read_bytes,
        "flops_per_token": held.flops_per_token,
        "activation_peak_bytes": _profiled(worker) if on_gpu else None,
        "kv_reserved_bytes": _reserved_bytes(runner.kv_caches),
        "kv_bytes_per_token": _kv_bytes_per_token(runner.kv_cache_config),
        "device_memory_bytes": total_bytes(worker.device),
        "uuid": device_uuid(worker.device) if on_gpu else None,
        "compute_capability": compute_capability([worker.device]),
    }


def _serve(worker: Any) -> None:
    worker.quantgate_peaks.serve()


def _worker_rss_peak_bytes(worker: Any) -> int:
    return int(worker.quantgate_peaks.read()["rss_peak_bytes"])


def _peak_memory(worker: Any) -> PeakMemory:
    """Itself: only where the worker is in this process."""
    found: PeakMemory = worker.quantgate_peaks
    return found


def _vram_reserved_bytes(worker: Any) -> int:
    return int(worker.quantgate_peaks.serving()["vram_reserved_bytes"])


def _rates(worker: Any, dtype: torch.dtype) -> DeviceRates:
    with worker.quantgate_peaks.aside():  # its buffers are not the model's
        return measured(worker.device, dtype)


def _profiled(worker: Any) -> int | None:
    """Peak of activations and CUDA graphs that vLLM found with the largest batch of tokens that it may run."""
    found = getattr(worker, "peak_activation_memory", None)  # not there where the size of the cache was given
    return None if found is None else int(found)


def _reserved_bytes(caches: Sequence[Any]) -> int:
    """Of the tensors of the key/value cache; layers may share one allocation."""
    tensors = [t for cache in caches for t in (cache if isinstance(cache, list | tuple) else [cache])]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _kv_bytes_per_token(config: Any) -> int | None:
    """Of all layers; None where a layer keeps a state that does not grow by the token."""
    total = 0.0
    for group in config.kv_cache_groups:
        spec = group.kv_cache_spec
        kinds = getattr(spec, "kv_cache_specs", None)  # one for each layer
        for own in kinds.values() if kinds else [spec] * len(group.layer_names):
            if not hasattr(own, "num_kv_heads"):
                return None
            total += own.page_size_bytes / own.block_size
    return round(total)
