"""Sharing prompts at its edges: memory that runs out in odd places, models with limits of their own, small effects."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from gate.backends import Window
from gate.backends.hf_prefix_check import open_scorer
from gate.backends.hf_prefix_score import Pair, RequestScorer
from gate.backends.hf_score import Scorer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

VOCABULARY = 320
CONTEXT = 256
LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.4,
}
PLENTY = 2**40


def llama(**changes: Any) -> Any:
    torch.manual_seed(7)
    return LlamaForCausalLM(LlamaConfig(**{**LLAMA, **changes})).eval()


def tokens(n: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (n,), generator=generator).tolist()


def asked(prefix: list[int], n: int, *, seed: int, question: int = 20) -> list[Pair]:
    return [(prefix + tokens(question, seed + i), tokens(3, 900 + i)) for i in range(n)]


def opened(model: Any, *, budget_bytes: int = PLENTY) -> RequestScorer:
    scorer, notes = open_scorer(model, CONTEXT, batch_size=None, budget_bytes=budget_bytes)
    assert notes == ()
    return scorer


def assert_plain(model: Any, scorer: RequestScorer, pairs: list[Pair]) -> None:
    """The scores are those of a scorer that shares nothing."""
    plain = RequestScorer(model, CONTEXT, batch_size=1, budget_bytes=0).score(pairs, share=False)
    for (found, greedy), (expected, is_greedy) in zip(scorer.score(pairs, share=True), plain, strict=True):
        assert abs(found - expected) <= 1e-4 + 1e-6 * abs(expected)
        assert greedy == is_greedy


def test_memory_that_runs_out_while_a_prefix_is_split_costs_only_what_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model, first, second = llama(), tokens(100, 1), tokens(150, 2)
    scorer = opened(model)
    assert_plain(model, scorer, asked(first, 4, seed=10) + asked(second, 4, seed=20))
    clone = torch.Tensor.clone
    failed: list[bool] = []

    def short(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return clone(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "clone", short)
    assert_plain(model, scorer, asked(first[:30], 2, seed=30))
    assert failed
    monkeypatch.undo()
    for at in range(3):
        assert_plain(model, scorer, asked(first, 1, seed=40 + at) + asked(second, 1, seed=50 + at))
    held = scorer.store._held
    assert scorer.store.held_bytes == sum(held.values())
    assert all(node.kv is not None and node.kv[0][0].shape[2] == len(node.tokens) for node in held)


def test_what_is_held_is_given_back_before_batches_shrink() -> None:
    model, prefix = llama(), tokens(100, 1)
    scorer = opened(model)
    scorer.score(asked(prefix, 4, seed=10), share=True)
    size, forward = scorer._batches.size, model.forward
    failed: list[bool] = []

    def short(*args: Any, **kwargs: Any) -> Any:
        if scorer.store.held_bytes:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(*args, **kwargs)

    short.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    object.__setattr__(model, "forward", short)
    scorer.score(asked(prefix, 1, seed=60), share=True)
    assert failed
    assert scorer._batches.size == size


def test_a_model_whose_masks_end_with_its_context_is_never_asked_for_wider_ones() -> None:
    torch.manual_seed(7)
    model = GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global"], 2]],
            max_position_embeddings=CONTEXT,
            initializer_range=0.4,
            bos_token_id=0,
            eos_token_id=1,
        )
    ).eval()
    assert_plain(model, opened(model), asked(tokens(80, 1), 30, seed=10))


def longrope() -> Any:
    torch.manual_seed(7)
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    return Phi3ForCausalLM(
        Phi3Config(
            **{**LLAMA, "original_max_position_embeddings": 128, "pad_token_id": 0},
            rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, **factors},
        )
    ).eval()


def test_no_score_depends_on_a_longer_companion() -> None:
    model = longrope()
    scorer, (note,) = open_scorer(model, CONTEXT, batch_size=None, budget_bytes=PLENTY)
    assert "prompts of more than 128 tokens are computed in full" in note
    short = [(tokens(120, i), tokens(3, 90 + i)) for i in range(2)]
    longer = [(tokens(130, 9), tokens(3, 99))]
    alone = scorer.score(short, share=True)
    beside = scorer.score(short + longer, share=True)[:2]
    assert [total for total, _ in beside] == pytest.approx([total for total, _ in alone], abs=1e-4)
    windows = [Window(tokens=(*context, *rest), n_scored=3) for context, rest in short + longer]
    together = list(Scorer(model, batch_size=None).score(windows, top_k=0, at_ids=None))
    for (total, _), scores in zip(alone, together[:2], strict=True):
        assert -scores.nll_nats.sum() == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_small_effects_are_seen_where_weights_are_small(dtype: torch.dtype) -> None:
    """A mask that hides a part of what came before changes little at first: less than one percent."""
    model = llama(initializer_range=0.05).to(dtype)
    assert open_scorer(model, CONTEXT, batch_size=None, budget_bytes=PLENTY)[1] == ()
    forward = model.forward

    def hiding(*args: Any, **kwargs: Any) -> Any:
        if (mask := kwargs.get("attention_mask")) is not None and mask.ndim == 4:
            hidden = mask.clone()
            hidden[..., :-1:8] = torch.zeros((), dtype=mask.dtype) if mask.dtype is torch.bool else mask.min()
            diagonal = torch.eye(mask.shape[2], dtype=torch.bool)
            hidden[..., -mask.shape[2] :] |= diagonal
            kwargs["attention_mask"] = hidden
        return forward(*args, **kwargs)

    hiding.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    object.__setattr__(model, "forward", hiding)
    (note,) = open_scorer(model, CONTEXT, batch_size=None, budget_bytes=PLENTY)[1]
    assert "in a trial, log-likelihoods differed" in note


def test_a_scaling_by_the_place_in_the_cache_is_not_shared() -> None:
    model = llama()
    model.config.attn_temperature_tuning = True
    (note,) = open_scorer(model, CONTEXT, batch_size=None, budget_bytes=PLENTY)[1]
    assert "scales attention by the place in the cache" in note
