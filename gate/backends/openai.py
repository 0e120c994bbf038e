"""An OpenAI-compatible server that is already running: vLLM, SGLang, TGI, TensorRT-LLM, llama.cpp.

Loads no weights.  What the server cannot do is found out when it is opened, and said; nothing is made up for it.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gate.backends import (
    Arrival,
    BackendInfo,
    Checkpoint,
    DeviceRates,
    Footprint,
    Generation,
    Timing,
    Window,
    WindowScores,
)
from gate.backends import Served as ServedRequest
from gate.backends.openai_client import Body, Client, RequestFailed, address
from gate.backends.openai_probe import EVERY_TOKEN, PLAIN, Served, probe, scoring, timing
from gate.backends.openai_reply import generation, prompt_logprobs
from gate.backends.openai_stream import timed
from gate.backends.openai_tokenizer import Tokens, load, n_stored
from gate.backends.tokenized import loglikelihoods
from gate.errors import CouldNotMeasure

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from numpy.typing import NDArray

PACKAGES = ("transformers", "tokenizers", "lm_eval", "datasets", "sacrebleu", "rouge_score", "scikit-learn")
"""What can change a score in this process."""

DEFAULT_CONTEXT_LENGTH = 2048
"""lm-eval's default for models that do not say."""

_LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx")
_WINDOWS_AT_ONCE = 64


def open_backend(checkpoint: Checkpoint, device: str) -> OpenaiBackend:
    """Find the server and what it can do; `device` is the server's own affair.

    Raises:
        UsageError: the policy does not say where it is, or not which of its models is meant.
        CheckpointError: it does not serve this checkpoint.
        CouldNotMeasure: it cannot be reached, or answers no completions.
    """
    begun = time.perf_counter()
    client = Client(address(checkpoint.engine))
    tokens, config = load(checkpoint)
    served = probe(client, tokens)
    own = next((int(n) for n in (getattr(config, name, None) for name in _LENGTHS) if n), DEFAULT_CONTEXT_LENGTH)
    context_length = served.context_length or own
    if served.no_logprobs is None:
        # To score a token it must be part of a prompt, after which there must be room for one more.
        context_length -= 2
    unserved = {}
    if served.no_logprobs is not None:
        unserved["perplexity"] = f"it gives no log-probabilities of a prompt's tokens: {served.no_logprobs}"
    if served.no_timing is not None:
        unserved["profile"] = f"its tokens cannot be timed: {served.no_timing}"
    info = BackendInfo(
        name="openai",
        device="server",
        dtype=checkpoint.dtype if checkpoint.dtype != "auto" else str(config.dtype or "auto").removeprefix("torch."),
        n_parameters=n_stored(checkpoint.path),
        context_length=context_length,
        vocabulary_size=int(config.vocab_size),
        load_seconds=time.perf_counter() - begun,
        has_logits=False,
        packages={**_versions(), "server": served.software},
        unserved=unserved,
        notes=tuple(_notes(client, served)),
    )
    return OpenaiBackend(client, tokens, served, info)


class OpenaiBackend:
    """`gate.backends.Backend` over one server."""

    def __init__(self, client: Client, tokens: Tokens, served: Served, info: BackendInfo) -> None:
        self.info = info
        self._client = client
        self._tokens = tokens
        self._served = served
        self._harness: LM | None = None

    def encode(self, text: str) -> list[int]:
        return self._tokens.encode(text)

    def bos(self) -> int | None:
        return self._tokens.bos()

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        return self._tokens.chat(messages)

    def score(
        self, windows: Sequence[Window], *, top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> Iterator[WindowScores]:
        """Without `top_k` and `at_ids`, which servers do not offer.  Raises CouldNotMeasure."""
        for first in range(0, len(windows), _WINDOWS_AT_ONCE):
            group = windows[first : first + _WINDOWS_AT_ONCE]
            try:
                scored = self._logprobs([(w.tokens, w.n_scored) for w in group])
            except RequestFailed as problem:
                raise CouldNotMeasure(f"a window of text could not be scored: {problem}") from problem
            for logprobs, _ in scored:
                yield WindowScores(nll_nats=-logprobs, top_ids=None, top_logprobs=None, at_logprobs=None)

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        return loglikelihoods(self.harness(), requests)

    def continuations(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, is it the greedy one) of the last n of the tokens, for each (tokens, n).

        Raises:
            RequestFailed: the server answers one of them otherwise.
            CouldNotMeasure: it answers none.
        """
        if self._served.no_logprobs is not None:
            raise CouldNotMeasure(
                "the server cannot score multiple choice and other given continuations, only generate: it gives no "
                f"log-probabilities of a prompt's tokens: {self._served.no_logprobs}"
            )
        return [(math.fsum(logprobs), bool(greedy.all())) for logprobs, greedy in self._logprobs(asked)]

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str], temperature: float, seed: int
    ) -> list[Generation]:
        """As `Backend.generate`.  Raises RequestFailed, CouldNotMeasure as well."""
        encoded = [self._tokens.prompt(text) for text in prompts]
        longest = max(map(len, encoded), default=0)
        if longest + max_new_tokens > self.info.context_length:
            raise ValueError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's context length of "
                f"{self.info.context_length}: shorten the prompt or lower max_new_tokens"
            )
        settings = {"temperature": temperature, "max_tokens": max_new_tokens, "stop": [s for s in stop if s]}
        seeds = [_seed(seed, i) for i in range(len(prompts))] if temperature > 0 else [None] * len(prompts)
        return self.completions(
            [
                (text, ids, {**settings, **({} if own is None else {"seed": own})})
                for text, ids, own in zip(prompts, encoded, seeds, strict=True)
            ]
        )

    def completions(self, asked: Sequence[tuple[str, Sequence[int], Body]]) -> list[Generation]:
        """Generations for (text, its token ids, `max_tokens`, `stop`, …).  Raises RequestFailed, CouldNotMeasure."""
        bodies = [
            {"model": self._served.model, "prompt": self._prompt(text, ids), **self._decoding(settings)}
            for text, ids, settings in asked
        ]
        reads = [
            partial(
                generation,
                model=self._served.answers_as,
                n_prompt=len(ids),
                max_tokens=settings["max_tokens"],
                stop=settings["stop"],
            )
            for _, ids, settings in asked
        ]
        return self._client.ask(bodies, reads)

    def harness(self) -> LM:
        if self._harness is None:
            from gate.backends.openai_harness import ServerLM  # lm_eval takes seconds to import

            self._harness = ServerLM(self, self._tokens)
        return self._harness

    def timed_batch(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        """As this client sees it, network and queue included.  Raises CouldNotMeasure."""
        numbers = random.Random(seed)
        prompts = [numbers.choices(range(self.info.vocabulary_size), k=prompt_tokens) for _ in range(batch_size)]
        bodies = [timing(self._served.model, ids, self._served.decoding, new_tokens=new_tokens) for ids in prompts]
        arrivals = timed(self._client, bodies, new_tokens=new_tokens)
        return Timing(
            batch_size=batch_size,
            prompt_tokens=prompt_tokens,
            ttft_seconds=arrivals[0],
            step_seconds=tuple(after - before for before, after in pairwise(arrivals)),
        )

    def serve(self, arrivals: Sequence[Arrival], *, concurrency: int | None, seed: int) -> list[ServedRequest]:
        """Raises CouldNotMeasure: who else asks the server, and what its network does, is not known here."""
        raise CouldNotMeasure(
            "the openai backend does not put a serving load on a server: other clients and the network would be part "
            "of what is measured; use --backend vllm, or the server's own benchmark"
        )

    def memory_bytes(self) -> Mapping[str, int]:
        """Nothing: the model's memory is the server's, and this process' own says nothing of it."""
        return {}

    def footprint(self) -> Footprint:
        """Nothing is known of what the server holds."""
        return Footprint(
            weights_bytes=None,
            weights_read_bytes=None,
            kv_bytes_per_token=None,
            flops_per_token=None,
            kv_cache_reserved_bytes=None,
            kv_cache_tokens=None,
            max_sequences=None,
            device_memory_bytes=None,
        )

    def rates(self) -> DeviceRates | None:
        """None: the device is the server's."""
        return None

    def _logprobs(
        self, asked: Sequence[tuple[Sequence[int], int]]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        model = self._served.answers_as
        return self._client.ask(
            [scoring(self._served.model, list(tokens)) for tokens, _ in asked],
            [partial(prompt_logprobs, model=model, n_prompt=len(tokens), n_scored=n) for tokens, n in asked],
        )

    def _decoding(self, settings: Body) -> Body:
        """Plain decoding with these settings.  Raises ValueError for one that the server does not take."""
        chosen = dict(self._served.decoding)
        for name, value in settings.items():
            is_plain = value in EVERY_TOKEN if name == "top_k" else name in PLAIN and value == PLAIN[name]
            if name in PLAIN and name not in chosen and not is_plain:
                raise ValueError(f"the server does not take the decoding setting {name!r} ({value!r}): remove it")
            if not is_plain and (name != "stop" or value):
                chosen[name] = value
        return chosen

    def _prompt(self, text: str, ids: Sequence[int]) -> str | list[int]:
        """Token ids where the server takes them, else text from which it makes the same number of tokens."""
        if self._served.takes_ids:
            return list(ids)
        if len(ids) < len(self._tokens.prompt(text)):
            raise ValueError("a prompt that is too long cannot be cut for a server whose prompts are text: shorten it")
        start = self._tokens.tokenizer.bos_token or ""
        wanted = bool(ids) and ids[0] == self._tokens.bos()
        bare = text.removeprefix(start)
        return start + bare if wanted and not self._served.adds_start else bare


def _seed(seed: int, index: int) -> int:
    """Another one for each prompt of a call: equal prompts should be sampled independently."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:4]) >> 1


def _notes(client: Client, served: Served) -> Iterator[str]:
    yield (
        f"served by {client.server.url} as {served.model!r} ({served.software}): that its weights are those of the "
        "checkpoint's folder cannot be seen from here, only that its tokenizer is; nor can its memory"
    )
    if served.no_logprobs is not None:
        yield "multiple choice and other given continuations cannot be scored, only text that the model writes"
    left = sorted(PLAIN.keys() - served.decoding.keys())
    if left:
        yield f"the server takes no {', '.join(left)}: its own defaults for them apply to what it generates"
    if not served.is_seeded:
        yield "the server does not repeat a sampled text with its seed: stages with a temperature do not repeat exactly"


def _versions() -> dict[str, str]:
    found: dict[str, Any] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
