"""Checkpoints run by transformers: safetensors of any precision, quantized formats it knows, GGUF.

Loads through `hf_load`, which runs no code from the checkpoint; knows nothing of stages.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from gate.backends import BackendInfo, Checkpoint, Generation, Timing, Window, WindowScores
from gate.backends.hf_generate import Generator
from gate.backends.hf_load import devices, load
from gate.backends.hf_memory import PeakMemory, prefix_budget_bytes
from gate.backends.hf_prefix_check import open_scorer
from gate.backends.hf_score import Scorer
from gate.backends.tokenized import loglikelihoods, rendered

if TYPE_CHECKING:
    import numpy as np
    from lm_eval.api.model import LM
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "accelerate",
    "compressed-tensors",
    "bitsandbytes",
    "torchao",
    "gguf",
    "auto-round",
    "gptqmodel",
    "optimum",
    "hqq",
    "lm_eval",
    "datasets",
    "sacrebleu",
    "rouge_score",
    "scikit-learn",
)
"""What can change a score in the worker's interpreter, which need not be the gate's."""

DEFAULT_CONTEXT_LENGTH = 2048
"""lm-eval's default for models that do not say."""

_UNSET_LENGTH = 10**9
"""Tokenizers without a limit give a number far above this one."""


def open_backend(checkpoint: Checkpoint, device: str) -> HFBackend:
    """Load the checkpoint.  Raises CheckpointError; an environment variable QUANTGATE_THREADS sets torch's threads."""
    threads = os.environ.get("QUANTGATE_THREADS")
    if threads:
        torch.set_num_threads(int(threads))
    begun = time.perf_counter()
    loaded = load(checkpoint, device)
    model, placed = loaded.model, devices(loaded.model)
    for used in placed:
        if used.type == "cuda":
            torch.cuda.synchronize(used)
    return HFBackend(
        model,
        loaded.tokenizer,
        device,
        time.perf_counter() - begun,
        batch_size=checkpoint.batch_size,
        prefix_budget_bytes=prefix_budget_bytes(checkpoint.engine.get("prefix_cache"), set(placed)),
        notes=loaded.notes,
    )


class HFBackend:
    """`gate.backends.Backend` over one transformers model."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        device: str,
        load_seconds: float,
        *,
        batch_size: int | None,
        prefix_budget_bytes: int,
        notes: tuple[str, ...],
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._harness: LM | None = None
        self._memory = PeakMemory(*devices(model))
        context_length = _context_length(model.config, tokenizer)
        self._requests, prefix_notes = open_scorer(
            model, context_length, batch_size=batch_size, budget_bytes=prefix_budget_bytes
        )
        self.info = BackendInfo(
            name="hf",
            device=device,
            dtype=str(model.dtype).removeprefix("torch."),
            n_parameters=model.num_parameters(),
            context_length=context_length,
            vocabulary_size=model.get_input_embeddings().num_embeddings,
            load_seconds=load_seconds,
            has_logits=True,
            packages=_versions(),
            unserved={},
            notes=(*notes, *prefix_notes),
        )
        self._scorer = Scorer(model, batch_size=batch_size)
        self._generator = Generator(model, tokenizer, context_length, batch_size=batch_size)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def bos(self) -> int | None:
        start: int | None = self._tokenizer.bos_token_id
        return start

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        return rendered(self._tokenizer, messages)

    def score(
        self, windows: Sequence[Window], *, top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> Iterator[WindowScores]:
        self._requests.store.clear()  # so that memory is not short because of it
        return self._scorer.score(windows, top_k=top_k, at_ids=at_ids)

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        return loglikelihoods(self.harness(), requests)

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str], temperature: float, seed: int
    ) -> list[Generation]:
        self._requests.store.clear()
        return self._generator.generate(
            prompts, max_new_tokens=max_new_tokens, stop=stop, temperature=temperature, seed=seed
        )

    def harness(self) -> LM:
        if self._harness is None:
            from gate.backends.hf_harness import QuietHFLM  # lm_eval takes seconds to import

            self._harness = QuietHFLM(
                self._model,
                self._tokenizer,
                self.info.context_length,
                self._requests,
                batch_size=self._batch_size,
            )
        return self._harness

    def timed_batch(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        self._requests.store.clear()  # what scoring holds is not there when a model is served
        self._memory.serve()
        return self._generator.timed(
            batch_size=batch_size, prompt_tokens=prompt_tokens, new_tokens=new_tokens, seed=seed
        )

    def memory_bytes(self) -> Mapping[str, int]:
        return self._memory.read()


def _context_length(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    text = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(text, name, None)
        if value is not None:
            return int(value)
    limit = tokenizer.model_max_length
    return int(limit) if limit is not None and limit < _UNSET_LENGTH else DEFAULT_CONTEXT_LENGTH


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
