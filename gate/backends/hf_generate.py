"""Text from prompts in left-padded batches.

Decoding is plain greedy or plain sampling: penalties that a checkpoint's generation_config asks for are not applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from gate.backends import Generation
from gate.backends.hf_memory import Batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 32
_LOOK_BACK_TOKENS = 8
"""Decoded before a stop string besides its own tokens: pieces at the edge of a cut decode differently."""


class Generator:
    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        *,
        batch_size: int | None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._batches = Batches(batch_size or BATCH_SIZE)
        own = model.generation_config.eos_token_id
        ends = [own] if isinstance(own, int) else list(own or [])
        if tokenizer.eos_token_id is not None:
            ends.append(tokenizer.eos_token_id)
        self._ends = sorted(set(ends))
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else self._ends[0] if self._ends else 0

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str], temperature: float, seed: int
    ) -> list[Generation]:
        """One generation per prompt, in order.  Raises ValueError for a prompt that does not fit, OutOfMemory."""
        encoded = [self._encode(p) for p in prompts]
        longest = max(map(len, encoded), default=0)
        if longest + max_new_tokens > self._context_length:
            raise ValueError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's context length of "
                f"{self._context_length}: shorten the prompt or lower max_new_tokens"
            )
        order = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            **({"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}),
            eos_token_id=self._ends or None,
            pad_token_id=self._pad,
        )
        torch.manual_seed(seed)
        stops = [s for s in stop if s]
        with undisturbed(self._model):
            done = list(self._batches.run([encoded[i] for i in order], lambda batch: self._batch(batch, config, stops)))
        return [generation for _, generation in sorted(zip(order, done, strict=True), key=lambda pair: pair[0])]

    def _encode(self, prompt: str) -> list[int]:
        """With the tokenizer's own start token, unless a chat template has put it there already."""
        start = self._tokenizer.bos_token
        ids: list[int] = self._tokenizer.encode(prompt, add_special_tokens=not (start and prompt.startswith(start)))
        if not ids:
            raise ValueError(f"the prompt {prompt!r} has no tokens: there is nothing to continue")
        return ids

    def _batch(self, encoded: Sequence[list[int]], config: GenerationConfig, stops: list[str]) -> list[Generation]:
        longest = max(map(len, encoded))
        device = self._model.device
        ids = torch.tensor([[self._pad] * (longest - len(x)) + x for x in encoded], device=device)
        mask = torch.tensor([[0] * (longest - len(x)) + [1] * len(x) for x in encoded], device=device)
        stopper = StopAtText(self._tokenizer, stops, longest, len(encoded))
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([stopper] if stops else []),
            )
        return [
            self._finished(row[:n], stops) for row, n in zip(output[:, longest:].tolist(), stopper.done_at, strict=True)
        ]

    def _finished(self, row: list[int], stops: list[str]) -> Generation:
        end = next((i for i, token in enumerate(row) if token in self._ends), None)
        tokens = row[:end]
        text = decode(self._tokenizer, tokens)
        cuts = [at for at in (text.find(s) for s in stops) if at >= 0]
        finish = "stop" if cuts or end is not None else "length"
        return Generation(text=text[: min(cuts)] if cuts else text, n_tokens=len(tokens), finish=finish)


@contextmanager
def undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Hide the checkpoint's generation_config, from which `generate` would fill in sampling, penalties and ends."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


class StopAtText(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Ends each row on its own once its new text contains a stop string; `done_at` is its length then."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], prompt_tokens: int, n_rows: int
    ) -> None:
        self.done_at: list[int | None] = [None] * n_rows
        self._tokenizer = tokenizer
        self._stops = stops
        self._prompt_tokens = prompt_tokens
        # a token is at least one byte of text
        self._look_back = max((len(s.encode("utf-8")) for s in stops), default=0) + _LOOK_BACK_TOKENS

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        length = input_ids.shape[1] - self._prompt_tokens
        recent = input_ids[:, self._prompt_tokens :][:, -self._look_back :].tolist()
        for row, done_at in enumerate(self.done_at):
            if done_at is None:
                text = decode(self._tokenizer, recent[row])
                if any(s in text for s in self._stops):
                    self.done_at[row] = length
        return torch.tensor([d is not None for d in self.done_at], device=input_ids.device)


def decode(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    text: str = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
