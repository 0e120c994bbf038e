"""Text from prompts, and the timing of a batch step by step, from one vLLM engine.

Decoding is plain greedy or plain sampling: penalties that a checkpoint's generation_config asks for are not applied.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from vllm.sampling_params import RequestOutputKind

from gate.backends import Generation, OutOfMemory, Timing
from gate.backends.vllm_engine import Engine, sampling

SEED_BITS = 63


class Generator:
    def __init__(self, engine: Engine, tokenizer: Any) -> None:
        self._engine = engine
        self._tokenizer = tokenizer

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str], temperature: float, seed: int
    ) -> list[Generation]:
        """One generation per prompt, in order.  Raises ValueError for a prompt that does not fit, OutOfMemory."""
        encoded = [self._encode(p) for p in prompts]
        longest = max(map(len, encoded), default=0)
        if longest + max_new_tokens > self._engine.context_length:
            raise ValueError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's context length of "
                f"{self._engine.context_length}: shorten the prompt or lower max_new_tokens"
            )
        stops = [s for s in stop if s]
        draw = random.Random(seed)
        params = [
            sampling(
                temperature=temperature,
                max_tokens=max_new_tokens,
                stop=stops,
                # one each: requests with the same seed would draw the same numbers
                seed=draw.getrandbits(SEED_BITS) if temperature > 0 else None,
            )
            for _ in encoded
        ]
        return [_finished(output.outputs[0], stops) for output in self._engine.run(encoded, params)]

    def timed(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        """Random prompts, none from the prefix cache, and greedy decoding that no end of sequence stops.

        A step is over when every sequence has its next token.  Raises OutOfMemory when not all can run together.
        """
        self._check_room(batch_size, prompt_tokens + new_tokens)
        draw = random.Random(seed)
        prompts = [
            [draw.randrange(self._engine.vocabulary_size) for _ in range(prompt_tokens)] for _ in range(batch_size)
        ]
        params = sampling(
            temperature=0.0,
            max_tokens=new_tokens,
            ignore_eos=True,
            detokenize=False,
            skip_reading_prefix_cache=True,
            output_kind=RequestOutputKind.CUMULATIVE,
        )
        written = {str(number): 0 for number in range(batch_size)}
        interrupted = 0
        marks = [time.perf_counter()]
        for outputs in self._engine.steps(prompts, params):
            now = time.perf_counter()
            for output in outputs:
                written[output.request_id] = len(output.outputs[0].token_ids)
                interrupted = max(interrupted, output.metrics.num_preemptions)
            # a step that brings two tokens at once, as speculative decoding does, ends two of ours
            marks += [now] * (min(written.values()) + 1 - len(marks))
        if interrupted:
            raise OutOfMemory(f"vLLM interrupted a sequence at batch size {batch_size}: its key/value cache was full")
        if len(marks) != new_tokens + 1:
            raise RuntimeError(f"vLLM wrote {len(marks) - 1} tokens, expected {new_tokens}")
        steps = [after - before for before, after in pairwise(marks)]
        return Timing(
            batch_size=batch_size, prompt_tokens=prompt_tokens, ttft_seconds=steps[0], step_seconds=tuple(steps[1:])
        )

    def _check_room(self, batch_size: int, tokens: int) -> None:
        if batch_size > self._engine.max_sequences:
            raise OutOfMemory(
                f"vLLM runs at most {self._engine.max_sequences} sequences at once, expected {batch_size}: raise "
                "max_num_seqs in `engines: {vllm: …}`"
            )
        if not self._engine.kv_cache_holds(batch_size, tokens):
            raise OutOfMemory(
                f"vLLM's key/value cache does not hold {batch_size} sequences of {tokens} tokens: raise "
                "gpu_memory_utilization (on a CPU: cpu_kv_cache) in `engines: {vllm: …}`"
            )

    def _encode(self, prompt: str) -> list[int]:
        """With the tokenizer's own start token, unless a chat template has put it there already."""
        start = self._tokenizer.bos_token
        ids: list[int] = self._tokenizer.encode(prompt, add_special_tokens=not (start and prompt.startswith(start)))
        if not ids:
            raise ValueError(f"the prompt {prompt!r} has no tokens: there is nothing to continue")
        return ids


def _finished(output: Any, stops: Sequence[str]) -> Generation:
    """vLLM cuts off the stop string that is complete first; another may have begun before it."""
    cuts = [at for at in (output.text.find(s) for s in stops) if at >= 0]
    # an end-of-sequence token is a token of the output, a stop string is none
    ended = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
    return Generation(
        text=output.text[: min(cuts)] if cuts else output.text,
        n_tokens=len(output.token_ids) - ended,
        finish=output.finish_reason,
    )
