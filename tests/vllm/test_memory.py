"""Memory from an engine's own accounting: the arithmetic on a pretended one, and nothing that needs vLLM."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gate.backends import vllm_memory
from gate.backends.vllm_memory import Memory, _kv_bytes_per_token, _reserved_bytes

GIB = 2**30
PART: dict[str, Any] = {
    "weights_bytes": 8 * GIB,
    "weights_read_bytes": 7 * GIB,
    "flops_per_token": 14 * 10**9,
    "activation_peak_bytes": 2 * GIB,
    "kv_reserved_bytes": 20 * GIB,
    "kv_bytes_per_token": 65_536,
    "device_memory_bytes": 80 * GIB,
    "uuid": "1",
    "compute_capability": 9.0,
}


ON_CPU = {**PART, "uuid": None, "compute_capability": None, "activation_peak_bytes": None}


def pretended(*parts: dict[str, Any], tokens: int = 320_000) -> Any:
    """An `LLM` whose processes answer what each part says; 34 GiB of the device's memory are reserved in each."""

    def answers(ask: Callable[..., Any], args: tuple[Any, ...] = ()) -> list[Any]:
        match ask.__name__:
            case "_books":
                return [dict(part) for part in parts]
            case "_vram_reserved_bytes":
                return [34 * GIB] * len(parts)
            case "_peak_memory":
                return [SimpleNamespace(read=lambda: {"rss_peak_bytes": 3 * GIB}, aside=nullcontext)]
            case "_worker_rss_peak_bytes":
                return [3 * GIB] * len(parts)
            case name:
                assert name == "_serve"
                return [None] * len(parts)

    config = SimpleNamespace(
        cache_config=SimpleNamespace(block_size=16, kv_cache_size_tokens=tokens, gpu_memory_utilization=0.45),
        scheduler_config=SimpleNamespace(max_num_seqs=256),
        model_config=SimpleNamespace(dtype=torch.bfloat16),
        parallel_config=SimpleNamespace(world_size=len(parts)),
    )
    return SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=config), collective_rpc=answers)


def no_run(batch_size: int, prompt_tokens: int) -> None:
    raise AssertionError("vLLM has its own figure, or nothing was timed")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What NVML says: `bytes` of this process."""
    said: dict[str, Any] = {"bytes": None}
    gpus = SimpleNamespace(process_bytes=lambda pid: said["bytes"])
    monkeypatch.setattr(vllm_memory, "open_gpus", lambda uuids: gpus if uuids else None)
    return said


def test_what_was_needed_is_not_what_was_reserved(nvml: dict[str, Any]) -> None:
    memory = Memory(pretended(PART))
    before = memory.peaks(no_run)
    assert before["vram_peak_bytes"] == 10 * GIB  # weights and activations; nothing was served yet
    memory.held([1000, 17])
    memory.held([300])  # less than before
    found = memory.peaks(no_run)
    assert found["vram_peak_bytes"] == 10 * GIB + (1008 + 32) * 65_536
    assert found["vram_reserved_bytes"] == 34 * GIB
    assert found["vram_unused_bytes"] == (34 - 8 - 2 - 20) * GIB, "an idle part of the cache is not unused"
    assert found["activation_peak_bytes"] == 2 * GIB
    assert {"vram_process_bytes", "vram_context_bytes"}.isdisjoint(found)  # NVML does not show the process
    nvml["bytes"] = 35 * GIB
    assert memory.peaks(no_run)["vram_process_bytes"] == 35 * GIB
    assert memory.peaks(no_run)["vram_context_bytes"] == GIB


def test_unused_is_never_less_than_nothing(nvml: dict[str, Any]) -> None:
    """vLLM's activations are those of its profile, which it gives back before it makes the cache."""
    assert Memory(pretended({**PART, "kv_reserved_bytes": 25 * GIB})).peaks(no_run)["vram_unused_bytes"] == 0


def test_processes_that_share_a_model_are_summed(nvml: dict[str, Any]) -> None:
    one, two = Memory(pretended(PART)), Memory(pretended(PART, {**PART, "uuid": "2", "compute_capability": 8.9}))
    two.held([1000])
    assert two.device_uuids == ("1", "2")
    assert (one.compute_capability, two.compute_capability) == (9.0, 8.9)
    assert one.footprint().device_share == 0.45
    assert two.peaks(no_run)["vram_peak_bytes"] == 2 * (10 * GIB + 1008 * 65_536)
    assert two.peaks(no_run)["vram_reserved_bytes"] == 68 * GIB
    assert two.peaks(no_run)["rss_peak_bytes"] > 6 * GIB  # and this process, which keeps the requests
    assert one.peaks(no_run)["rss_peak_bytes"] == 3 * GIB
    single, both = one.footprint(), two.footprint()
    assert both.weights_bytes == 2 * single.weights_bytes == 16 * GIB  # type: ignore[operator]
    assert both.kv_bytes_per_token == 2 * 65_536
    assert both.kv_cache_reserved_bytes == 40 * GIB
    assert both.device_memory_bytes == 160 * GIB
    assert (both.kv_cache_tokens, both.max_sequences, both.kv_block_tokens) == (320_000, 256, 16)


def test_processes_on_cpus_share_the_machines_memory() -> None:
    part = {**ON_CPU, "device_memory_bytes": 24 * GIB}
    memory = Memory(pretended(part, part))
    assert memory.footprint().device_memory_bytes == 24 * GIB
    assert memory.device_uuids == ()
    assert memory.compute_capability is None
    assert memory.footprint().device_share is None
    assert set(memory.peaks(no_run)) == {"load_rss_peak_bytes", "rss_peak_bytes"}


@pytest.mark.parametrize("unknown", ["weights_bytes", "activation_peak_bytes", "kv_bytes_per_token"])
def test_what_is_not_known_is_left_out(nvml: dict[str, Any], unknown: str) -> None:
    found = Memory(pretended(PART, {**PART, unknown: None})).peaks(no_run)
    assert "vram_peak_bytes" not in found
    assert ("vram_unused_bytes" in found) == (unknown == "kv_bytes_per_token")
    assert found["vram_reserved_bytes"] == 68 * GIB


def test_activations_on_a_cpu_are_what_torch_allocates_for_the_largest_batch_once_more() -> None:
    memory = Memory(pretended(ON_CPU))
    runs: list[tuple[int, int]] = []

    def run(batch_size: int, prompt_tokens: int) -> None:
        runs.append((batch_size, prompt_tokens))
        first = torch.ones(batch_size, prompt_tokens, 256)
        second = first + 1
        del first
        third = second + 1
        del second, third

    memory.timed(1, 64)
    memory.timed(8, 128)
    memory.timed(4, 32)
    expected = 2 * 8 * 128 * 256 * 4  # two of the three at a time
    assert memory.peaks(run)["activation_peak_bytes"] == pytest.approx(expected, rel=1e-3)
    assert memory.peaks(run)["activation_peak_bytes"] == pytest.approx(expected, rel=1e-3)
    assert runs == [(8, 128)]
    memory.timed(16, 128)
    assert memory.peaks(run)["activation_peak_bytes"] == pytest.approx(2 * expected, rel=1e-3)


def test_sequences_take_whole_blocks_of_the_cache() -> None:
    memory = Memory(pretended({**PART, "uuid": None}, tokens=64))
    assert memory.rounded([1, 16, 17]) == 16 + 16 + 32
    assert memory.cache_holds([1, 16, 17])
    assert not memory.cache_holds([17, 17, 1])


class TestCacheOfLayers:
    def test_layers_of_one_allocation_count_once(self) -> None:
        whole = torch.zeros(2, 1000, dtype=torch.int8)
        assert _reserved_bytes([whole[0], whole[1]]) == 2000
        assert _reserved_bytes([torch.zeros(10), (torch.zeros(5), torch.zeros(5))]) == 80

    def test_bytes_of_a_token_are_those_of_all_layers(self) -> None:
        spec = SimpleNamespace(num_kv_heads=4, page_size_bytes=4096, block_size=16)
        group = SimpleNamespace(kv_cache_spec=spec, layer_names=["a", "b", "c"])
        assert _kv_bytes_per_token(SimpleNamespace(kv_cache_groups=[group, group])) == 6 * 256
        each = SimpleNamespace(
            kv_cache_specs={"a": spec, "b": SimpleNamespace(**{**vars(spec), "page_size_bytes": 8192})}
        )
        mixed = SimpleNamespace(kv_cache_spec=each, layer_names=["a", "b"])
        assert _kv_bytes_per_token(SimpleNamespace(kv_cache_groups=[mixed])) == 256 + 512

    def test_a_layer_with_a_state_of_fixed_size_has_none(self) -> None:
        state = SimpleNamespace(kv_cache_spec=SimpleNamespace(page_size_bytes=4096, block_size=16), layer_names=["a"])
        assert _kv_bytes_per_token(SimpleNamespace(kv_cache_groups=[state])) is None
