"""One vLLM engine in this process: token ids and sampling parameters in, vLLM's outputs out.

Knows what vLLM allows and nothing of texts, windows or tasks; after a failure it is empty and usable again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError

from gate.backends import OutOfMemory
from gate.backends.hf_memory import Batches, is_out_of_memory, peaks, release

_ALL = 1 << 30
_RESERVED_TOKENS = 2
"""vLLM writes at least one token, so it reads one fewer than `max_model_len`; the last token that is scored is read as
well, which transformers need not do."""


def sampling(**settings: Any) -> SamplingParams:
    """How a request is answered.  Raises ValueError for settings that vLLM does not know or allow."""
    try:
        return SamplingParams(**settings)
    except (TypeError, VLLMClientError) as problem:
        raise ValueError(f"vLLM does not decode like this: {problem}") from problem


class Engine:
    """`context_length`: tokens that can be read before one more is scored, or prompt and answer together."""

    def __init__(self, llm: Any, *, batch_size: int | None) -> None:
        self.llm = llm
        config = llm.llm_engine.vllm_config
        self.context_length = int(config.model_config.max_model_len) - _RESERVED_TOKENS
        self.vocabulary_size = int(config.model_config.get_vocab_size())
        self.max_sequences = int(config.scheduler_config.max_num_seqs)
        self.scores_given_ids = bool(config.use_v2_model_runner)
        """Whether its model runner takes the ids to score (`SamplingParams.prompt_logprob_token_ids`)."""
        self.shows_logits = int(config.parallel_config.world_size) == 1
        """Whether the model is in this process."""
        self._cache = config.cache_config
        self._batches = Batches(batch_size or _ALL)
        self._logits: list[torch.Tensor] | None = None
        if self.shows_logits and not self.scores_given_ids:
            llm.apply_model(self._watch)

    def run(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        """One `RequestOutput` per prompt, in order.

        Raises:
            OutOfMemory: a single request does not fit.
            ValueError: vLLM refuses a request, such as one that is too long.
        """
        return list(self._batches.run(list(zip(prompts, params, strict=True)), self._run))

    def steps(self, prompts: Sequence[Sequence[int]], params: Any) -> Iterator[list[Any]]:
        """What each step of the engine brings, for requests that start together.  Raises OutOfMemory."""
        engine = self.llm.llm_engine
        with self._emptied_on_failure():
            for number, prompt in enumerate(prompts):
                engine.add_request(str(number), {"prompt_token_ids": list(prompt)}, params)
            while engine.has_unfinished_requests():
                yield engine.step()

    def kv_cache_holds(self, sequences: int, tokens: int) -> bool:
        """Whether so many sequences of `tokens` tokens each fit into the key/value cache together."""
        block = int(self._cache.block_size)
        return sequences * -(-tokens // block) * block <= int(self._cache.kv_cache_size_tokens)

    @contextmanager
    def watched(self) -> Iterator[list[torch.Tensor]]:
        """The logits that the model computes meanwhile, call by call: [rows, vocabulary].  Needs `shows_logits`."""
        self._logits = []
        try:
            yield self._logits
        finally:
            self._logits = None

    def memory_bytes(self) -> Mapping[str, int]:
        """Peaks of all processes of the engine together; on a GPU also what weights and key/value cache take."""
        parts = self.llm.collective_rpc(_memory)
        if not self.shows_logits:
            parts.append(dict(peaks(torch.device("cpu"))))  # this process, which holds no model
        return {name: sum(part.get(name, 0) for part in parts) for name in parts[0]}

    def _watch(self, model: Any) -> None:
        compute = model.compute_logits

        def watched(*arguments: Any, **named: Any) -> Any:
            logits = compute(*arguments, **named)
            if self._logits is not None:
                self._logits.append(logits)
            return logits

        model.compute_logits = watched

    def _run(self, requests: Sequence[tuple[Sequence[int], Any]]) -> Sequence[Any]:
        with self._emptied_on_failure():
            outputs: list[Any] = self.llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt, _ in requests],
                [params for _, params in requests],
                use_tqdm=False,
            )
        return outputs

    @contextmanager
    def _emptied_on_failure(self) -> Iterator[None]:
        """vLLM leaves requests in the engine when a step fails: the next ones would get their answers."""
        try:
            yield
        except BaseException as problem:
            engine = self.llm.llm_engine
            engine.abort_request(list(engine.output_processor.request_states), internal=True)
            if is_out_of_memory(problem):
                release()
                raise OutOfMemory(f"out of memory: {str(problem)[:200]}") from problem
            if isinstance(problem, VLLMClientError):
                raise ValueError(str(problem)) from problem  # a request that cannot be served, as elsewhere
            raise


def _memory(worker: Any) -> dict[str, int]:
    """In each process that holds a part of the model."""
    found = dict(peaks(worker.device))
    if worker.device.type == "cuda":
        runner = worker.model_runner
        found["vram_weights_bytes"] = int(runner.model_memory_usage)
        found["vram_kv_cache_bytes"] = sum(_storage_bytes(cache) for cache in runner.kv_caches)
    return found


def _storage_bytes(cache: Any) -> int:
    tensors = cache if isinstance(cache, list | tuple) else [cache]
    return sum(t.numel() * t.element_size() for t in tensors)
