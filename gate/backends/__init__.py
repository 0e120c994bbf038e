"""Backends: the only code that runs a model.  Typed by `Backend`, held in a plain dict.

A backend scores and generates; it knows nothing of stages, rules or verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from lm_eval.api.model import LM
    from numpy.typing import NDArray

BACKENDS = {
    "fake": "gate.backends.fake:open_backend",
    "hf": "gate.backends.hf:open_backend",
    "vllm": "gate.backends.vllm:open_backend",
    "openai": "gate.backends.openai:open_backend",
}
"""Backend name → `open_backend(checkpoint: Checkpoint, device: str) -> Backend`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What to load.  `load` is plain data from the policy's `checkpoints:` table (method, gguf_file, …).

    Attributes:
        path: local folder, already downloaded.
        load: load-time settings such as `{"method": "bitsandbytes-nf4"}`, or empty.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        tokenizer: folder of the tokenizer if it is not the checkpoint's own.
        batch_size: sequences run through the model at once in everything but timing, or fewer where memory is short;
            None: what the backend thinks best.  No score should depend on it; how far one does is what
            `gate calibrate` finds out.
        engine: the backend's own settings as plain data, from the policy's `engines:` table (`gate.engines`).
        trust_remote_code: the policy asks for code from the checkpoint to be run.
    """

    path: str
    load: Mapping[str, Any]
    dtype: str
    tokenizer: str | None
    batch_size: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(
                f"found batch_size {self.batch_size!r}, expected at least 1, or None for the backend's own"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendInfo:
    """`context_length` is in tokens; `load_seconds` is the wall time from nothing to ready.

    `unserved` says which kinds of stages this model cannot be measured by, each with the reason: a server without
    log-probabilities cannot serve `perplexity`.  `notes` are for the reader of the record: what the backend does
    otherwise than asked, such as weights that are dequantized when they are loaded.  `device_uuids` are the GPUs that
    hold the model, with or without NVML's prefix, and `compute_capability` is their lowest (8.9) as the backend knows
    it; none on a CPU and of a server.
    """

    name: str
    device: str
    dtype: str
    n_parameters: int
    context_length: int
    vocabulary_size: int
    load_seconds: float
    has_logits: bool
    packages: Mapping[str, str]
    unserved: Mapping[str, str]
    notes: tuple[str, ...] = ()
    device_uuids: tuple[str, ...] = ()
    compute_capability: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A stretch of tokens of which the last `n_scored` are scored, each given all before it."""

    tokens: tuple[int, ...]
    n_scored: int

    def __post_init__(self) -> None:
        if not 1 <= self.n_scored < len(self.tokens):
            raise ValueError(
                f"a window of {len(self.tokens)} tokens scores {self.n_scored!r} of them, expected at least 1 and "
                "at most all but the first: prepend bos() to score a document's first token"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowScores:
    """Scores of one window.  Arrays have shape [n_scored] or [n_scored, k].

    `nll_nats` is the NLL of each scored token.  With `top_k` > 0 and logits available:
    `top_ids`, `top_logprobs` are the k most likely tokens, most likely first; else both are None.
    With `at_ids` given: `at_logprobs` are the log-probabilities at those ids, same shape as the ids.
    """

    nll_nats: NDArray[np.float64]
    top_ids: NDArray[np.int32] | None
    top_logprobs: NDArray[np.float32] | None
    at_logprobs: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """`finish` is `stop` (end of sequence or a stop string, which is cut off) or `length`."""

    text: str
    n_tokens: int
    finish: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One timed batch: `ttft_seconds` to the first token, `step_seconds` for each later one.

    `energy_joules` is what the devices took for all of it, None where nothing counts it.
    """

    batch_size: int
    prompt_tokens: int
    ttft_seconds: float
    step_seconds: tuple[float, ...]
    energy_joules: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A request of a serving load: when it comes (seconds from the start), the lengths of its prompt and its answer."""

    at_seconds: float
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A request that was answered whole.  Seconds from the start of the load; `due_seconds` is when it came.

    What a client waits for counts from `due_seconds`, also where the engine could not take the request by then.
    """

    due_seconds: float
    first_token_seconds: float
    last_token_seconds: float
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """What a loaded model is made of; None is "not known here".

    Attributes:
        weights_bytes: parameters and buffers as they are held (a format that is dequantized on loading counts so).
        weights_read_bytes: of them, what one decoding step reads: all but an input embedding that is only looked up.
        kv_bytes_per_token: of one sequence, from a cache of the model.
        flops_per_token: multiplications and additions of the matrices that every prompt token passes, without
            attention and without the matrix that gives the logits of the last one.
        kv_cache_reserved_bytes, kv_cache_tokens, max_sequences: an engine's own accounting of its key/value cache.
        device_memory_bytes: of the devices that hold the model together; the machine's own for a CPU.
        kv_block_tokens: an engine gives a sequence its cache in blocks of so many tokens.
        device_share: part of the devices' memory that an engine was given.
    """

    weights_bytes: int | None
    weights_read_bytes: int | None
    kv_bytes_per_token: int | None
    flops_per_token: int | None
    kv_cache_reserved_bytes: int | None
    kv_cache_tokens: int | None
    max_sequences: int | None
    device_memory_bytes: int | None
    kv_block_tokens: int | None = None
    device_share: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceRates:
    """What a device was measured to do in the model's dtype: bytes copied (read plus written), matmul flops."""

    copy_bytes_per_second: float
    matmul_flops_per_second: float


class OutOfMemory(RuntimeError):
    """The device ran out of memory; the backend is still usable."""


class Backend(Protocol):
    """A loaded model.  All token sequences are plain ints without padding."""

    @property
    def info(self) -> BackendInfo: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without special tokens."""
        ...

    def bos(self) -> int | None:
        """Id that starts a document for this tokenizer, or None."""
        ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Messages rendered by the tokenizer's chat template.  Raises ValueError when there is none."""
        ...

    def score(
        self,
        windows: Sequence[Window],
        *,
        top_k: int,
        at_ids: Sequence[NDArray[np.int32]] | None,
    ) -> Iterator[WindowScores]:
        """NLL (nats, float64 sums downstream) of the scored tokens of each window, in order."""
        ...

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """(log-likelihood in nats of the continuation given the context, is it the greedy one)."""
        ...

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        temperature: float,
        seed: int,
    ) -> list[Generation]:
        """One generation per prompt, in order; greedy at temperature 0.

        Raises ValueError when a prompt and its new tokens exceed the context: nothing is cut silently.
        """
        ...

    def harness(self) -> LM:
        """The same model as an lm-eval `LM`."""
        ...

    def timed_batch(self, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int) -> Timing:
        """Generate exactly `new_tokens` per sequence from random prompts and time it.  Raises OutOfMemory."""
        ...

    def serve(self, arrivals: Sequence[Arrival], *, concurrency: int | None, seed: int) -> list[Served]:
        """Answer requests as a server does, one result per arrival, in order.

        Open loop (`concurrency` None): each comes at its `at_seconds`.  Closed loop: so many are always under way, and
        `at_seconds` is not looked at.

        Raises:
            CouldNotMeasure: this backend serves no load; said without any arrival too.
            OutOfMemory: a request does not fit.
        """
        ...

    def memory_bytes(self) -> Mapping[str, int]:
        """Peaks so far, only those that apply: the observed names of `metrics.PROFILE` that end in `peak_bytes`,
        vram_reserved_bytes, vram_process_bytes, vram_context_bytes, vram_unused_bytes."""
        ...

    def footprint(self) -> Footprint: ...

    def rates(self) -> DeviceRates | None:
        """Measured when first asked for (a second or two); None where the device cannot be reached (a server)."""
        ...
