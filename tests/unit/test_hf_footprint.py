"""Bytes and flops of models as they are held: packed, tied, with windows, of experts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from gate.backends import Checkpoint
from gate.backends.hf import open_backend
from gate.backends.hf_footprint import footprint
from tests.contract import tiny_llama

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
MATRICES = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
"""Weights of the linear layers of two blocks: queries, keys and values, output, and three of the MLP."""

HEAD = 100 * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_llama.save(tmp_path_factory.mktemp("llama"))


def parameter_bytes(model: PreTrainedModel) -> int:
    return sum(p.nbytes for p in model.parameters())  # tied parameters are listed once


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_table_is_held_once_and_read_at_every_step(tied: bool) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).eval()
    found = footprint(model)
    assert found.weights_bytes == pytest.approx(parameter_bytes(model), abs=100)  # frequencies of the rotary embedding
    assert found.weights_read_bytes is not None
    assert found.weights_bytes is not None
    assert found.weights_bytes - found.weights_read_bytes == (0 if tied else HEAD * 4)
    assert found.flops_per_token == 2 * MATRICES
    assert found.kv_bytes_per_token == 2 * 2 * 2 * 8 * 4
    assert found.kv_cache_reserved_bytes is found.kv_cache_tokens is found.max_sequences is None


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_bytes_follow_the_precision(dtype: torch.dtype, itemsize: int) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).to(dtype).eval()
    found = footprint(model)
    assert found.weights_bytes == pytest.approx(model.num_parameters() * itemsize, abs=100)
    assert found.kv_bytes_per_token == 2 * 2 * 2 * 8 * itemsize


@pytest.mark.parametrize(
    ("method", "bits", "scale_bytes"),
    [
        ("bitsandbytes-nf4", 4, 4 / 64),  # a float for 64 weights
        ("bitsandbytes-int8", 8, 4 / 64),  # a float for each row
        ("torchao-int8", 8, 4 / 64),
    ],
)
def test_packed_weights_count_by_what_they_take(folder: Path, method: str, bits: int, scale_bytes: float) -> None:
    plain = open_backend(Checkpoint(path=str(folder), load={}, dtype="auto", tokenizer=None), "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = open_backend(
            Checkpoint(path=str(folder), load={"method": method}, dtype="auto", tokenizer=None), "cpu"
        )
    whole, found = plain.footprint(), packed.footprint()
    assert whole.weights_bytes is not None
    layers = [m for name, m in plain._model.named_modules() if name.endswith("_proj")]
    weights = sum(m.weight.numel() for m in layers)
    expected = whole.weights_bytes - weights * 4 + weights * (bits / 8 + scale_bytes)
    # 3 %: rows are longer than 64 weights in one layer of seven, and tables of 4-bit values
    assert found.weights_bytes == pytest.approx(expected, rel=0.03)
    assert found.flops_per_token == whole.flops_per_token


def test_layers_of_gpt2_are_matrices_too() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    assert footprint(model).flops_per_token == 2 * (2 * 12 * 32 * 32)


def test_what_a_token_of_a_mixture_reads_is_not_known() -> None:
    model = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)).eval()
    found = footprint(model)
    assert found.weights_bytes == pytest.approx(parameter_bytes(model), abs=100)
    assert found.weights_read_bytes is None
    assert found.flops_per_token is None
    assert found.kv_bytes_per_token == 2 * 2 * 2 * 8 * 4


def test_a_sliding_window_counts_as_long_as_it_grows() -> None:
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=64)).eval()
    assert footprint(model).kv_bytes_per_token == 2 * 2 * 2 * 8 * 4


def test_a_state_that_does_not_grow_is_no_cache_of_tokens() -> None:
    config = Qwen3NextConfig(
        **SIZES,
        layer_types=["linear_attention", "full_attention"],
        num_experts=0,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    )
    model = Qwen3NextForCausalLM(config).eval()
    assert footprint(model).kv_bytes_per_token == 2 * 1 * 2 * 8 * 4
