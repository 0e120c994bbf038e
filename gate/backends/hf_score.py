"""Log-probabilities of tokens in windows, from one forward pass per batch of windows.

Keeps logits of scored positions only, and never a whole batch of them in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from gate.backends import Window, WindowScores
from gate.backends.hf_memory import Batches

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

TOKENS_PER_BATCH = {"cpu": 512, "cuda": 16384}
WINDOWS_SORTED = 64
"""Windows sorted by length together, so that little is padded and results still come soon."""

_FLOAT32_ELEMENTS = 2**24
_MAX_WINDOWS = 64


def logits_of_last(model: PreTrainedModel, positions: int) -> dict[str, int]:
    """Arguments that make `model` compute logits for the last positions only; empty if it cannot."""
    able = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": positions} if able else {}


def token_scores(
    logits: torch.Tensor, rows: NDArray[np.int64], places: NDArray[np.int64], targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-probability (nats) of each target token, and whether it is the most likely one.

    Args:
        logits: [rows, places, vocabulary], any floating type; converted to float32 in chunks, on their device.
        rows, places, targets: [n], where the logits of each target are.
    """
    at = torch.from_numpy(np.stack([rows, places, targets])).to(logits.device)
    step = max(1, _FLOAT32_ELEMENTS // logits.shape[-1])
    logprobs, greedy = [], []
    for i in range(0, at.shape[1], step):
        row, place, target = at[:, i : i + step]
        chosen = logits[row, place].float()
        logprobs.append(-cross_entropy(chosen, target, reduction="none"))
        greedy.append(chosen.argmax(dim=-1) == target)
    return torch.cat(logprobs).double().cpu().numpy(), torch.cat(greedy).cpu().numpy()


def rope_limits(config: Any) -> list[int]:
    """Lengths beyond which rotary embeddings are others, also those of the tokens before (longrope)."""
    return _longrope(getattr(config.get_text_config(decoder=True), "rope_parameters", None))


def _longrope(parameters: Any) -> list[int]:
    if not isinstance(parameters, dict):
        return []
    if parameters.get("rope_type") == "longrope":
        return [int(parameters["original_max_position_embeddings"])]
    return [limit for nested in parameters.values() for limit in _longrope(nested)]


class Scorer:
    def __init__(self, model: PreTrainedModel, *, batch_size: int | None) -> None:
        """With a `batch_size`, so many windows at once; else as many as `TOKENS_PER_BATCH` holds."""
        self._model = model
        self._device = model.device
        self._limits = rope_limits(model.config)
        self._batches = Batches(min(batch_size or _MAX_WINDOWS, _MAX_WINDOWS))
        self._tokens_per_batch = None if batch_size else TOKENS_PER_BATCH.get(self._device.type, 2048)

    def score(
        self, windows: Sequence[Window], *, top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> Iterator[WindowScores]:
        """Scores in the order of `windows`; not finite where the logits are not.  Raises OutOfMemory."""
        for first in range(0, len(windows), WINDOWS_SORTED):
            group = range(first, min(first + WINDOWS_SORTED, len(windows)))
            order = sorted(group, key=lambda i: -len(windows[i].tokens))
            scored: dict[int, WindowScores] = {}
            at = 0
            while at < len(order):
                fitting = self._fitting(len(windows[order[at]].tokens))
                batch = order[at : at + min(fitting, self._batches.size)]
                batch = [i for i in batch if self._kind(windows[i]) == self._kind(windows[batch[0]])]
                ids = None if at_ids is None else [at_ids[i] for i in batch]
                forward = partial(self._forward, [windows[i] for i in batch], top_k, ids)
                results = self._batches.attempt(forward, len(batch))
                if results is not None:
                    scored.update(zip(batch, results, strict=True))
                    at += len(batch)
            yield from (scored[i] for i in group)

    def _kind(self, window: Window) -> int:
        """Windows of different kinds have other positions (longrope): none depends on its companions."""
        return sum(len(window.tokens) - 1 > limit for limit in self._limits)

    def _fitting(self, longest: int) -> int:
        """How many windows of `longest` tokens go together while memory lasts."""
        return _MAX_WINDOWS if self._tokens_per_batch is None else max(1, self._tokens_per_batch // longest)

    @torch.inference_mode()
    def _forward(
        self, windows: Sequence[Window], top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> list[WindowScores]:
        inputs = [w.tokens[:-1] for w in windows]  # the last token is only a target
        longest = max(map(len, inputs))
        ids = torch.tensor([[*x, *([0] * (longest - len(x)))] for x in inputs], device=self._device)
        lengths = torch.tensor([len(x) for x in inputs], device=self._device)
        padded = int(lengths.min()) < longest
        mask = torch.arange(longest, device=self._device)[None] < lengths[:, None] if padded else None
        start = min(len(x) - w.n_scored for x, w in zip(inputs, windows, strict=True))
        keep = logits_of_last(self._model, longest - start)
        logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False, **keep).logits
        offset = longest - logits.shape[1]
        return [
            self._window(
                logits[row, len(inputs[row]) - window.n_scored - offset : len(inputs[row]) - offset],
                window,
                top_k,
                None if at_ids is None else at_ids[row],
            )
            for row, window in enumerate(windows)
        ]

    def _window(
        self, logits: torch.Tensor, window: Window, top_k: int, at_ids: NDArray[np.int32] | None
    ) -> WindowScores:
        """`logits`: [n_scored, vocabulary], of the positions before the scored tokens."""
        targets = torch.tensor(window.tokens[-window.n_scored :], device=self._device)
        wanted = None if at_ids is None else torch.from_numpy(at_ids.astype(np.int64)).to(self._device)
        nll, top_ids, top_logprobs, at_logprobs = [], [], [], []
        rows = max(1, _FLOAT32_ELEMENTS // logits.shape[1])
        for i in range(0, len(logits), rows):
            chunk = logits[i : i + rows].float()
            nll.append(cross_entropy(chunk, targets[i : i + rows], reduction="none"))
            if top_k == 0 and wanted is None:
                continue
            logprobs = torch.log_softmax(chunk, dim=-1)
            if top_k > 0:
                values, ids = logprobs.topk(min(top_k, logprobs.shape[1]), dim=1)
                top_logprobs.append(values.cpu())
                top_ids.append(ids.int().cpu())
            if wanted is not None:
                at_logprobs.append(logprobs.gather(1, wanted[i : i + rows]).cpu())
        return WindowScores(
            nll_nats=torch.cat(nll).double().cpu().numpy(),
            top_ids=torch.cat(top_ids).numpy() if top_ids else None,
            top_logprobs=torch.cat(top_logprobs).numpy() if top_logprobs else None,
            at_logprobs=torch.cat(at_logprobs).numpy() if at_logprobs else None,
        )
