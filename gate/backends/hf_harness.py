"""The loaded transformers model as an lm-eval `LM`: HFLM, quiet, with prompts that share what they have in common.

Changes no score: HFLM encodes, and what it would compute is what lm-eval users compare with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from gate.backends.hf_memory import Batches

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from gate.backends.hf_prefix_score import RequestScorer

BATCH_SIZE = {"cpu": 8, "cuda": 16}


class QuietHFLM(HFLM):  # type: ignore[misc]  # lm_eval is untyped
    """HFLM over a loaded model, in smaller batches when memory is short."""

    batch_size_per_gpu: int

    def __init__(
        self, model: Any, tokenizer: Any, context_length: int, scorer: RequestScorer, *, batch_size: int | None
    ) -> None:
        self._scorer = scorer
        self._sizes = Batches(batch_size or BATCH_SIZE.get(model.device.type, 8))
        super().__init__(pretrained=model, tokenizer=tokenizer, max_length=context_length, batch_size=self._sizes.size)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The longest requests come first, so memory runs out early or not at all."""
        while True:
            result: list[str] | None = self._sizes.attempt(
                lambda: super(QuietHFLM, self).generate_until(requests, disable_tqdm=True), self.batch_size_per_gpu
            )
            if result is not None:
                return result
            self._scorer.store.clear()
            self.batch_size_per_gpu = self._sizes.size

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = True,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Raises ValueError for what lm-eval asserts: a context and a continuation, which fits the context length."""
        for _, context, continuation in requests:
            if not context or not 0 < len(continuation) <= self.max_length:
                raise ValueError(
                    f"found a context of {len(context)} and a continuation of {len(continuation)} tokens, expected at "
                    f"least one of each and at most the model's {self.max_length} for the continuation"
                )
        # windows of a long text, which come without a request, have no beginning in common
        is_text = any(request is None for request, _, _ in requests)
        answers = self._scorer.score(
            [(context, continuation) for _, context, continuation in requests], share=not is_text
        )
        for (request, _, _), answer in zip(requests, answers, strict=True):
            if request is not None:
                self.cache_hook.add_partial("loglikelihood", request, answer)
        return answers
