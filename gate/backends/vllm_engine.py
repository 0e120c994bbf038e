"""One vLLM engine in this process: token ids and sampling parameters in, vLLM's outputs out.

Knows what vLLM allows and nothing of texts, windows or tasks; after a failure it is empty and usable again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError

from gate.backends import OutOfMemory
from gate.backends.hf_memory import Batches, is_out_of_memory, release
from gate.backends.vllm_memory import Memory

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
        self.memory = Memory(llm)
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
        with self.emptied_on_failure():
            for number, prompt in enumerate(prompts):
                self.add(str(number), prompt, params)
            while self.n_under_way:
                yield self.step()

    @property
    def n_under_way(self) -> int:
        """Requests that were added and are not answered yet."""
        return int(self.llm.llm_engine.get_num_unfinished_requests())

    def add(self, name: str, prompt: Sequence[int], params: Any, *, arrived: float | None = None) -> None:
        """Hand a request in, within `emptied_on_failure`.

        Args:
            arrived: when it came, in seconds since the epoch, if that was earlier than now.
        """
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": list(prompt)}, params, arrival_time=arrived)

    def step(self) -> list[Any]:
        """Run all requests under way one step further; what vLLM has to say of them then."""
        outputs: list[Any] = self.llm.llm_engine.step()
        return outputs

    @contextmanager
    def watched(self) -> Iterator[list[torch.Tensor]]:
        """The logits that the model computes meanwhile, call by call: [rows, vocabulary].  Needs `shows_logits`."""
        self._logits = []
        try:
            yield self._logits
        finally:
            self._logits = None

    def _watch(self, model: Any) -> None:
        compute = model.compute_logits

        def watched(*arguments: Any, **named: Any) -> Any:
            logits = compute(*arguments, **named)
            if self._logits is not None:
                self._logits.append(logits)
            return logits

        model.compute_logits = watched

    def _run(self, requests: Sequence[tuple[Sequence[int], Any]]) -> Sequence[Any]:
        with self.emptied_on_failure():
            outputs: list[Any] = self.llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt, _ in requests],
                [params for _, params in requests],
                use_tqdm=False,
            )
        return outputs

    @contextmanager
    def emptied_on_failure(self) -> Iterator[None]:
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
