"""Whether a model's prompts may share what they have in common: its configuration, then a trial against plain passes.

Changes no score: where the answer is no, every prompt is computed in full, and the reason is handed on as a note.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from gate.backends.hf_prefix import PrefixStore
from gate.backends.hf_prefix_score import Pair, RequestScorer
from gate.backends.hf_score import rope_limits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)

_TOLERANCE = 1e-5
"""Mean difference allowed, as a share of the mean log-likelihood: float32.  A wrong mask or position costs far more."""

_NOISE_FACTOR = 4
"""Or so many times what plain passes differ by among themselves: in other batches, or from inputs off by one rounding.
In 16 bits that is more; where activations are rounded to 8 bits, the last bit of an input may move a whole step."""

_MOST_NOISE = 1e-2
"""But never more than this share: what is wrong must not pass for noise."""

_TRIAL_TOKENS = 64
_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _CannotShare(Exception):
    """The reason."""


def open_scorer(
    model: PreTrainedModel, context_length: int, *, batch_size: int | None, budget_bytes: int
) -> tuple[RequestScorer, tuple[str, ...]]:
    """A scorer that shares as much as the model allows, and notes for the reader when that is not everything.

    Args:
        budget_bytes: for keys and values of prefixes; 0: every prompt is computed in full.
    """
    scorer = RequestScorer(model, context_length, batch_size=batch_size, budget_bytes=budget_bytes)
    if not budget_bytes:
        return scorer, ("prompts share nothing and are computed in full: `prefix_cache` is 0, or no memory is free",)
    try:
        limit = _checked(lambda: _limit_tokens(model, context_length))
        _checked(lambda: _try(scorer, model))
    except _CannotShare as reason:
        scorer.shared_tokens = 0
        note = f"prompts share nothing and are computed in full, which is slower: {reason}"
    else:
        scorer.shared_tokens = limit
        if limit >= context_length:
            return scorer, ()
        note = f"prompts of more than {limit} tokens are computed in full: so far does this model attend evenly"
    _LOG.warning(note)
    return scorer, (note,)


def _checked(call: Callable[[], _T]) -> _T:
    """The result of `call`; whatever an unforeseen model makes it raise is a reason not to share."""
    try:
        return call()
    except _ERRORS as problem:
        said = " ".join(str(problem).split())[:200]
        raise _CannotShare(f"a trial failed: {type(problem).__name__}: {said}") from problem


def _limit_tokens(model: PreTrainedModel, context_length: int) -> int:
    """Up to this length every layer attends to all tokens before, at positions that do not depend on the length."""
    config = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise _CannotShare(f"{name} has an encoder")
    parameters = inspect.signature(model.forward).parameters
    if missing := {"position_ids", "past_key_values", "attention_mask"} - set(parameters):
        raise _CannotShare(f"{name} takes no {', '.join(sorted(missing))}")
    if getattr(config, "attn_temperature_tuning", False):
        raise _CannotShare(f"{name} scales attention by the place in the cache")
    if config._attn_implementation not in ("sdpa", "eager"):
        raise _CannotShare(f"attention {config._attn_implementation!r} takes no mask for trees, `sdpa` and `eager` do")
    limits = [context_length]
    for layer in DynamicCache(config=config).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            limits.append(layer.sliding_window)
        elif type(layer) is not DynamicLayer:
            raise _CannotShare(f"{name} has layers of another kind than attention ({type(layer).__name__})")
    limits += rope_limits(model.config)
    if min(limits) < _TRIAL_TOKENS:
        raise _CannotShare(f"{name} attends to {min(limits)} tokens at most")
    return min(limits)


def _try(scorer: RequestScorer, model: PreTrainedModel) -> None:
    """Raises _CannotShare unless sharing gives what plain passes give."""
    pairs = _trial_pairs(model.get_input_embeddings().num_embeddings)
    kept = scorer.store
    scorer.store = PrefixStore(2**62)
    try:
        plain = _totals(scorer, [pairs], share=False)
        scorer.shared_tokens = _TRIAL_TOKENS
        shared = _totals(scorer, [pairs[: len(pairs) // 2], pairs], share=True)[-len(pairs) :]
        size, difference = np.abs(plain).mean(), np.abs(shared - plain).mean()
        allowed = _TOLERANCE * size
        if not difference <= allowed:
            alone = _totals(scorer, [[pair] for pair in pairs], share=False)
            with _rounded_otherwise(model):
                rounded = _totals(scorer, [pairs], share=False)
            noise = max(np.abs(other - plain).mean() for other in (alone, rounded))
            allowed = max(allowed, min(_NOISE_FACTOR * noise, _MOST_NOISE * size))
    finally:
        scorer.store, scorer.computed_tokens = kept, 0
    if not difference <= allowed:
        raise _CannotShare(
            f"in a trial, log-likelihoods differed from a plain pass by {difference:.2g} nats, expected {allowed:.2g}"
        )


@contextmanager
def _rounded_otherwise(model: PreTrainedModel) -> Iterator[None]:
    """The model's embeddings off by one rounding, the least that another kernel may change."""
    random = torch.Generator().manual_seed(0)

    def nudge(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        signs = torch.randint(2, embedded.shape, generator=random).to(embedded.device, embedded.dtype) * 2 - 1
        return embedded * (1 + torch.finfo(embedded.dtype).eps * signs)

    hook = model.get_input_embeddings().register_forward_hook(nudge)
    try:
        yield
    finally:
        hook.remove()


def _totals(scorer: RequestScorer, calls: list[list[Pair]], *, share: bool) -> Any:
    return np.array([total for pairs in calls for total, _ in scorer.score(pairs, share=share)])


def _trial_pairs(vocabulary: int) -> list[Pair]:
    """Two subjects with a beginning in common, two questions each, and choices of one to three tokens."""
    random = np.random.default_rng(0)

    def some(n: int) -> list[int]:
        found: list[int] = random.integers(vocabulary, size=n).tolist()
        return found

    beginning = some(24)
    pairs: list[Pair] = []
    for n_examples in (16, 20):
        examples = some(n_examples)
        for _ in range(2):
            question = beginning + examples + some(4)
            pairs += [(question, some(n)) for n in (1, 1, 3, 2)]
    return pairs
