"""A batch timed as a user of transformers waits for it: `model.generate` with a streamer that notes each arrival.

Nothing here judges a time.  What `generate` does between two forward passes (logits to float32, the choice of a token,
stopping, the next step's inputs) is part of what is measured, as it is part of what its users wait for; it shows most
in small models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from gate.backends import OutOfMemory, Timing
from gate.backends.hf_generate import undisturbed
from gate.backends.hf_memory import is_out_of_memory, release
from gate.backends.marks import Marks
from gate.errors import CouldNotMeasure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gate.machine.gpus import Gpus

_LOST = (
    *("device-side assert", "illegal memory access", "illegal address", "illegal instruction", "misaligned address"),
    *("invalid address space", "invalid program counter", "unspecified launch failure", "hardware stack error"),
    *("launch timed out", "uncorrectable ecc", "over nvlink", "busy or unavailable", "no cuda-capable device"),
    *("gpu is lost", "fallen off the bus", "cuda error: unknown error"),
)
"""After these the device, or what this process has of it, is of no use (CUDA's error strings, lower case)."""
_SHOWN_CHARACTERS = 200


class Arrivals(BaseStreamer):  # type: ignore[misc]  # transformers is untyped
    """Marks when tokens reach the host: `generate` puts each step's tokens, copied from the device, for all sequences.

    The prompts, which it puts first, are not marked.
    """

    def __init__(self, device: torch.device) -> None:
        self.marks = Marks(device)
        self._prompts_came = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompts_came:
            self.marks.add()
        self._prompts_came = True

    def end(self) -> None:
        """Nothing is held back."""


def timed_batch(
    model: PreTrainedModel, *, batch_size: int, prompt_tokens: int, new_tokens: int, seed: int, gpus: Gpus | None
) -> Timing:
    """Greedy decoding of random prompts, exactly `new_tokens` for each.

    The first token's time counts from the call of `generate`, with the prompts on the device, to the first generated
    token on the host.  Energy is NVML's counter before and after, which moves every 20 to 100 ms: short batches are
    known that well only on average.

    Raises:
        OutOfMemory: the batch does not fit; the model is still usable.
        CouldNotMeasure: other than the asked number of tokens came, or the device failed.
    """
    what = f"batch size {batch_size}, {prompt_tokens} + {new_tokens} tokens"
    try:
        arrivals, joules = _generated(model, prompts(model, batch_size, prompt_tokens, seed), new_tokens, gpus)
        seconds = arrivals.marks.steps_seconds()
    except (RuntimeError, MemoryError) as problem:
        if not is_out_of_memory(problem):
            _check_device(problem, model.device, what)
            raise
        seconds = None
    if seconds is None:  # outside the handler: the traceback kept the tensors of the failed call alive
        release()
        raise OutOfMemory(f"out of memory at {what}")
    _check_all_came(len(seconds), new_tokens, what)
    return Timing(
        batch_size=batch_size,
        prompt_tokens=prompt_tokens,
        ttft_seconds=seconds[0],
        step_seconds=seconds[1:],
        energy_joules=joules,
    )


def prompts(model: PreTrainedModel, batch_size: int, prompt_tokens: int, seed: int) -> torch.Tensor:
    """Random token ids, [batch_size, prompt_tokens], on the device that feeds the model."""
    random = torch.Generator().manual_seed(seed)
    vocabulary = model.get_input_embeddings().num_embeddings
    return torch.randint(vocabulary, (batch_size, prompt_tokens), generator=random).to(model.device)


def _generated(
    model: PreTrainedModel, ids: torch.Tensor, new_tokens: int, gpus: Gpus | None
) -> tuple[Arrivals, float | None]:
    # without an end token every sequence goes on to the last step
    config = GenerationConfig(max_new_tokens=new_tokens, do_sample=False, eos_token_id=None)
    mask = torch.ones_like(ids)
    before = None if gpus is None else gpus.energy_joules()
    arrivals = Arrivals(model.device)
    with undisturbed(model):
        arrivals.marks.add()
        model.generate(input_ids=ids, attention_mask=mask, generation_config=config, streamer=arrivals)
    after = None if gpus is None else gpus.energy_joules()
    return arrivals, None if before is None or after is None else after - before


def _check_all_came(found: int, expected: int, what: str) -> None:
    if found == 0:
        raise CouldNotMeasure(
            f"no tokens were generated at {what}: there is no first token to time; check that the checkpoint is a "
            "causal language model whose `generate` writes text"
        )
    if found != expected:
        raise CouldNotMeasure(
            f"{found} tokens were generated at {what}, expected exactly {expected}: the checkpoint's own `generate` "
            "stops by rules of its own, so its speed cannot be compared"
        )


def _check_device(problem: Exception, device: torch.device, what: str) -> None:
    said = " ".join(str(problem).split())
    if any(text in said.lower() for text in _LOST):
        raise CouldNotMeasure(
            f"the device {device} failed at {what}: {said[:_SHOWN_CHARACTERS]}; this process cannot use it any more: "
            "see `nvidia-smi` and the kernel's log (Xid), and run again"
        ) from problem
