"""A model made of hashes: torch-free, deterministic, as good or as broken as its `fake.json` says.

For tests of everything around a model.  Judges nothing, and never stands in for a real backend silently.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
from gate.backends.fake_faults import Faults
from gate.backends.fake_settings import FakeSettings, load_answers, load_settings
from gate.backends.fake_text import BOS, FIRST_BYTE, VOCABULARY, Distribution, hashed_unit
from gate.backends.fake_times import Clock, Watch

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from numpy.typing import NDArray


def open_backend(checkpoint: Checkpoint, device: str) -> FakeBackend:
    """The fake model in folder `checkpoint.path`.  Raises CheckpointError when `fake.json` is missing or wrong."""
    folder = Path(checkpoint.path)
    settings = load_settings(folder)
    faults = Faults(settings.faults)
    faults.strike("open", 1)
    return FakeBackend(_taken_up(settings), load_answers(folder, settings), faults, checkpoint, device)


def _taken_up(settings: FakeSettings) -> FakeSettings:
    """With `slow_once`, slow in the process that takes the file away, and in no later one."""
    if settings.slow_once is None:
        return settings
    try:
        Path(settings.slow_once).unlink()
    except FileNotFoundError:
        return settings.model_copy(update={"slow_down": 1.0})
    return settings


class FakeBackend:
    """`gate.backends.Backend` over a byte vocabulary."""

    def __init__(
        self, settings: FakeSettings, answers: Mapping[str, str], faults: Faults, checkpoint: Checkpoint, device: str
    ) -> None:
        self._settings = settings
        self._answers = answers
        self._faults = faults
        self._batch_size = checkpoint.batch_size
        self._device = device
        self._distribution = Distribution(settings)
        self._clock = Clock(settings)
        self.info = BackendInfo(
            name="fake",
            device=device,
            dtype="float32" if checkpoint.dtype == "auto" else checkpoint.dtype,
            n_parameters=settings.n_parameters,
            context_length=settings.context_length,
            vocabulary_size=VOCABULARY,
            load_seconds=settings.load_seconds,
            has_logits=settings.has_logits,
            packages=settings.packages,
            unserved=settings.unserved,
            notes=settings.notes,
            device_uuids=settings.device_uuids,
        )

    def encode(self, text: str) -> list[int]:
        return [FIRST_BYTE + b for b in text.encode("utf-8", errors="surrogatepass")]

    def bos(self) -> int | None:
        return BOS

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        if not self._settings.chat_template:
            raise ValueError("the tokenizer has no chat template: set `chat: false`")
        return "".join(f"<{m['role']}>{m['content']}\n" for m in messages) + "<assistant>"

    def score(
        self, windows: Sequence[Window], *, top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> Iterator[WindowScores]:
        for i, window in enumerate(windows):
            self._work("score", 1)
            if len(window.tokens) > self.info.context_length:
                raise ValueError(f"a window of {len(window.tokens)} tokens exceeds {self.info.context_length}")
            tokens = np.array(window.tokens, dtype=np.int64)
            if not self._settings.has_logits:
                nll = self._distribution.nll_nats(tokens)[-window.n_scored :]
                yield WindowScores(nll_nats=nll, top_ids=None, top_logprobs=None, at_logprobs=None)
                continue
            logprobs = self._distribution.logprobs(tokens, window.n_scored)
            nll = -np.take_along_axis(logprobs, tokens[-window.n_scored :, None], axis=1)[:, 0]
            top = np.argsort(-logprobs, axis=1, kind="stable")[:, :top_k].astype(np.int32) if top_k else None
            yield WindowScores(
                nll_nats=nll,
                top_ids=top,
                top_logprobs=None if top is None else np.take_along_axis(logprobs, top, axis=1).astype(np.float32),
                at_logprobs=None
                if at_ids is None
                else np.take_along_axis(logprobs, at_ids[i].astype(np.int64), axis=1).astype(np.float32),
            )

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        return [self._loglikelihood(context, continuation) for context, continuation in requests]

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str], temperature: float, seed: int
    ) -> list[Generation]:
        """Greedy answers are always the same; sampled ones are drawn anew for every seed, with the same error rate."""
        salt = str(seed) if temperature > 0 else ""
        return [self._generation(p, max_new_tokens, stop, salt) for p in prompts]

    def harness(self) -> LM:
        from gate.backends.fake_harness import FakeLM  # lm_eval takes most of a second to import

        return FakeLM(self)

    def timed_batch(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        self._work("timed_batch", 1)
        return self._clock.batch(batch_size=batch_size, prompt_tokens=prompt_tokens, new_tokens=new_tokens, seed=seed)

    def serve(self, arrivals: Sequence[Arrival], *, concurrency: int | None, seed: int) -> list[Served]:
        self._work("serve", len(arrivals))
        return self._clock.load(arrivals, concurrency=concurrency, seed=seed)

    def watch(self) -> Watch:
        """Its times are not this machine's, so what disturbs this machine is not what disturbs them."""
        return self._clock.watch()

    def memory_bytes(self) -> Mapping[str, int]:
        s = self._settings
        rss = s.rss_peak_bytes or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {"rss_peak_bytes": rss, "load_rss_peak_bytes": rss, "activation_peak_bytes": s.activation_peak_bytes}
        if self._device.startswith("cuda"):
            found["vram_peak_bytes"] = found["vram_reserved_bytes"] = found["load_vram_peak_bytes"] = s.vram_bytes
            found["vram_unused_bytes"] = 0
            if s.vram_context_bytes is not None:
                found["vram_context_bytes"] = s.vram_context_bytes
                found["vram_process_bytes"] = s.vram_bytes + s.vram_context_bytes
        return {name: value for name, value in found.items() if value is not None}

    def footprint(self) -> Footprint:
        s = self._settings
        tokens, kv = s.kv_cache_tokens, s.kv_bytes_per_token
        return Footprint(
            weights_bytes=s.weights_bytes,
            weights_read_bytes=s.weights_bytes,
            kv_bytes_per_token=kv,
            flops_per_token=2 * s.n_parameters,
            kv_cache_reserved_bytes=None if tokens is None or kv is None else tokens * kv,
            kv_cache_tokens=tokens,
            max_sequences=s.max_sequences,
            device_memory_bytes=s.device_memory_bytes,
        )

    def rates(self) -> DeviceRates | None:
        s = self._settings
        if s.copy_bytes_per_second is None:
            return None
        return DeviceRates(
            copy_bytes_per_second=s.copy_bytes_per_second, matmul_flops_per_second=s.matmul_flops_per_second
        )

    def rolling(self, text: str) -> float:
        """Log-likelihood of a whole text in nats."""
        self._work("loglikelihood", 1)
        return -float(self._distribution.nll_nats(np.array([BOS, *self.encode(text)], dtype=np.int64)).sum())

    def _loglikelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        self._work("loglikelihood", 1)
        tokens = np.array([BOS, *self.encode(context), *self.encode(continuation)], dtype=np.int64)
        key = self._key(context)
        length = len(self.encode(continuation))
        if key is None or length == 0:
            total = -float(self._distribution.nll_nats(tokens)[len(tokens) - 1 - length :].sum())
            return total, False
        is_target = continuation.strip() == self._answers[key].strip()
        knows = not self._mistaken(key, "")
        # per byte, so that normalising by length changes nothing: far apart for right answers, mixed up for wrong ones
        nats = (0.01 if knows else 200.0) if is_target else 1 + hashed_unit(self._settings.seed, key, continuation)
        return -nats * length, is_target and knows

    def _generation(self, prompt: str, max_new_tokens: int, stop: Sequence[str], salt: str) -> Generation:
        self._work("generate", 1)
        tokens = len(self.encode(prompt)) + max_new_tokens
        if tokens > self.info.context_length:
            raise ValueError(
                f"a prompt and its answer need {tokens} tokens, the model's context length is "
                f"{self.info.context_length}: shorten the prompt or lower max_new_tokens"
            )
        key = self._key(prompt)
        if key is None:
            text = f"{hashed_unit(self._settings.seed, prompt, salt):.6f}"
        else:
            text = self._settings.mistake if self._mistaken(key, salt) else self._answers[key]
        encoded = text.encode("utf-8", errors="surrogatepass")
        finish = "stop" if len(encoded) <= max_new_tokens else "length"
        text = encoded[:max_new_tokens].decode("utf-8", errors="ignore")
        cuts = [at for at in (text.find(s) for s in stop if s) if at >= 0]
        if cuts:
            text, finish = text[: min(cuts)], "stop"
        return Generation(text=text, n_tokens=len(self.encode(text)), finish=finish)

    def _key(self, prompt: str) -> str | None:
        """The known question that stands last in the prompt (few-shot examples come before it)."""
        if prompt in self._answers:
            return prompt
        found = [(prompt.rfind(key) + len(key), len(key), key) for key in self._answers if key in prompt]
        return max(found)[2] if found else None

    def _mistaken(self, key: str, salt: str) -> bool:
        s = self._settings
        wrong = hashed_unit(s.seed, key, salt) < s.error_rate
        jittered = self._batch_size is not None and hashed_unit("batch", self._batch_size, key) < s.jitter
        return wrong != jittered

    def _work(self, op: str, items: int) -> None:
        s = self._settings
        if s.noise_bytes:  # what a careless library does: text on both standard streams
            for stream in (sys.stdout, sys.stderr):
                stream.write("x" * s.noise_bytes + "\n")
                stream.flush()
        if s.sleep_seconds:
            time.sleep(s.sleep_seconds * items)
        self._faults.strike(op, items)
