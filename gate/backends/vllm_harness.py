"""A vLLM engine as an lm-eval `LM`: lm-eval's encoding, truncation and decoding settings, our engine.

Changes no score: what lm-eval computes from the same log-probabilities is what its users compare with.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import jinja2
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from gate.backends.vllm_engine import Engine, sampling
from gate.backends.vllm_generate import SEED_BITS
from gate.backends.vllm_score import Scorer

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

DEFAULT_NEW_TOKENS = 256
"""lm-eval's own default."""

_Encoded = tuple[tuple[str, str] | None, list[int], list[int]]


class EngineLM(TemplateLM):  # type: ignore[misc]  # lm_eval is untyped
    """Samples with seeds from the process's own generator, which `random.seed` makes repeatable."""

    def __init__(self, engine: Engine, scorer: Scorer, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._engine = engine
        self._scorer = scorer

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        start: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else start

    @property
    def max_length(self) -> int:
        """Tokens that are read; one more can be scored."""
        return self._engine.context_length

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text; the tokenizer's special tokens are added unless the text begins with them already."""
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        ids: list[int] = self.tokenizer.encode(string, **special)
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        def rendered(messages: list[dict[str, str]]) -> str:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
            return text

        try:
            return rendered(chat_history)
        except jinja2.exceptions.TemplateError:  # as lm-eval does: some templates know no system role
            return rendered([m for m in chat_history if m["role"] != "system"])

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def _loglikelihood_tokens(self, requests: list[_Encoded], **_: Any) -> list[tuple[float, bool]]:
        """The longest first, as lm-eval does, so that memory runs out early or not at all."""
        cut = [self._cut(context, continuation) for _, context, continuation in requests]
        order = sorted(range(len(cut)), key=lambda i: (-len(cut[i][0]), cut[i][0]))
        answers = self._scorer.loglikelihoods([cut[i] for i in order])
        return [answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        windows: list[_Encoded] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            rolling = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, rolling):
                windows.append((None, context, continuation))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += value
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        eos = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        prompts, params, stops = [], [], []
        for request in requests:
            text, settings = request.args
            settings = normalize_gen_kwargs(settings, DEFAULT_NEW_TOKENS)
            until = handle_stop_sequences(settings.pop("until", None), eos=eos)
            new_tokens = int(settings.pop("max_gen_toks"))
            settings.pop("do_sample", None)  # lm-eval has made it a temperature
            room = self.max_length - new_tokens
            if room <= 0:
                raise ValueError(
                    f"max_gen_toks {new_tokens} leaves no room for a prompt, expected fewer than the {self.max_length} "
                    "tokens of context"
                )
            prompts.append((self.tok_encode(text) or [self.prefix_token_id])[-room:])
            if settings.get("temperature", 0.0) > 0:
                settings.setdefault("seed", random.getrandbits(SEED_BITS))
            params.append(sampling(max_tokens=new_tokens, stop=[s for s in until if s], **settings))
            stops.append(until)
        outputs = self._engine.run(prompts, params)
        return [
            postprocess_generated_text(output.outputs[0].text, until, None)
            for output, until in zip(outputs, stops, strict=True)
        ]

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[list[int], int]:
        """The tokens of a request that fit, cut on the left as lm-eval does, and how many are scored."""
        if not context or not continuation:
            raise ValueError(
                f"found {len(context)} + {len(continuation)} tokens, expected a context and a continuation"
            )
        if len(continuation) > self.max_length:
            raise ValueError(
                f"a continuation of {len(continuation)} tokens does not fit the {self.max_length} tokens of context"
            )
        return (context + continuation)[-(self.max_length + 1) :], len(continuation)
