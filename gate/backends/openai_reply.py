"""What a reply of the completions endpoint says, checked against what was asked.

Pure.  A reply that is not what it should be is a `RequestFailed`, never a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gate.backends import Generation
from gate.backends.openai_client import Reply, RequestFailed

CLAMPED = -9999.0
"""What servers write for a log-probability of minus infinity, which JSON cannot."""

ROUNDING = 1e-3
"""A log-probability may be above 0 by so much."""

_STOPPED = frozenset({"stop", "eos", "eos_token", "stop_sequence"})
_SHOWN_CHARACTERS = 200


def choice(reply: Any, *, model: str, n_prompt: int) -> dict[str, Any]:
    """The only choice of a reply to one prompt of `n_prompt` tokens."""
    if not isinstance(reply, dict):
        raise RequestFailed(f"found the reply {_shown(reply)}, expected an object with `choices`")
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        found = f"{len(choices)} choices" if isinstance(choices, list) else f"the reply {_shown(reply)}"
        raise RequestFailed(f"found {found}, expected 1 for 1 prompt")
    if reply.get("model") != model:
        raise RequestFailed(f"the model {reply.get('model')!r} answered, expected {model!r}")
    if (found_tokens := count(reply, "prompt_tokens")) != n_prompt:
        raise RequestFailed(
            f"the server read {found_tokens} tokens of prompt, expected the {n_prompt} that were sent: it cuts or "
            "tokenizes prompts in its own way"
        )
    only: dict[str, Any] = choices[0]
    return only


def count(reply: Reply, name: str) -> int:
    """A number of tokens from `usage`."""
    usage = reply.get("usage") if isinstance(reply, dict) else None
    value = usage.get(name) if isinstance(usage, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RequestFailed(f"found usage.{name} = {_shown(value)}, expected a number of tokens")
    return value


def generation(reply: Reply, *, model: str, n_prompt: int, max_tokens: int, stop: Sequence[str]) -> Generation:
    """The text that was generated, cut before the first stop string."""
    only = choice(reply, model=model, n_prompt=n_prompt)
    text, reason, n_tokens = only.get("text"), only.get("finish_reason"), count(reply, "completion_tokens")
    if not isinstance(text, str):
        raise RequestFailed(f"found the text {_shown(text)}, expected a string")
    if reason != "length" and reason not in _STOPPED:
        raise RequestFailed(f"generation ended by {_shown(reason)}, expected `stop` or `length`")
    cuts = [at for at in (text.find(s) for s in stop) if at >= 0]
    return Generation(
        text=text[: min(cuts)] if cuts else text,
        n_tokens=min(n_tokens, max_tokens),  # some servers count by tokenizing the text again
        finish="length" if reason == "length" and not cuts else "stop",
    )


def prompt_logprobs(
    reply: Reply, *, model: str, n_prompt: int, n_scored: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of the last `n_scored` of a prompt's tokens that were echoed: log-probability, and is it the largest.

    Returns:
        Two arrays of shape [n_scored]; NaN where the server gave none.
    """
    found = choice(reply, model=model, n_prompt=n_prompt).get("logprobs")
    values = found.get("token_logprobs") if isinstance(found, dict) else None
    tops = found.get("top_logprobs") if isinstance(found, dict) else None
    if not isinstance(values, list) or not isinstance(tops, list):
        raise RequestFailed(f"found no log-probabilities, expected one for each of {n_prompt} tokens of prompt")
    if not {len(values), len(tops)} <= {n_prompt, n_prompt + 1}:  # with the token that it had to generate
        raise RequestFailed(
            f"found {len(values)} log-probabilities and {len(tops)} tables of the largest ones, expected one for each "
            f"of {n_prompt} tokens of prompt"
        )
    scored = range(n_prompt - n_scored, n_prompt)
    logprobs = np.array([_logprob(values[i]) for i in scored], dtype=np.float64)
    largest = np.array([_largest(tops[i]) for i in scored], dtype=np.float64)
    return logprobs, logprobs >= largest


def _logprob(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or value > ROUNDING:
        raise RequestFailed(f"found the log-probability {_shown(value)}, expected a number of at most 0")
    return -math.inf if value <= CLAMPED else float(value)


def _largest(top: Any) -> float:
    if top is None:
        return math.nan
    if not isinstance(top, dict) or not top:
        raise RequestFailed(f"found the top log-probabilities {_shown(top)}, expected at least one")
    return max(_logprob(value) for value in top.values())


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN_CHARACTERS]
