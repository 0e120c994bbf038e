"""The fake model as an lm-eval `LM`.

Imported only when asked for: lm_eval is slow to import.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from gate.backends.fake import FakeBackend

DEFAULT_NEW_TOKENS = 256
"""lm-eval's own default."""


class FakeLM(LM):  # type: ignore[misc]  # lm_eval is untyped
    """Answers lm-eval's requests from the fake backend.

    Like the models of lm-eval it samples from the process's own generator, which `random.seed` makes repeatable.
    """

    def __init__(self, backend: FakeBackend) -> None:
        super().__init__()
        self._backend = backend

    @property
    def tokenizer_name(self) -> str:
        return "fake"

    def chat_template(self, chat_template: bool | str = False) -> str:
        return "fake" if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self._backend.chat(chat_history)

    def tok_encode(self, string: str) -> list[int]:
        return self._backend.encode(string)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return self._backend.loglikelihood([r.args for r in requests])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        return [self._backend.rolling(r.args[0]) for r in requests]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        return [self._generated(*r.args) for r in requests]

    def _generated(self, prompt: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        # lm-eval samples at a temperature above 0 unless `do_sample` says otherwise
        temperature = 0.0 if settings.get("do_sample") is False else float(settings.get("temperature") or 0.0)
        (generation,) = self._backend.generate(
            [prompt],
            max_new_tokens=int(settings.get("max_gen_toks", DEFAULT_NEW_TOKENS)),
            stop=[until] if isinstance(until, str) else list(until),
            temperature=temperature,
            seed=random.getrandbits(32) if temperature > 0 else 0,
        )
        return generation.text
