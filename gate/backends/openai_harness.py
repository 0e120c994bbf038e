"""The server as an lm-eval `LM`: prompts tokenized, cut and stopped as lm-eval's HFLM does it.

Not lm-eval's own API model: that one turns a request that failed for good into the failure of all of them, and cuts
long prompts without a trace; here each failure stays with its item.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jinja2
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from gate.backends import BackendInfo, Generation
from gate.backends.openai_probe import PLAIN
from gate.backends.openai_tokenizer import Tokens

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

MAX_NEW_TOKENS = 256
"""HFLM's default where a task does not say."""

_HANDLED = frozenset({"until", "max_gen_toks", "do_sample", "temperature"})
_NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True, "early_stopping": False}


class Server(Protocol):
    """What of the backend is needed here."""

    @property
    def info(self) -> BackendInfo: ...

    def continuations(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[tuple[float, bool]]: ...

    def completions(self, asked: Sequence[tuple[str, Sequence[int], Mapping[str, Any]]]) -> list[Generation]: ...


class ServerLM(TemplateLM):  # type: ignore[misc]  # lm_eval is untyped
    """Raises RequestFailed when a request of a call fails, CouldNotMeasure for what the server cannot do at all."""

    def __init__(self, server: Server, tokens: Tokens) -> None:
        super().__init__()
        self._server = server
        self._tokens = tokens
        self.tokenizer = tokens.tokenizer
        self.max_length = server.info.context_length

    @property
    def eot_token_id(self) -> int | None:
        end: int | None = self.tokenizer.eos_token_id
        return end

    @property
    def prefix_token_id(self) -> int | None:
        return self._tokens.prefix()

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        try:
            return self._tokens.chat(chat_history, ask=add_generation_prompt)
        except jinja2.TemplateError:  # templates that know no system role
            rest = [message for message in chat_history if message["role"] != "system"]
            return self._tokens.chat(rest, ask=add_generation_prompt)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, **_: Any) -> list[tuple[float, bool]]:
        asked = []
        for _, context, continuation in requests:
            if not context or not 0 < len(continuation) <= self.max_length:
                raise ValueError(
                    f"found {len(context)} tokens of context and {len(continuation)} to score, expected at least one "
                    f"of each and at most {self.max_length} to score"
                )
            asked.append(([*context, *continuation][-(self.max_length + 1) :], len(continuation)))
        return self._server.continuations(asked)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        totals = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            found = self._loglikelihood_tokens([(None, *make_disjoint_window(window)) for window in windows])
            totals.append(sum(value for value, _ in found))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        asked = []
        for request in requests:
            text, written = request.args
            settings = dict(normalize_gen_kwargs(written, MAX_NEW_TOKENS))
            max_tokens = settings["max_gen_toks"]
            if not 0 < max_tokens < self.max_length:
                raise ValueError(f"found {max_tokens} new tokens, expected 1 to {self.max_length - 1}: the context")
            ids = self._tokens.prompt(text)[-(self.max_length - max_tokens) :]
            asked.append((text, ids, _body(settings)))
        return [generation.text for generation in self._server.completions(asked)]


def _body(settings: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's generation settings as a server takes them.  Raises ValueError for one that cannot be sent."""
    temperature = float(settings.get("temperature") or 0.0)
    body: dict[str, Any] = {
        "max_tokens": settings["max_gen_toks"],
        "temperature": temperature,
        "stop": [s for s in settings["until"] if s],
    }
    if temperature > 0:
        body["seed"] = random.getrandbits(31)  # the stages seed this generator
    for name, value in settings.items():
        if name in PLAIN:
            body[name] = value
        elif name not in _HANDLED and value is not None and _NEUTRAL.get(name) != value:
            raise ValueError(f"the generation setting {name!r} ({value!r}) cannot be sent to a server: remove it")
    return body
