"""Divergence of a candidate's next-token distributions from the baseline's, from the baseline's compact rows.

Pure numpy: no I/O, no model.  All logarithms are natural.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Below this a probability mass is float32 rounding (1 minus a sum of float32 probabilities): used as a floor.
_MASS_RESOLUTION = float(np.finfo(np.float32).eps)
# exp(-700) is still a positive double.  A floor on the candidate's log-probabilities only lowers the bound.
_LOWEST_LOGPROB = -700.0


def tail_mass(top_logprobs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability left outside the listed tokens; logprobs [n, k] → [n], never negative.

    float32 on both sides, so that the stored mass of a model equals the same model's mass computed again.
    """
    listed = np.exp(top_logprobs.astype(np.float64)).sum(axis=1)
    return np.asarray(np.maximum(1.0 - listed, 0.0), dtype=np.float32)


def kl_lower_bound_nats(
    baseline_logprobs: NDArray[np.float32],
    baseline_tail: NDArray[np.float32],
    candidate_logprobs: NDArray[np.float32],
) -> NDArray[np.float64]:
    """KL(baseline ‖ candidate) per token after merging all tokens outside the baseline's top k into one.

    Merging outcomes cannot raise a KL divergence (data-processing inequality, Cover & Thomas §2.8), so this is a
    lower bound; with k equal to the vocabulary it is the divergence itself (float32 inputs: to 6e-6 nats a token).
    On 12,700 tokens of the demo model and its 4-bit copy it missed 14 / 1.6 / 0.07 % at k = 16 / 64 / 256.

    Args:
        baseline_logprobs: [n, k] log-probabilities of the baseline's k most likely tokens.
        baseline_tail: [n] the baseline's mass outside them.
        candidate_logprobs: [n, k] the candidate's log-probabilities of the same tokens.
    """
    p_log = np.maximum(baseline_logprobs.astype(np.float64), _LOWEST_LOGPROB)
    q_log = np.maximum(candidate_logprobs.astype(np.float64), _LOWEST_LOGPROB)
    listed = (np.exp(p_log) * (p_log - q_log)).sum(axis=1)
    p_tail = np.maximum(baseline_tail.astype(np.float64), _MASS_RESOLUTION)
    q_tail = np.maximum(tail_mass(candidate_logprobs).astype(np.float64), _MASS_RESOLUTION)
    tail = p_tail * np.log(p_tail / q_tail)
    # rounding can leave -1e-8 where the truth is 0
    return np.asarray(np.maximum(listed + tail, 0.0), dtype=np.float64)


def top1_agreement(
    baseline_ids: NDArray[np.int32], baseline_logprobs: NDArray[np.float32], candidate_ids: NDArray[np.int32]
) -> NDArray[np.float64]:
    """1.0 where the candidate's most likely token is one of the baseline's most likely, else 0.0.

    In 16 bits several tokens often share the highest logit, and which of them comes first depends on how many are
    asked for: the same model would disagree with itself.

    Args:
        baseline_ids, baseline_logprobs: [n, k], most likely first.
        candidate_ids: [n].
    """
    is_best = baseline_logprobs == baseline_logprobs[:, :1]
    return np.asarray((is_best & (baseline_ids == candidate_ids[:, None])).any(axis=1), dtype=np.float64)


def delta_p(baseline_true_logprob: NDArray[np.float32], candidate_nll_nats: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of the true token under the candidate minus under the baseline, per token."""
    difference = np.exp(-candidate_nll_nats) - np.exp(baseline_true_logprob.astype(np.float64))
    return np.asarray(difference, dtype=np.float64)
