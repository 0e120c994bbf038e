"""Text from prompts, from one vLLM engine.

Decoding is plain greedy or plain sampling: penalties that a checkpoint's generation_config asks for are not applied.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from gate.backends import Generation
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
