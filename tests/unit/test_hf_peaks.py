"""The parts of a served model's memory, on a CPU as it is and on a GPU that is made up."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from gate.backends import OutOfMemory
from gate.backends.hf_peaks import Batch, ServingMemory

MIB = 2**20
CPU, CARD = torch.device("cpu"), torch.device("cuda:0")
SMALL, LARGE = Batch(1, 100, 20, 0), Batch(8, 100, 20, 0)


def holding(n_bytes: int) -> Callable[[Batch], None]:
    """A run that holds so much at its peak."""

    def run(_: Batch) -> None:
        torch.ones(n_bytes, dtype=torch.uint8)

    return run


def test_the_largest_batch_fills_the_cache_most_and_computes_most_together() -> None:
    assert LARGE.cached_tokens == 8 * 119  # the last token is not fed back
    assert max([Batch(8, 20, 100, 0), SMALL, LARGE], key=lambda batch: batch.size) == LARGE


@pytest.mark.parametrize(("kv_bytes_per_token", "expected"), [(0, 80 * MIB), (10_000, 80 * MIB - 9_520_000)])
def test_activations_are_the_rise_without_the_cache(kv_bytes_per_token: int, expected: int) -> None:
    memory = ServingMemory(CPU, gpus=None)
    memory.peaks.serve()
    memory.served(LARGE)
    found = memory.read(holding(80 * MIB), kv_bytes_per_token)
    assert set(found) == {"rss_peak_bytes", "load_rss_peak_bytes", "activation_peak_bytes"}
    assert found["activation_peak_bytes"] == expected
    assert found["rss_peak_bytes"] > found["activation_peak_bytes"]


def test_what_else_the_process_takes_meanwhile_is_no_activation() -> None:
    kept: list[bytes] = []

    def run(_: Batch) -> None:
        kept.append(os.urandom(30 * MIB))
        holding(10 * MIB)(LARGE)

    def read() -> int:
        memory = ServingMemory(CPU, gpus=None)
        memory.served(LARGE)
        return memory.read(run, 0)["activation_peak_bytes"]

    assert [read() for _ in range(3)] == [10 * MIB] * 3


def test_activations_are_never_less_than_nothing() -> None:
    memory = ServingMemory(CPU, gpus=None)
    memory.served(LARGE)
    assert memory.read(holding(1), kv_bytes_per_token=MIB)["activation_peak_bytes"] == 0


def test_what_is_not_known_is_left_out() -> None:
    memory = ServingMemory(CPU, gpus=None)
    assert set(memory.read(holding(1), 8)) == {"rss_peak_bytes", "load_rss_peak_bytes"}  # nothing was served
    memory.served(SMALL)
    assert "activation_peak_bytes" not in memory.read(holding(1), None)  # the cache is not known


def test_a_run_that_does_not_fit_any_more_is_left_out() -> None:
    def short(_: Batch) -> None:
        raise OutOfMemory("another process took it")

    memory = ServingMemory(CPU, gpus=None)
    memory.served(SMALL)
    assert set(memory.read(short, 8)) == {"rss_peak_bytes", "load_rss_peak_bytes"}


def test_one_more_run_is_made_for_each_new_largest_batch() -> None:
    ran: list[Batch] = []
    memory = ServingMemory(CPU, gpus=None)
    for batch in (SMALL, SMALL, LARGE, SMALL):
        memory.served(batch)
        memory.read(ran.append, 8)
    assert ran == [SMALL, LARGE]


class Card:
    """torch's counts of a GPU: what is held now, and the peaks since they were reset."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.peak = self.reserved_peak = 0
        for name in ("memory_allocated", "max_memory_allocated", "max_memory_reserved", "reset_peak_memory_stats"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def hold(self, n_bytes: int, *, reserved: int) -> None:
        self.now = n_bytes
        self.peak, self.reserved_peak = max(self.peak, n_bytes), max(self.reserved_peak, reserved)

    def memory_allocated(self, device: torch.device) -> int:
        assert device == CARD
        return self.now

    def max_memory_allocated(self, device: torch.device) -> int:
        return self.peak

    def max_memory_reserved(self, device: torch.device) -> int:
        return self.reserved_peak

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.peak, self.reserved_peak = self.now, self.now


class Gpus:
    """What the driver counts for this process, or None where it does not show it."""

    def __init__(self, peak_bytes: int | None) -> None:
        self._peak_bytes = peak_bytes

    def peak_of(self, pid: int) -> Gpus:
        assert pid == os.getpid()
        return self

    def __enter__(self) -> SimpleNamespace:
        return self  # type: ignore[return-value]

    def __exit__(self, *_: object) -> None:
        self.peak_bytes = self._peak_bytes


@pytest.mark.parametrize("process", [1300, None])
def test_on_a_gpu_the_parts_add_up(monkeypatch: pytest.MonkeyPatch, process: int | None) -> None:
    card = Card(monkeypatch)
    card.hold(900, reserved=1000)  # while loading
    card.hold(500, reserved=1000)  # weights
    memory = ServingMemory(CARD, gpus=Gpus(process))  # type: ignore[arg-type]
    memory.peaks.serve()

    def run(batch: Batch) -> None:
        card.hold(500 + 300 + batch.batch_size, reserved=1100)
        card.hold(500, reserved=1100)

    run(LARGE)
    memory.served(LARGE)
    found = memory.read(run, kv_bytes_per_token=0)
    assert found["load_vram_peak_bytes"] == 900
    assert found["vram_peak_bytes"] == 900  # loading took more than serving
    assert found["activation_peak_bytes"] == 308
    assert found["vram_reserved_bytes"] == 1100
    assert found["vram_unused_bytes"] == 1100 - 808  # while serving
    assert found.get("vram_process_bytes") == process
    assert found.get("vram_context_bytes") == (None if process is None else 200)
