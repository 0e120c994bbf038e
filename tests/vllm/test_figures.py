"""Sizes and limits that the vllm backend gives, against files, formulas and psutil, on a Llama of 50 M parameters."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors import safe_open

from gate.backends import Arrival
from tests.contract import speed_llama as llama
from tests.vllm.engines import described, needs_vllm, quietly

pytestmark = [pytest.mark.vllm, needs_vllm]

CACHE_BYTES = 64 * 2**20
TABLE_BYTES = llama.VOCABULARY * llama.HIDDEN * 2
"""Of the input embedding, and of the head: both BF16 in all formats."""

ROTARY_BYTES = llama.CONTEXT_LENGTH * llama.HEAD_SIZE * 2
"""Sines and cosines of all positions, half of each."""

BLOCK_TOKENS = 128


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("speed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the quantization libraries
        plain = llama.save(root / "bf16")
        packed = {scheme: llama.save_quantized(plain, root / scheme, scheme) for scheme in ("w8a8", "w4a16")}
    return {"bf16": plain, **packed}


@pytest.fixture(scope="module", params=["bf16", "w8a8", "w4a16"])
def named(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[str, Any]:
    from gate.backends.vllm import open_backend

    settings = described(folders[request.param], "bfloat16", cpu_kv_cache=str(CACHE_BYTES))
    return request.param, quietly(open_backend, settings)


@pytest.fixture
def backend(named: tuple[str, Any]) -> Any:
    return named[1]


def stored(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping


def test_weights_are_those_of_the_files_and_what_vllm_keeps_beside(
    named: tuple[str, Any], folders: dict[str, Path]
) -> None:
    """3 %: scales are widened to float32 and sums of columns are kept.  On CPUs both tables are there twice: as loaded,
    and packed for a kernel."""
    name, backend = named
    on_disk = sum(tensor.nbytes for tensor in stored(folders[name]).values())
    found = backend.footprint()
    assert found.weights_bytes - 2 * TABLE_BYTES - ROTARY_BYTES == pytest.approx(on_disk, rel=0.03)
    # a step reads neither the input embedding nor the second copies
    assert found.weights_read_bytes == pytest.approx(on_disk - TABLE_BYTES, rel=0.03)
    if name == "bf16":
        scales = 1024  # of the attention layers' caches, a few bytes each
        assert found.weights_bytes == pytest.approx(on_disk + 2 * TABLE_BYTES + ROTARY_BYTES, abs=scales)
        assert found.weights_read_bytes == on_disk - TABLE_BYTES


def test_flops_are_two_for_each_weight_of_a_matrix(backend: Any, folders: dict[str, Path]) -> None:
    matrices = [t for name, t in stored(folders["bf16"]).items() if "_proj." in name]
    assert backend.footprint().flops_per_token == 2 * sum(t.numel() for t in matrices)


def test_the_key_value_cache_is_that_of_the_formula_and_of_the_reservation(backend: Any) -> None:
    found = backend.footprint()
    assert found.kv_bytes_per_token == 2 * llama.LAYERS * llama.KV_HEADS * llama.HEAD_SIZE * 2
    assert found.kv_cache_reserved_bytes == CACHE_BYTES
    assert found.kv_cache_tokens == CACHE_BYTES // found.kv_bytes_per_token
    assert found.kv_block_tokens == BLOCK_TOKENS
    assert found.max_sequences == 256
    assert 0 < found.device_memory_bytes <= psutil.virtual_memory().total


def test_activations_grow_with_the_tokens_of_a_step_and_are_not_the_cache(backend: Any) -> None:
    """At least what a layer of this size must hold at once: gate and up of the MLP, and their product."""
    backend.timed_batch(batch_size=1, prompt_tokens=100, new_tokens=2, seed=0)
    small = backend.memory_bytes()["activation_peak_bytes"]
    backend.timed_batch(batch_size=8, prompt_tokens=100, new_tokens=2, seed=0)
    large = backend.memory_bytes()["activation_peak_bytes"]
    assert small >= 100 * 3 * llama.INTERMEDIATE * 2
    assert large >= 800 * 3 * llama.INTERMEDIATE * 2
    assert large <= 800 * 3 * llama.INTERMEDIATE * 2 * 4  # and a few more of the sort, but nothing else
    assert backend.memory_bytes()["activation_peak_bytes"] == large


def test_a_model_on_a_cpu_has_no_figures_of_a_gpu(backend: Any) -> None:
    backend.timed_batch(batch_size=1, prompt_tokens=8, new_tokens=2, seed=0)
    found = backend.memory_bytes()
    assert set(found) == {"rss_peak_bytes", "load_rss_peak_bytes", "activation_peak_bytes"}
    # the kernel keeps the counter of a process of several threads some pages off
    assert found["rss_peak_bytes"] >= 0.98 * psutil.Process().memory_info().rss
    assert found["rss_peak_bytes"] >= found["load_rss_peak_bytes"] > backend.footprint().weights_bytes
    assert backend.info.device_uuids == ()


def test_what_the_largest_load_held_is_known(backend: Any) -> None:
    together = [Arrival(at_seconds=0.0, prompt_tokens=200, new_tokens=4)] * 6
    backend.serve(together, concurrency=None, seed=0)
    assert backend._engine.memory._held_tokens >= 6 * 2 * BLOCK_TOKENS
    before = backend._engine.memory._held_tokens
    backend.serve(together, concurrency=2, seed=0)
    assert backend._engine.memory._held_tokens == before


def test_rates_are_measured_once_and_do_not_count_as_memory(backend: Any) -> None:
    before = backend.memory_bytes()["rss_peak_bytes"]
    rates = backend.rates()
    assert backend.rates() is rates
    assert 1e8 < rates.copy_bytes_per_second < 1e13
    assert 1e8 < rates.matmul_flops_per_second < 1e16
    assert backend.memory_bytes()["rss_peak_bytes"] < before + 64 * 2**20


def test_all_figures_of_a_served_batch_are_there(backend: Any) -> None:
    timing = backend.timed_batch(batch_size=3, prompt_tokens=40, new_tokens=5, seed=0)
    served = backend.serve([Arrival(at_seconds=0.0, prompt_tokens=40, new_tokens=5)] * 3, concurrency=3, seed=0)
    assert len(timing.step_seconds) == 4
    assert {s.new_tokens for s in served} == {5}
