"""Sizes and the largest batch that fits, from what a backend says of itself; every number by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gate.backends import Footprint
from gate.policy import ProfileStage
from gate.stages.profile_memory import Sizes, sizes

FOOTPRINT = Footprint(
    weights_bytes=1_000_000,
    weights_read_bytes=900_000,
    kv_bytes_per_token=100,
    flops_per_token=2_000_000,
    kv_cache_reserved_bytes=None,
    kv_cache_tokens=None,
    max_sequences=None,
    device_memory_bytes=10_000_000,
)
PEAKS = {"vram_peak_bytes": 1_500_000, "activation_peak_bytes": 80_000, "vram_context_bytes": 200_000}


def _sizes(
    footprint: Footprint = FOOTPRINT,
    peaks: dict[str, int] = PEAKS,
    *,
    largest_tokens: int | None = 8 * 160,
    context_length: int = 4096,
    is_cuda: bool = True,
    **settings: Any,
) -> Sizes:
    rules = [{"metric": "vram_peak", "max": "1GiB"}]
    given = {"kind": "profile", "name": "x", "rules": rules, "batch_sizes": [8, 1]} | settings
    stage = ProfileStage.model_validate(given)
    return sizes(stage, footprint, peaks, largest_tokens=largest_tokens, context_length=context_length, is_cuda=is_cuda)


def test_the_default_context_is_the_longest_of_the_lengths_and_the_budget_the_device() -> None:
    found = _sizes().values
    assert found["context_tokens"] == 160
    assert found["kv_cache_bytes"] == 100 * 160 * 8
    assert found["memory_budget_bytes"] == 10_000_000
    # (10,000,000 − 1,000,000 − 200,000) / (160 · (100 + 80,000 / 1,280)) = 8,800,000 / 26,000 = 338.46
    assert found["max_batch_at_context"] == 338
    assert _sizes(lengths=["128+32", "1024+64"]).values["context_tokens"] == 1088
    assert _sizes(serving={"loads": [{"rate": 1}], "mix": ["256+16"]}).values["context_tokens"] == 272


def test_the_policy_sets_context_and_budget() -> None:
    found = _sizes(context_tokens=2048, memory_budget="4MB").values
    assert found["kv_cache_bytes"] == 100 * 2048 * 8
    # 2,800,000 / (2048 · 162.5) = 8.41
    assert found["max_batch_at_context"] == 8
    assert _sizes(memory_budget="1MB").values["max_batch_at_context"] == 0, "not even the weights fit"


ENGINE = replace(
    FOOTPRINT, kv_cache_tokens=5000, kv_cache_reserved_bytes=500_000, max_sequences=1000, device_share=0.45
)
UNKNOWN_ACTIVATIONS = {"vram_peak_bytes": 1_500_000, "vram_context_bytes": 200_000}


def test_an_engine_that_got_a_part_of_the_device_is_judged_by_all_of_it() -> None:
    found = _sizes(ENGINE)
    assert found.values["reserved_kv_bytes"] == 500_000
    assert found.values["memory_budget_bytes"] == 10_000_000
    # (10,000,000 − 1,000,000 − 200,000 − 80,000) / (160 · 100) = 545, where its own cache holds 31
    assert found.values["max_batch_at_context"] == 545
    assert found.notes == ()
    assert _sizes(ENGINE, largest_tokens=None).values["max_batch_at_context"] == 545, "its activations are of a step"
    assert _sizes(replace(ENGINE, max_sequences=256)).values["max_batch_at_context"] == 256


def test_where_that_cannot_be_calculated_an_engine_says_what_its_cache_holds_of_its_share() -> None:
    found = _sizes(ENGINE, UNKNOWN_ACTIVATIONS)
    assert found.values["max_batch_at_context"] == 5000 // 160
    assert found.values["memory_budget_bytes"] == 4_500_000
    (note,) = found.notes
    assert "cache of 5,000 tokens holds here, which was given 45% of the device because two models" in note
    assert _sizes(replace(ENGINE, max_sequences=16), UNKNOWN_ACTIVATIONS).values["max_batch_at_context"] == 16
    assert _sizes(replace(ENGINE, max_sequences=None), UNKNOWN_ACTIVATIONS).values["max_batch_at_context"] == 31
    shareless = _sizes(replace(ENGINE, device_share=None), UNKNOWN_ACTIVATIONS)
    assert shareless.values["max_batch_at_context"] == 31
    assert "memory_budget_bytes" not in shareless.values
    budgeted = _sizes(ENGINE, UNKNOWN_ACTIVATIONS, memory_budget="4MB")
    assert "max_batch_at_context" not in budgeted.values, "that cache is not of this budget"
    assert budgeted.values["memory_budget_bytes"] == 4_000_000


def test_a_budget_of_the_policy_goes_before_the_cache_that_an_engine_took_here() -> None:
    engine = replace(ENGINE, max_sequences=256)
    # its activations are those of a step, whatever the sequences: (4,000,000 − 1,280,000) / (160 · 100) = 170
    assert _sizes(engine, memory_budget="4MB").values["max_batch_at_context"] == 170
    assert _sizes(engine, memory_budget="40MB").values["max_batch_at_context"] == 256


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"kv_bytes_per_token": None}, {"kv_bytes_per_token", "kv_cache_bytes", "max_batch_at_context"}),
        ({"weights_bytes": None}, {"weights_bytes", "max_batch_at_context"}),
        ({"device_memory_bytes": None}, {"memory_budget_bytes", "max_batch_at_context"}),
        ({"weights_read_bytes": None, "flops_per_token": None}, {"weights_read_bytes", "flops_per_token"}),
    ],
)
def test_what_is_not_known_is_left_out(change: dict[str, None], missing: set[str]) -> None:
    assert _sizes().values.keys() - _sizes(replace(FOOTPRINT, **change)).values.keys() == missing


def test_activations_that_are_not_known_are_not_taken_for_nothing() -> None:
    without = {"vram_peak_bytes": 1_500_000, "vram_context_bytes": 200_000}
    assert "max_batch_at_context" not in _sizes(peaks=without).values
    assert "max_batch_at_context" not in _sizes(largest_tokens=None).values


def test_a_cuda_context_that_nvml_does_not_show_is_named() -> None:
    without = {"vram_peak_bytes": 1_500_000, "activation_peak_bytes": 80_000}
    found = _sizes(peaks=without)
    assert found.values["max_batch_at_context"] == 9_000_000 // 26_000
    (note,) = found.notes
    assert "leaves out the CUDA context" in note
    assert _sizes(peaks=without, is_cuda=False).notes == ()


def test_a_context_beyond_the_models_own_is_named_and_nothing_is_given_for_it() -> None:
    found = _sizes(context_tokens=8192)
    assert not {"kv_cache_bytes", "max_batch_at_context"} & found.values.keys()
    assert found.notes[0].startswith("context_tokens is 8192, more than the model's context of 4096")


@pytest.mark.parametrize(("block_tokens", "fits"), [(None, 31), (16, 31), (128, 19)])
def test_an_engine_gives_its_cache_in_whole_blocks(block_tokens: int | None, fits: int) -> None:
    engine = replace(ENGINE, kv_block_tokens=block_tokens)
    assert _sizes(engine, UNKNOWN_ACTIVATIONS).values["max_batch_at_context"] == fits
    tokens = 256 if block_tokens == 128 else 160
    assert _sizes(engine).values["max_batch_at_context"] == 8_720_000 // (tokens * 100)
