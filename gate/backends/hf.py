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

from gate.backends import (
    Arrival,
    BackendInfo,
    Checkpoint,
    DeviceRates,
    Footprint,
    Generation,
    Served,
    Timing,
    Window,
    WindowScores,
)
from gate.backends.hf_footprint import footprint
from gate.backends.hf_generate import Generator
from gate.backends.hf_load import check_device, devices, load
from gate.backends.hf_memory import compute_capability, device_uuid, prefix_budget_bytes
from gate.backends.hf_peaks import Batch, ServingMemory
from gate.backends.hf_prefix_check import open_scorer
from gate.backends.hf_score import Scorer
from gate.backends.hf_timing import timed_batch
from gate.backends.rates import measured
from gate.backends.tokenized import loglikelihoods, rendered
from gate.errors import CouldNotMeasure
from gate.machine.gpus import open_gpus

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
    """Load the checkpoint.  Raises CheckpointError, and CouldNotMeasure where torch has no such device.

    An environment variable QUANTGATE_THREADS sets torch's threads.
    """
    check_device(device)
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
        placed = devices(model)
        uuids = tuple(device_uuid(d) for d in placed if d.type == "cuda")
        self._gpus = open_gpus(uuids)
        self._memory = ServingMemory(*placed, gpus=self._gpus)
        self._footprint: Footprint | None = None
        self._rates: DeviceRates | None = None
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
            device_uuids=uuids,
            compute_capability=compute_capability(placed),
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
        self._memory.peaks.serve()
        batch = Batch(batch_size, prompt_tokens, new_tokens, seed)
        timing = self._run(batch)
        self._memory.served(batch)
        return timing

    def _run(self, batch: Batch) -> Timing:
        return timed_batch(self._model, **batch._asdict(), gpus=self._gpus)

    def serve(self, arrivals: Sequence[Arrival], *, concurrency: int | None, seed: int) -> list[Served]:
        raise CouldNotMeasure("the hf backend batches by hand and serves no load: use --backend vllm")

    def memory_bytes(self) -> Mapping[str, int]:
        return self._memory.read(self._run, self.footprint().kv_bytes_per_token)

    def footprint(self) -> Footprint:
        if self._footprint is None:
            self._footprint = footprint(self._model)
        return self._footprint

    def rates(self) -> DeviceRates:
        if self._rates is None:
            with self._memory.peaks.aside():
                self._rates = measured(self._model.device, self._model.dtype)
        return self._rates


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
