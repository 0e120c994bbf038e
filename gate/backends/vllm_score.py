"""Log-probabilities of tokens in windows and of continuations, from one vLLM engine.

Gives what the engine computed, at exactly the ids asked for, or raises: nothing here is estimated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gate.backends import Window, WindowScores
from gate.backends.vllm_engine import Engine, sampling
from gate.errors import CouldNotMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOWS_AT_ONCE = 64
"""Windows handed to the engine together, so that results still come soon."""

_SAME_NATS = 1e-3
"""Two ways from the same logits to a log-probability differ by rounding alone."""

_SAME_TOKEN_NATS = 0.5
"""Largest difference of the start-up check.  Logits of 32 are 0.125 apart in bfloat16; a wrong row differs by nats."""


class Scorer:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def reaches_any_id(self) -> bool:
        """Whether log-probabilities at any given ids can be had."""
        return self._engine.scores_given_ids or self._engine.shows_logits

    def score(
        self, windows: Sequence[Window], *, top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> Iterator[WindowScores]:
        """Scores in the order of `windows`.  Raises OutOfMemory; CouldNotMeasure when the engine's answers disagree."""
        for first in range(0, len(windows), WINDOWS_AT_ONCE):
            group = windows[first : first + WINDOWS_AT_ONCE]
            ids = None if at_ids is None else at_ids[first : first + WINDOWS_AT_ONCE]
            if ids is None:
                yield from self._scored(group, top_k, None)
            elif self._engine.scores_given_ids:
                yield from self._scored(group, top_k, ids)
            else:
                for window, wanted in zip(group, ids, strict=True):
                    yield self._watched(window, top_k, wanted)

    def loglikelihoods(self, requests: Sequence[tuple[Sequence[int], int]]) -> list[tuple[float, bool]]:
        """Per request (token ids, how many of the last ones are scored): summed log-likelihood, are they greedy.

        A shared beginning is computed once where the engine's prefix cache holds it.
        """
        outputs = self._engine.run([tokens for tokens, _ in requests], [_TOP_1_CACHED] * len(requests))
        again = [i for i, (tokens, n) in enumerate(requests) if _lost(outputs[i], len(tokens) - n - 1)]
        complete = self._engine.run([requests[i][0] for i in again], [_TOP_1] * len(again))
        outputs = [dict(zip(again, complete, strict=True)).get(i, output) for i, output in enumerate(outputs)]
        results = []
        for (_, n_scored), output in zip(requests, outputs, strict=True):
            own, best = _rows(output, 1, n_scored)[1].T
            results.append((float(own.astype(np.float64).sum()), bool((own >= best).all())))
        return results

    def check(self) -> None:
        """Score a few tokens in all ways.  Raises CouldNotMeasure when they disagree."""
        tokens = tuple(i % self._engine.vocabulary_size for i in range(1, 10))
        window = Window(tokens=tokens, n_scored=5)
        (plain,) = self.score([window], top_k=3, at_ids=None)
        if plain.top_ids is None or plain.top_logprobs is None:
            raise CouldNotMeasure(f"found no log-probabilities for top_k 3 in {plain!r}")
        ((total, _),) = self.loglikelihoods([(tokens, window.n_scored)])
        worst = abs(total + float(plain.nll_nats.sum())) / window.n_scored
        if self.reaches_any_id:
            (given,) = self.score([window], top_k=0, at_ids=[plain.top_ids])
            if given.at_logprobs is not None:
                worst = max(worst, float(np.abs(given.at_logprobs - plain.top_logprobs).max()))
        if not worst <= _SAME_TOKEN_NATS:
            raise CouldNotMeasure(
                f"vLLM's own ways to score the same tokens differ by {worst:.3g} nats, expected at most "
                f"{_SAME_TOKEN_NATS}: this version of vLLM cannot be used, see constraints-vllm.txt for one that can"
            )

    def _scored(
        self, windows: Sequence[Window], top_k: int, at_ids: Sequence[NDArray[np.int32]] | None
    ) -> Iterator[WindowScores]:
        k = min(top_k, self._engine.vocabulary_size)
        given: list[dict[str, Any]] = [{} for _ in windows]
        if at_ids is not None:
            given = [
                {"prompt_logprob_token_ids": ids, "prompt_logprob_start": len(w.tokens) - 1 - w.n_scored}
                for w, ids in zip(windows, at_ids, strict=True)
            ]
        outputs = self._engine.run([w.tokens for w in windows], [_prompt_logprobs(k, **extra) for extra in given])
        for window, output in zip(windows, outputs, strict=True):
            ids, logprobs = _rows(output, k, window.n_scored)
            yield WindowScores(
                nll_nats=-logprobs[:, 0].astype(np.float64),
                top_ids=ids[:, 1:] if k else None,
                top_logprobs=logprobs[:, 1:] if k else None,
                at_logprobs=None if at_ids is None else np.asarray(output.prompt_token_id_logprobs, dtype=np.float32),
            )

    def _watched(self, window: Window, top_k: int, at_ids: NDArray[np.int32]) -> WindowScores:
        """The same for one window, with the log-probabilities at `at_ids` taken from the logits that vLLM computes."""
        with self._engine.watched() as calls:
            (scores,) = self._scored([window], top_k, None)
        # in each step the model computes logits of the next token first, then those of the prompt
        rows = [logits.float() for logits in calls[1::2]]
        if sum(map(len, rows)) != len(window.tokens) - 1:
            raise CouldNotMeasure(
                f"vLLM computed logits in calls of {[len(c) for c in calls]} rows for {len(window.tokens)} tokens, "
                "expected those of the next token and of the prompt in turn: see constraints-vllm.txt for a version"
            )
        logprobs = torch.log_softmax(torch.cat(rows)[-window.n_scored :], dim=-1)
        targets = torch.tensor(window.tokens[-window.n_scored :], device=logprobs.device)[:, None]
        own = logprobs.gather(1, targets)[:, 0].double().cpu().numpy()
        if not np.allclose(own, -scores.nll_nats, rtol=0, atol=_SAME_NATS, equal_nan=True):
            worst = float(np.nanmax(np.abs(own + scores.nll_nats)))
            raise CouldNotMeasure(
                f"vLLM's logits and its log-probabilities of the same tokens differ by {worst:.3g} nats"
            )
        wanted = torch.from_numpy(at_ids.astype(np.int64)).to(logprobs.device)
        return WindowScores(
            nll_nats=scores.nll_nats,
            top_ids=scores.top_ids,
            top_logprobs=scores.top_logprobs,
            at_logprobs=logprobs.gather(1, wanted).cpu().numpy(),
        )


def _prompt_logprobs(k: int, **extra: Any) -> Any:
    return sampling(temperature=0.0, max_tokens=1, prompt_logprobs=k, flat_logprobs=True, detokenize=False, **extra)


_TOP_1 = _prompt_logprobs(1)
_TOP_1_CACHED = _prompt_logprobs(1, skip_reading_prefix_cache=False)


def _lost(output: Any, first_row: int) -> bool:
    """Whether a row that is wanted was not computed: the prefix cache reached too far, or the request was resumed."""
    return bool(output.num_cached_tokens > first_row or output.metrics.num_preemptions > 0)


def _rows(output: Any, k: int, n_scored: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids and log-probabilities [n_scored, 1 + k] of the last tokens of a prompt: the token itself, then the top k."""
    flat = output.prompt_logprobs
    begin = int(flat.start_indices[-n_scored])
    shape = (n_scored, 1 + k)
    return (
        np.asarray(flat.token_ids[begin:], dtype=np.int32).reshape(shape),
        np.asarray(flat.logprobs[begin:], dtype=np.float32).reshape(shape),
    )
