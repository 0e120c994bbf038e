"""The loaded transformers model as an lm-eval `LM`: HFLM itself, quiet, in smaller batches when memory is short.

Changes no score: what HFLM computes is what lm-eval users compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lm_eval.models.huggingface import HFLM

from gate.backends.hf_memory import Batches

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

BATCH_SIZE = {"cpu": 8, "cuda": 16}

_R = TypeVar("_R")


class QuietHFLM(HFLM):  # type: ignore[misc]  # lm_eval is untyped
    """HFLM over a loaded model.  The longest requests come first, so memory runs out early or not at all."""

    batch_size_per_gpu: int

    def __init__(self, model: Any, tokenizer: Any, context_length: int, *, batch_size: int | None) -> None:
        self._sizes = Batches(batch_size or BATCH_SIZE.get(model.device.type, 8))
        super().__init__(pretrained=model, tokenizer=tokenizer, max_length=context_length, batch_size=self._sizes.size)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return self._fitting(lambda: super(QuietHFLM, self).loglikelihood(requests, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        return self._fitting(lambda: super(QuietHFLM, self).loglikelihood_rolling(requests, disable_tqdm=True))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        return self._fitting(lambda: super(QuietHFLM, self).generate_until(requests, disable_tqdm=True))

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def _fitting(self, call: Callable[[], _R]) -> _R:
        while True:
            result = self._sizes.attempt(call, self.batch_size_per_gpu)
            if result is not None:
                return result
            self.batch_size_per_gpu = self._sizes.size
