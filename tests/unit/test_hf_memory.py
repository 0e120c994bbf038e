"""What counts as the memory of a model that is served: its loading and its serving, not what scoring held."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from gate.backends import hf_memory
from gate.backends.hf_memory import PeakMemory

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")
def test_what_scoring_held_is_not_the_models() -> None:
    memory = PeakMemory(torch.device("cpu"))
    loaded = memory.read()["rss_peak_bytes"]
    held = torch.ones(75 * MIB)  # 300 MiB in float32
    scoring = memory.read()["rss_peak_bytes"]
    del held
    memory.serve()
    assert memory.read()["rss_peak_bytes"] < max(loaded, scoring - 200 * MIB) + 50 * MIB
    held = torch.ones(75 * MIB)
    memory.serve()  # only the first call starts afresh
    assert memory.read()["rss_peak_bytes"] >= loaded
    assert memory.read()["rss_peak_bytes"] >= held.nbytes


def test_the_peak_of_loading_stays() -> None:
    memory = PeakMemory(torch.device("cpu"))
    loaded = memory.read()["rss_peak_bytes"]
    memory.serve()
    assert memory.read()["rss_peak_bytes"] >= loaded


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")
def test_what_happens_aside_does_not_count_and_what_was_before_does() -> None:
    memory = PeakMemory(torch.device("cpu"))
    memory.serve()
    torch.ones(25 * MIB)  # 100 MiB
    before = memory.serving()["rss_peak_bytes"]
    with memory.aside():
        torch.ones(75 * MIB)
    assert before <= memory.serving()["rss_peak_bytes"] < before + 50 * MIB
    memory.begin()
    assert memory.serving()["rss_peak_bytes"] >= before


def test_a_device_has_at_most_what_its_container_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_memory, "_CGROUP", tmp_path)
    machine = psutil.virtual_memory().total
    for limit, expected in (("5000\n", 5000), ("max\n", machine), (f"{machine * 2}\n", machine)):
        (tmp_path / "memory.max").write_text(limit)
        assert hf_memory.total_bytes(torch.device("cpu")) == expected


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "CUDA error: out of memory",
    ],
)
def test_libraries_that_cannot_allocate_are_out_of_memory(said: str) -> None:
    assert hf_memory.is_out_of_memory(RuntimeError(said))
    assert not hf_memory.is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"))


def test_a_gpu_has_one_name_and_the_lowest_capability_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [torch.device("cuda:0"), torch.device("cuda:1")]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda card: SimpleNamespace(uuid=f"GPU-a{card.index}"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (9 - card.index, 0 + 6 * card.index))
    assert [hf_memory.device_uuid(card) for card in cards] == ["a0", "a1"]
    assert hf_memory.compute_capability([torch.device("cpu"), *cards]) == 8.6
    assert hf_memory.compute_capability([torch.device("cpu")]) is None
